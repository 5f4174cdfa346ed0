"""Reads experiment files (Ray's classic YAML form, or Python) and checks them before Ray starts."""

from __future__ import annotations

import copy
import difflib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
from ray import cloudpickle
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.registry import ALGORITHMS
from ray.tune import CheckpointConfig
from ray.tune.registry import ENV_CREATOR, TRAINABLE_CLASS, _global_registry, get_trainable_cls
from ray.tune.search.variant_generator import generate_variants
from ray.tune.utils import flatten_dict

from rllib_cikd import CIKD  # registers "CIKD"
from rllib_cikd.common.errors import CommandError, did_you_mean
from rllib_cikd.experiments.variants import load_variant
from rllib_cikd.experiments.yaml_file import read_yaml
from rllib_cikd.rllib.environment import create_env

#: Keys of one experiment in a YAML file.
EXPERIMENT_KEYS = (
    "run",
    "env",
    "stop",
    "config",
    "num_samples",
    "storage_path",
    "local_dir",
    "checkpoint_config",
    "checkpoint_freq",
    "checkpoint_at_end",
    "keep_checkpoints_num",
)
#: A killed run loses at most this many iterations (with CIKD's defaults, 50,000 env steps).
DEFAULT_CHECKPOINT_FREQ = 50
#: CIKD's checkpoints hold the replay buffer: older ones are deleted to bound disk use.
DEFAULT_CHECKPOINTS_KEPT = 2

# Keys that `AlgorithmConfig.update_from_dict` understands besides a config's own attributes.
_SPECIAL_CONFIG_KEYS = (
    "multiagent",
    "callbacks",
    "create_env_on_driver",
    "custom_eval_function",
    "enable_rl_module_and_learner",
    "enable_env_runner_and_connector_v2",
    "exploration_config",
    "framework",
    "input",
    "lambda",
    "num_cpus_for_driver",
    "num_workers",
    "optimizer",
    "sample_collector",
    "train_batch_size_per_learner",
)

# Classic names of metrics, and what RLlib's new API stack reports instead.
_STEPS = "num_env_steps_sampled_lifetime"
_CLASSIC_METRICS = {
    "timesteps_total": _STEPS,
    "num_env_steps_sampled": _STEPS,
    "agent_timesteps_total": _STEPS,
    "info/num_env_steps_sampled": _STEPS,
    "episodes_total": "env_runners/num_episodes_lifetime",
}
_EPISODE_METRICS = {
    f"episode_{classic}_{kind}": f"episode_{new}_{kind}"
    for classic, new in (("reward", "return"), ("return", "return"), ("len", "len"))
    for kind in ("mean", "min", "max")
}
_EPISODE_SCOPES = {
    "": "env_runners",
    "sampler_results": "env_runners",
    "env_runners": "env_runners",
    "evaluation": "evaluation/env_runners",
    "evaluation/sampler_results": "evaluation/env_runners",
    "evaluation/env_runners": "evaluation/env_runners",
}
_KNOWN_METRICS = [
    "training_iteration",
    _STEPS,
    "num_training_step_calls_per_iteration",
    "time_total_s",
    "time_this_iter_s",
    "time_since_restore",
    "iterations_since_restore",
    "env_runners/num_episodes_lifetime",
    f"env_runners/{_STEPS}",
    *sorted({f"{s}/{m}" for s in _EPISODE_SCOPES.values() for m in _EPISODE_METRICS.values()}),
]
_CIKD_METRICS = [
    "ensemble/teacher",
    "ensemble/num_distillations_lifetime",
    *(f"evaluation/ensemble/{who}_return_mean" for who in ("best", "worst", "mean", "elected")),
]
_METRIC_SCOPES = ("env_runners", "evaluation", "learners", "timers", "fault_tolerance", "perf")


class ExperimentFileError(CommandError):
    """Something in an experiment file, or in an option laid over it, cannot be run."""


@dataclass
class Experiment:
    """One checked experiment of a file.

    Attributes:
        name: Its key in the file; names the folder of results.
        algorithm: The RLlib algorithm class that `run` names.
        param_space: The config as Tune takes it, `grid_search` entries included, with `env`.
        stop: Result keys, flattened with "/", and the values at which a trial stops.
        num_samples: How often the whole grid is run.
        variants: The configs that `param_space` resolves to.
        checkpoint_config: When Tune writes checkpoints, and how many it keeps.
        storage_path: Folder of results named in the file, if any.
    """

    name: str
    algorithm: type[Algorithm]
    param_space: dict[str, Any]
    stop: dict[str, float]
    num_samples: int
    variants: list[dict[str, Any]]
    checkpoint_config: CheckpointConfig
    storage_path: str | None = None

    @property
    def num_trials(self) -> int:
        return len(self.variants) * self.num_samples


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
        ExperimentFileError: If the file cannot be read, or would not run as written: unknown
            keys, values that the algorithm's config rejects, metrics that are never reported.
    """
    path = Path(path)
    if not path.is_file():
        raise ExperimentFileError(f"{path}: no such file.")
    # So that a config can name environments and callbacks of modules beside the file.
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    if path.suffix in (".yaml", ".yml"):
        specs = _read_yaml(path)
    elif path.suffix == ".py":
        specs = _read_python(path)
    else:
        raise ExperimentFileError(f"{path}: give a .yaml, .yml or .py file.")
    options = {
        "num_samples": num_samples,
        "checkpoint_freq": checkpoint_freq,
        "checkpoint_at_end": checkpoint_at_end,
    }
    overrides = {key: value for key, value in options.items() if value is not None}
    settings = dict(config or {})
    if variant is not None:
        settings = {**load_variant(variant, path), **settings}
        specs = {f"{name}_{variant}": spec for name, spec in specs.items()}
    experiments = []
    for name, spec in specs.items():
        try:
            spec = {**spec, **overrides}
            experiments.append(_build_experiment(name, spec, settings, stop or {}))
        except ExperimentFileError as error:
            raise ExperimentFileError(f"{path}: experiment {name!r}: {error}") from error
    return experiments


def flatten_stop(stop: Mapping[str, Any]) -> dict[str, float]:
    """Returns stopping criteria as Tune wants them: flat keys of results that RLlib reports.

    Nested keys are joined by "/", and classic names (`timesteps_total`, `episode_reward_mean`)
    are replaced by those of RLlib's new API stack.
    """
    flat = {}
    for key, value in flatten_dict(dict(stop), prevent_delimiter=False).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ExperimentFileError(
                f"stop: {key} is {value!r}. Give a number: a trial stops when the result of that "
                "name reaches it."
            )
        flat[_modern_metric(key)] = value
    return flat


# --- Reading -------------------------------------------------------------------------------------


def _read_yaml(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = read_yaml(path)
    except CommandError as error:
        raise ExperimentFileError(str(error)) from error
    if not isinstance(content, dict) or not content:
        raise ExperimentFileError(
            f"{path}: no experiment in it. The form is `experiment_name: {{run: CIKD, env: ..., "
            "stop: {...}, config: {...}}`."
        )
    for name, spec in content.items():
        if not isinstance(spec, dict):
            hint = (
                " Put the settings below a name for the experiment."
                if name in EXPERIMENT_KEYS
                else ""
            )
            raise ExperimentFileError(
                f"{path}: experiment {name!r} is {spec!r}, not a mapping with `run`, `env`, "
                f"`stop` and `config`.{hint}"
            )
        if "run" not in spec and name in EXPERIMENT_KEYS:
            raise ExperimentFileError(
                f"{path}: {name!r} stands at the top level. Put the settings below a name for the "
                "experiment: `experiment_name: {run: CIKD, env: ..., stop: {...}, config: {...}}`."
            )
    return {str(name): spec for name, spec in content.items()}


def _read_python(path: Path) -> dict[str, dict[str, Any]]:
    module = _import_file(path)
    config = getattr(module, "config", None)
    stop = getattr(module, "stop", {})
    if isinstance(config, AlgorithmConfig):
        if config.algo_class is None:
            raise ExperimentFileError(f"{path}: its `config` names no algorithm (`algo_class`).")
        spec = {"run": config.algo_class, "config": _changed_settings(config), "stop": stop}
    elif isinstance(config, dict):
        spec = {"run": getattr(module, "run", "CIKD"), "config": config, "stop": stop}
    else:
        raise ExperimentFileError(
            f"{path}: a Python experiment file defines `config`, an `AlgorithmConfig` (such as "
            "`CIKDConfig()`) or a dict, and optionally `stop`, a dict."
        )
    return {path.stem: spec}


def _import_file(path: Path) -> ModuleType:
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[path.stem] = module
    # Classes and functions defined in the file reach Ray's workers, which cannot import it.
    cloudpickle.register_pickle_by_value(module)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise ExperimentFileError(
            f"{path}: running it failed with {type(error).__name__}: {error}"
        ) from error
    return module


def _changed_settings(config: AlgorithmConfig) -> dict[str, Any]:
    """Returns the settings of `config` that differ from its defaults, as Tune takes them."""
    default = type(config)().to_dict()
    return {
        key: value
        for key, value in config.to_dict().items()
        if key not in default or value != default[key]
    }


# --- Checking ------------------------------------------------------------------------------------


def _build_experiment(
    name: str, spec: dict[str, Any], config_override: Mapping, stop_override: Mapping
) -> Experiment:
    for key in spec:
        if key not in EXPERIMENT_KEYS:
            raise ExperimentFileError(
                f"unknown key {key!r}.{did_you_mean(str(key), EXPERIMENT_KEYS)} "
                f"Known keys: {', '.join(EXPERIMENT_KEYS)}; settings of the algorithm go below "
                "`config`."
            )
    for key in ("config", "stop", "checkpoint_config"):
        if not isinstance(spec.get(key) or {}, dict):
            raise ExperimentFileError(f"`{key}` is {spec[key]!r}, not a mapping.")
    algorithm = _find_algorithm(spec.get("run"))
    config: dict[str, Any] = spec.get("config") or {}
    param_space = _merge(config, config_override)
    if spec.get("env") is not None:
        if param_space.get("env", spec["env"]) != spec["env"] and "env" not in config_override:
            raise ExperimentFileError(
                f"`env` is {spec['env']!r}, but `config` has {param_space['env']!r}. Keep one."
            )
        param_space.setdefault("env", spec["env"])
    num_samples = spec.get("num_samples", 1)
    if not isinstance(num_samples, int) or num_samples < 1:
        raise ExperimentFileError(f"`num_samples` is {num_samples!r}. Give 1 or more.")
    try:
        variants = [variant["config"] for _, variant in generate_variants({"config": param_space})]
    except ValueError as error:
        raise ExperimentFileError(str(error)) from error
    stop = {**flatten_stop(spec.get("stop") or {}), **flatten_stop(stop_override)}
    for variant in variants:
        resolved = _check_config(algorithm, variant)
        _check_stop(stop, resolved)
    _check_environments(algorithm, variants)
    return Experiment(
        name=name,
        algorithm=algorithm,
        param_space=param_space,
        stop=stop,
        num_samples=num_samples,
        variants=variants,
        checkpoint_config=_checkpoint_config(spec),
        storage_path=spec.get("storage_path", spec.get("local_dir")),
    )


def _merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Lays `override` over `base`, key by key in nested dicts; a `grid_search` replaces."""
    merged = copy.deepcopy(dict(base))
    for key, value in override.items():
        old = merged.get(key)
        if (
            isinstance(old, dict)
            and isinstance(value, Mapping)
            and not ("grid_search" in old or "grid_search" in value)
        ):
            merged[key] = _merge(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _find_algorithm(run: str | type[Algorithm] | None) -> type[Algorithm]:
    if isinstance(run, type):
        return run
    if run is None:
        raise ExperimentFileError("`run` is missing. Name the algorithm: `run: CIKD`.")
    # Not `get_trainable_cls` alone: for a name that it does not know yet, it imports all of RLlib's
    # algorithms, and one of them needs Pillow.
    if _global_registry.contains(TRAINABLE_CLASS, run):
        algorithm = get_trainable_cls(run)
    elif run in ALGORITHMS:
        try:
            algorithm = ALGORITHMS[run]()[0]
        except ImportError as error:
            raise ExperimentFileError(f"run: {run} needs a missing package: {error}") from error
    else:
        names = ["CIKD", *ALGORITHMS]
        raise ExperimentFileError(
            f"unknown algorithm run: {run!r}.{did_you_mean(str(run), names)} "
            f"Known: {', '.join(names)}."
        )
    if not (isinstance(algorithm, type) and issubclass(algorithm, Algorithm)):
        raise ExperimentFileError(f"run: {run!r} is not an RLlib algorithm.")
    return algorithm


def _check_config(algorithm: type[Algorithm], variant: dict[str, Any]) -> AlgorithmConfig:
    """Resolves one variant as its trial will; returns the validated config."""
    default = algorithm.get_default_config()
    known = {*vars(default), *_SPECIAL_CONFIG_KEYS}
    if not issubclass(algorithm, CIKD):  # CIKDConfig checks its keys itself
        for key in variant:
            if key not in known:
                raise ExperimentFileError(
                    f"config: unknown setting {key!r} for {algorithm.__name__}."
                    f"{did_you_mean(str(key), known)}"
                )
    try:
        config = default.update_from_dict(copy.deepcopy(variant))
        config.validate()
    except Exception as error:  # RLlib raises all kinds
        raise ExperimentFileError(f"config: {error}") from error
    return config


def _check_environments(algorithm: type[Algorithm], variants: list[dict[str, Any]]) -> None:
    """Checks each of the environments once, so that a misspelt id does not wait for a trial."""
    checked: list[tuple[Any, Any]] = []
    for variant in variants:
        env, env_config = variant.get("env"), variant.get("env_config")
        if (env, env_config) in checked:
            continue
        checked.append((env, env_config))
        if env is None:
            if "input" not in variant and "input_" not in variant:
                raise ExperimentFileError("`env` is missing. Name the environment: `env: ...`.")
            continue
        try:
            _check_environment(algorithm, env, env_config or {})
        except Exception as error:  # whatever a user's environment raises
            message = str(error) if str(env) in str(error) else f"env={env!r}: {error}"
            raise ExperimentFileError(message) from error


def _check_environment(algorithm: type[Algorithm], env: Any, env_config: dict[str, Any]) -> None:
    if issubclass(algorithm, CIKD):
        config = algorithm.get_default_config().environment(env, env_config=env_config)
        create_env(config).close()
    elif isinstance(env, str) and not _global_registry.contains(ENV_CREATOR, env):
        gym.spec(env)  # other algorithms take environments of other kinds, made in other ways


def _modern_metric(key: str) -> str:
    scope, _, leaf = key.rpartition("/")
    if leaf in _EPISODE_METRICS and scope in _EPISODE_SCOPES:
        return f"{_EPISODE_SCOPES[scope]}/{_EPISODE_METRICS[leaf]}"
    return _CLASSIC_METRICS.get(key, key)


def _check_stop(stop: Mapping[str, float], config: AlgorithmConfig) -> None:
    """Refuses criteria that can never be met, because Tune would run on for ever."""
    known = list(_KNOWN_METRICS)
    scopes = list(_METRIC_SCOPES)
    if issubclass(config.algo_class, CIKD):
        known += [*_CIKD_METRICS, *(f"ensemble/return_mean/{policy}" for policy in config.policies)]
        scopes += ["ensemble"]
    for key in stop:
        if key.startswith("evaluation/") and not config.evaluation_interval:
            raise ExperimentFileError(
                f"stop: {key} is only reported when the algorithm is evaluated. Set "
                "`evaluation_interval` in `config`."
            )
        if key in known:
            continue
        suggestion = did_you_mean(key, known)
        # Anything may be logged below RLlib's own keys, and anywhere by callbacks: there, only
        # what looks like a misspelling is refused.
        may_exist = key.split("/")[0] in scopes or _has_callbacks(config)
        if not may_exist or difflib.get_close_matches(key, known, n=1, cutoff=0.9):
            raise ExperimentFileError(
                f"stop: {key!r} is not reported by {config.algo_class.__name__}, so it would never "
                f"stop a trial.{suggestion} Common criteria: {_STEPS}, training_iteration, "
                "env_runners/episode_return_mean, evaluation/env_runners/episode_return_mean."
            )


def _has_callbacks(config: AlgorithmConfig) -> bool:
    settings = {k: v for k, v in vars(config).items() if k.startswith("callbacks")}
    default = config.algo_class.get_default_config()
    return any(value != getattr(default, key, None) for key, value in settings.items())


def _checkpoint_config(spec: Mapping[str, Any]) -> CheckpointConfig:
    settings = {
        "checkpoint_frequency": DEFAULT_CHECKPOINT_FREQ,
        "checkpoint_at_end": True,
        "num_to_keep": DEFAULT_CHECKPOINTS_KEPT,
        **(spec.get("checkpoint_config") or {}),
    }
    for key, setting in (
        ("checkpoint_freq", "checkpoint_frequency"),
        ("checkpoint_at_end", "checkpoint_at_end"),
        ("keep_checkpoints_num", "num_to_keep"),
    ):
        if key in spec:
            settings[setting] = spec[key]
    try:
        return CheckpointConfig(**settings)
    except (TypeError, ValueError) as error:
        raise ExperimentFileError(f"checkpoint settings: {error}") from error
