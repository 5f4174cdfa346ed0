"""`rllib train`."""

from __future__ import annotations

import inspect
import json
from typing import Annotated, Any

import typer

from rllib_cikd.cli.ray_command import Imports, RayAddress, RayCommand, Verbose

app = typer.Typer(help="Train an algorithm.", rich_markup_mode=None)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"{text!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{text!r} is not a JSON object such as '{{\"a\": 1}}'")
    return value


def _settings(texts: list[str] | None) -> dict[str, Any]:
    """Settings given as `key=value`; dots in a key lead into a mapping."""
    from rllib_cikd.experiments.yaml_file import read_value

    settings: dict[str, Any] = {}
    for text in texts or ():
        path, equals, value = text.partition("=")
        if not equals or not all(path.split(".")):
            raise typer.BadParameter(f"--set {text}: give KEY=VALUE, such as actor_lr=1e-4")
        *folders, key = path.split(".")
        place = settings
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise typer.BadParameter(f"--set {text}: {folder} has a value already")
        try:
            place[key] = read_value(value)
        except ValueError as error:
            raise typer.BadParameter(f"--set {text}: {error}") from error
    return settings


EXAMPLES = """\b
Examples:
  rllib train example cikd-halfcheetah
  rllib train file tuned_examples/cikd-pendulum.yaml
  rllib train file tuned_examples/cikd-pendulum.yaml --resume
  rllib train file tuned_examples/cikd-pendulum.yaml --variant ensemble-sac
  rllib train file my.yaml --set actor_lr=1e-4 --set model_config.fcnet_hiddens=[64,64]
  rllib train file my.yaml --config '{"seed": {"grid_search": [0, 1, 2]}}'
"""


@app.command("file", cls=RayCommand, epilog=EXAMPLES)
def train_file(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A YAML file, `experiment_name: {run, env, stop, config}` with `run` being CIKD "
            "or any RLlib algorithm; or a Python file that defines `config` and, if wanted, "
            "`stop`.",
        ),
    ],
    stop: Annotated[
        dict[str, Any] | None,
        typer.Option(
            "--stop",
            "-s",
            parser=_json_object,
            metavar="JSON",
            help="Stopping criteria, merged over the file's (with --resume: over the run's): "
            "'{\"num_env_steps_sampled_lifetime\": 100000}'.",
        ),
    ] = None,
    config: Annotated[
        dict[str, Any] | None,
        typer.Option(
            "--config",
            "-c",
            parser=_json_object,
            metavar="JSON",
            help="Settings of the algorithm, merged over the file's.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One setting, written as in YAML, over those of --config; may be given again. A "
            "key with dots leads into a mapping: env_config.size=5.",
        ),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Train a comparison of studies/variants.yaml instead, such as ensemble-sac: its "
            "settings are merged over the file's, under those of --config.",
        ),
    ] = None,
    num_samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Run each setting N times (default: as in the file, else 1).",
        ),
    ] = None,
    checkpoint_freq: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Write a checkpoint every N training iterations, 0 for none "
            "(default: as in the file, else 50; the last 2 are kept).",
        ),
    ] = None,
    checkpoint_at_end: Annotated[
        bool | None,
        typer.Option(
            help="Write a checkpoint when a trial ends (default: as in the file, else yes)."
        ),
    ] = None,
    storage_path: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder or URI of results (default: as in the file, else ~/ray_results).",
        ),
    ] = None,
    experiment_name: Annotated[
        str | None,
        typer.Option(
            "--experiment-name",
            "-n",
            metavar="NAME",
            help="Name of the results' folder in there (default: the experiment's name in the "
            "file).",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the last run of this file where its checkpoints end: trials that were "
            "killed or failed go on, finished ones stay; with the settings that it was started "
            "with. With --stop, finished ones go on, too, until the new goal.",
        ),
    ] = False,
    wandb: Annotated[
        str | None,
        typer.Option(metavar="PROJECT", help="Log to this project of Weights & Biases as well."),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(
            metavar="URI_OR_EXPERIMENT",
            help="Log to MLflow as well: to this server or folder (it has a / in it), or with its "
            "own settings to the experiment of this name.",
        ),
    ] = None,
    imports: Imports = None,
    ray_address: RayAddress = None,
    verbose: Verbose = False,
) -> int:
    """Train what an experiment file describes, with Ray Tune."""
    from rllib_cikd.experiments.experiment import merge
    from rllib_cikd.experiments.run import train

    return train(
        file,
        stop=stop,
        config=merge(config or {}, _settings(settings)) or None,
        variant=variant,
        num_samples=num_samples,
        checkpoint_freq=checkpoint_freq,
        checkpoint_at_end=checkpoint_at_end,
        storage_path=storage_path,
        experiment_name=experiment_name,
        resume=resume,
        imports=imports or (),
        ray_address=ray_address,
        wandb=wandb,
        mlflow=mlflow,
        verbose=verbose,
    )


def _train_example(name: str, **options: Any) -> int:
    """Train a tuned example that comes with the package; `rllib list` names them."""
    from rllib_cikd.experiments.packaged import tuned_example

    return train_file(str(tuned_example(name)), **options)


_NAME = inspect.Parameter(
    "name",
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    annotation=Annotated[
        str, typer.Argument(metavar="NAME", help="Of the example, such as cikd-pendulum.")
    ],
)
_, *_OPTIONS = inspect.signature(train_file, eval_str=True).parameters.values()
_train_example.__signature__ = inspect.Signature([_NAME, *_OPTIONS])  # type: ignore[attr-defined]
app.command("example", cls=RayCommand, epilog=EXAMPLES)(_train_example)
