"""An experiment: what a file describes, with a command's options laid over it, checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune import Callback, CheckpointConfig
from ray.tune.search.variant_generator import generate_variants

from rllib_cikd.common.errors import CommandError
from rllib_cikd.common.result_keys import STEPS
from rllib_cikd.experiments.check import check_environments, check_settings, find_algorithm
from rllib_cikd.experiments.loggers import build_loggers
from rllib_cikd.experiments.read import read_experiments
from rllib_cikd.experiments.search_space import is_drawn, with_domains
from rllib_cikd.experiments.stop_criteria import (
    check_score,
    check_stop,
    flatten_stop,
    modern_key,
    note_of_no_learning,
)
from rllib_cikd.experiments.tuning import Tuning, check_tuning, read_tuning
from rllib_cikd.experiments.variants import load_variant

#: A killed run loses at most this many iterations (with CIKD's defaults, 50,000 env steps).
DEFAULT_CHECKPOINT_FREQ = 50
#: CIKD's checkpoints hold the replay buffer: older ones are deleted to bound disk use.
DEFAULT_CHECKPOINTS_KEPT = 2
#: Of a trial that others may be told to go on from.
POPULATIONS_CHECKPOINTS_KEPT = 4


@dataclass(frozen=True)
class Experiment:
    """One checked experiment of a file.

    Attributes:
        name: Its key in the file; names the folder of results.
        algorithm: The RLlib algorithm class that `run` names.
        param_space: The config as Tune takes it, `grid_search` entries included, with `env`.
        trial_configs: The configs that `param_space` resolves to, one a trial.
        stop: Result keys, flattened with "/", and the values at which a trial stops.
        num_samples: How often the whole grid is run.
        checkpoint_config: When Tune writes checkpoints, and how many it keeps.
        storage_path: Folder of results named in the file, if any.
        tuning: Its scheduler and searcher, if any.
        loggers: Those besides Tune's own.
        notes: What is worth saying before it starts.
    """

    name: str
    algorithm: type[Algorithm]
    param_space: dict[str, Any]
    trial_configs: list[dict[str, Any]]
    stop: dict[str, float]
    num_samples: int
    checkpoint_config: CheckpointConfig
    storage_path: str | None = None
    tuning: Tuning = field(default_factory=Tuning)
    loggers: list[Callback] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def num_trials(self) -> int:
        return len(self.trial_configs) * self.num_samples


def load_experiments(
    path: str | Path,
    *,
    variant: str | None = None,
    config: Mapping[str, Any] | None = None,
    stop: Mapping[str, Any] | None = None,
    num_samples: int | None = None,
    checkpoint_freq: int | None = None,
    checkpoint_at_end: bool | None = None,
) -> list[Experiment]:
    """Reads the experiments of a file and checks each config that they resolve to.

    Args:
        path: A `.yaml`/`.yml` file, `{experiment_name: {run, env, stop, config}}`, or a `.py` file
            that defines `config` (an `AlgorithmConfig`, or a dict with `run` naming the
            algorithm, "CIKD" if there is none) and optionally `stop`.
        variant: A name in `studies/variants.yaml`, whose settings are merged over the `config` of
            every experiment; the experiments' names tell it.
        config: Merged over the `config` of every experiment, and over the variant.
        stop: Merged over the `stop` of every experiment.
        num_samples: Replaces `num_samples` of every experiment, and so on below.

    Raises:
        CommandError: If the file cannot be read, or would not run as written: unknown keys,
            values that the algorithm's config rejects, results that are never reported.
    """
    options = {
        "num_samples": num_samples,
        "checkpoint_freq": checkpoint_freq,
        "checkpoint_at_end": checkpoint_at_end,
    }
    specs = read_specs(path, variant=variant, config=config, options=options)
    return check_experiments(path, specs, stop)


def read_specs(
    path: str | Path,
    *,
    variant: str | None,
    config: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """A file's experiments with what a command lays over them; not checked yet.

    Args:
        path, variant, config: As for `load_experiments`.
        options: Replace keys of every experiment, save for those that are None.

    Raises:
        CommandError: If the file cannot be read, or there is no such variant.
    """
    path = Path(path)
    given = {key: value for key, value in options.items() if value is not None}
    specs = read_experiments(path)
    settings = dict(config or {})
    if variant is not None:
        settings = merge(load_variant(variant, path), settings)
        specs = {f"{name}_{variant}": spec for name, spec in specs.items()}
    if "env" in settings:
        given["env"] = settings["env"]
    return {
        name: {**spec, **given, "config": merge(spec.get("config") or {}, settings)}
        for name, spec in specs.items()
    }


def check_experiments(
    path: str | Path, specs: Mapping[str, dict[str, Any]], stop: Mapping[str, Any] | None
) -> list[Experiment]:
    """Checks what `read_specs` returned.

    Raises:
        CommandError: See `load_experiments`.
    """
    experiments = []
    for name, spec in specs.items():
        try:
            experiments.append(_build(name, spec, stop or {}))
        except CommandError as error:
            raise CommandError(f"{path}: experiment {name!r}: {error}") from error
    return experiments


def storage_of(spec: Mapping[str, Any]) -> str | None:
    """The folder of results that an experiment names, if any."""
    return spec.get("storage_path", spec.get("local_dir"))


def _build(name: str, spec: dict[str, Any], stop: Mapping) -> Experiment:
    algorithm = find_algorithm(spec.get("run"))
    param_space = with_domains("config", spec["config"])
    env = spec.get("env")
    if env is not None and param_space.setdefault("env", env) != env:
        raise CommandError(f"`env` is {env!r}, but `config` has {param_space['env']!r}. Keep one.")
    num_samples = spec.get("num_samples", 1)
    if not isinstance(num_samples, int) or num_samples < 1:
        raise CommandError(f"`num_samples` is {num_samples!r}. Give 1 or more.")
    _check_grids("config", param_space)
    try:
        resolved = generate_variants({"config": param_space})
        trial_configs = [trial["config"] for _, trial in resolved]
    except Exception as error:  # of a function of the user's, too
        raise CommandError(f"config: {error}") from error
    criteria = {**flatten_stop(spec.get("stop") or {}), **flatten_stop(stop)}
    loggers = build_loggers(spec.get("loggers"))
    tuning = read_tuning(spec, param_space, len(trial_configs) * num_samples)
    checkpoint_config = _checkpoint_config(spec, param_space, tuning)
    configs = [check_settings(algorithm, trial_config) for trial_config in trial_configs]
    for trial_config, config in zip(trial_configs, configs, strict=True):
        check_stop(criteria, config)
        check_score(checkpoint_config.checkpoint_score_attribute, config)
        check_tuning(tuning, config, trial_config, partial(check_settings, algorithm))
    check_environments(algorithm, trial_configs, configs)
    return Experiment(
        name=name,
        algorithm=algorithm,
        param_space=param_space,
        trial_configs=trial_configs,
        stop=criteria,
        num_samples=num_samples,
        checkpoint_config=checkpoint_config,
        storage_path=storage_of(spec),
        tuning=tuning,
        loggers=loggers,
        notes=_notes(criteria, configs),
    )


def _notes(criteria: Mapping[str, float], configs: Sequence[AlgorithmConfig]) -> list[str]:
    steps = criteria.get(STEPS)
    notes = [] if steps is None else [note_of_no_learning(steps, config) for config in configs]
    return list(dict.fromkeys(note for note in notes if note is not None))


def _check_grids(where: str, value: Any) -> None:
    """Refuses a `grid_search` of nothing, or of what is no list, anywhere in `value`."""
    if isinstance(value, Mapping):
        if "grid_search" in value:
            grid = value["grid_search"]
            if not isinstance(grid, list) or not grid or len(value) > 1:
                raise CommandError(
                    f"{where}: {value!r} is no grid. Give a list of one value or more, and "
                    "nothing beside it: {grid_search: [1, 2]}."
                )
        for key, part in value.items():
            _check_grids(f"{where}: {key}", part)
    elif isinstance(value, list):
        for part in value:
            _check_grids(where, part)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lays settings over others, key by key in nested dicts; a `grid_search` or a draw replaces."""
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        old = merged.get(key)
        if (
            isinstance(old, dict)
            and isinstance(value, Mapping)
            and not {"grid_search"} & {*old, *value}
            and not is_drawn(old)
            and not is_drawn(value)
        ):
            merged[key] = merge(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _checkpoint_config(
    spec: Mapping[str, Any], param_space: Mapping[str, Any], tuning: Tuning
) -> CheckpointConfig:
    settings = {
        "checkpoint_frequency": DEFAULT_CHECKPOINT_FREQ,
        "checkpoint_at_end": True,
        "num_to_keep": POPULATIONS_CHECKPOINTS_KEPT if tuning.mutated else DEFAULT_CHECKPOINTS_KEPT,
        **(spec.get("checkpoint_config") or {}),
    }
    for key, setting in (
        ("checkpoint_freq", "checkpoint_frequency"),
        ("checkpoint_at_end", "checkpoint_at_end"),
        ("keep_checkpoints_num", "num_to_keep"),
    ):
        if key in spec:
            settings[setting] = spec[key]
    if spec.get("checkpoint_on_evaluation") not in (None, False):
        settings["checkpoint_frequency"] = _evaluation_interval(spec, param_space)
    score = settings.get("checkpoint_score_attribute")
    if isinstance(score, str):
        settings["checkpoint_score_attribute"] = modern_key(score)
    try:
        return CheckpointConfig(**settings)
    except (TypeError, ValueError) as error:
        raise CommandError(f"checkpoint settings: {error}") from error


def _evaluation_interval(spec: Mapping[str, Any], param_space: Mapping[str, Any]) -> int:
    """How often a checkpoint is written if it is after each evaluation, in iterations."""
    given = spec["checkpoint_on_evaluation"]
    if given is not True:
        raise CommandError(f"`checkpoint_on_evaluation` is {given!r}. Give true or false.")
    for key, place in (
        ("checkpoint_freq", spec),
        ("checkpoint_frequency", spec.get("checkpoint_config") or {}),
    ):
        if key in place:
            raise CommandError(
                f"`checkpoint_on_evaluation` is true, but `{key}` is {place[key]!r}. Keep one."
            )
    interval = param_space.get("evaluation_interval")
    if not isinstance(interval, int) or interval < 1:
        raise CommandError(
            f"`checkpoint_on_evaluation` is true, but `evaluation_interval` in `config` is "
            f"{interval!r}. Give the number of iterations from one evaluation to the next."
        )
    return interval
