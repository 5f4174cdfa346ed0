"""Loggers of an experiment, besides the JSON, CSV and TensorBoard files that Tune always writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import tune

from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.named import Kind, name_and_arguments


def _wandb() -> type:
    from ray.air.integrations.wandb import WandbLoggerCallback

    return WandbLoggerCallback


def _mlflow() -> type:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback


def _comet() -> type:
    from ray.air.integrations.comet import CometLoggerCallback

    return CometLoggerCallback


def _aim() -> type:
    from ray.tune.logger.aim import AimLoggerCallback

    return AimLoggerCallback


LOGGERS = Kind(
    field="loggers",
    base=tune.Callback,
    load={"wandb": _wandb, "mlflow": _mlflow, "comet": _comet, "aim": _aim},
    modules={"wandb": ("wandb",), "mlflow": ("mlflow",), "comet": ("comet_ml",), "aim": ("aim",)},
    pip={},
    elsewhere={},
)


def build_loggers(value: Any) -> list[tune.Callback]:
    """Makes the loggers that an experiment lists.

    Args:
        value: A list of names, or of mappings of a name to its arguments; None for none.

    Raises:
        CommandError: If it is no such list, or one of them cannot be made.
    """
    return [LOGGERS.build(name, arguments) for name, arguments in _listed(value).items()]


def with_options(value: Any, wandb: str | None, mlflow: str | None) -> Any:
    """Lays a command's options over the loggers that an experiment lists.

    Args:
        value: As for `build_loggers`.
        wandb: The project; None for what is listed.
        mlflow: The tracking URI or a folder, told by a "/" in it, else the name of MLflow's
            experiment; None for what is listed.

    Raises:
        CommandError: If an option is given and `value` is no list of loggers.
    """
    given = {}
    if wandb is not None:
        given["wandb"] = {"project": wandb}
    if mlflow is not None:
        given["mlflow"] = {"tracking_uri" if "/" in mlflow else "experiment_name": mlflow}
    if not given:
        return value
    listed = _listed(value)
    merged = listed | {name: listed.get(name, {}) | new for name, new in given.items()}
    return [{name: arguments} for name, arguments in merged.items()]


def _listed(value: Any) -> dict[str, dict[str, Any]]:
    if value is None:
        return {}
    if not isinstance(value, list):
        raise CommandError(
            f"`loggers` is {value!r}. Give a list: [wandb], or [{{wandb: {{project: mine}}}}]."
        )
    listed: dict[str, Mapping[str, Any]] = {}
    for entry in value:
        name, arguments = name_and_arguments("loggers", entry, LOGGERS.load)
        if name in listed:
            raise CommandError(f"`loggers`: {name} is listed twice. Keep one.")
        listed[name] = arguments
    return {name: dict(arguments) for name, arguments in listed.items()}
