"""Reads experiment files: Ray's classic YAML form, or Python."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ray import cloudpickle
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_cikd.common.errors import CommandError, did_you_mean
from rllib_cikd.common.user_modules import given_modules
from rllib_cikd.experiments.yaml_file import read_yaml

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
    "checkpoint_on_evaluation",
    "loggers",
    "scheduler",
    "search_alg",
    "metric",
    "mode",
)
_FORM = "`experiment_name: {run: CIKD, env: ..., stop: {...}, config: {...}}`"


def read_experiments(path: Path) -> dict[str, dict[str, Any]]:
    """What a file says of each of its experiments, by name; with keys of `EXPERIMENT_KEYS`.

    Modules beside the file can be imported from then on: a config may name environments and
    callbacks there.

    Raises:
        CommandError: If the file cannot be read, or does not have this form.
    """
    if not path.is_file():
        raise CommandError(f"{path}: no such file.")
    given_modules((), path.parent).load()
    if path.suffix in (".yaml", ".yml"):
        experiments = _read_yaml(path)
    elif path.suffix == ".py":
        experiments = _read_python(path)
    else:
        raise CommandError(f"{path}: give a .yaml, .yml or .py file.")
    for name, experiment in experiments.items():
        _check_form(experiment, f"{path}: experiment {name!r}")
    return experiments


def _check_form(experiment: dict[str, Any], where: str) -> None:
    for key in experiment:
        if key not in EXPERIMENT_KEYS:
            raise CommandError(
                f"{where}: unknown key {key!r}.{did_you_mean(str(key), EXPERIMENT_KEYS)} "
                f"Known keys: {', '.join(EXPERIMENT_KEYS)}; settings of the algorithm go below "
                "`config`."
            )
    for key in ("config", "stop", "checkpoint_config"):
        if not isinstance(experiment.get(key) or {}, dict):
            raise CommandError(f"{where}: `{key}` is {experiment[key]!r}, not a mapping.")
    for key in ("storage_path", "local_dir"):
        folder = experiment.get(key)
        if folder is not None and (not isinstance(folder, str) or "\0" in folder):
            raise CommandError(f"{where}: `{key}` is {folder!r}. Give a folder or a URI.")
    run = experiment.get("run")
    if run is not None and not isinstance(run, str | type):
        raise CommandError(f"{where}: `run` is {run!r}. Name the algorithm: CIKD.")


def _read_yaml(path: Path) -> dict[str, dict[str, Any]]:
    content = read_yaml(path)
    if not isinstance(content, dict) or not content:
        raise CommandError(f"{path}: no experiment in it. The form is {_FORM}.")
    for name, experiment in content.items():
        is_experiment = isinstance(experiment, dict)
        if name in EXPERIMENT_KEYS and not (is_experiment and "run" in experiment):
            raise CommandError(
                f"{path}: {name!r} stands at the top level. Put the settings below a name for the "
                f"experiment: {_FORM}."
            )
        if not is_experiment:
            raise CommandError(
                f"{path}: experiment {name!r} is {experiment!r}, not a mapping with `run`, `env`, "
                "`stop` and `config`."
            )
    return {str(name): experiment for name, experiment in content.items()}


def _read_python(path: Path) -> dict[str, dict[str, Any]]:
    module = _import_file(path)
    config = getattr(module, "config", None)
    stop = getattr(module, "stop", {})
    if isinstance(config, AlgorithmConfig):
        if config.algo_class is None:
            raise CommandError(f"{path}: its `config` names no algorithm (`algo_class`).")
        experiment = {"run": config.algo_class, "config": _changed_settings(config), "stop": stop}
    elif isinstance(config, dict):
        experiment = {"run": getattr(module, "run", "CIKD"), "config": config, "stop": stop}
    else:
        raise CommandError(
            f"{path}: a Python experiment file defines `config`, an `AlgorithmConfig` (such as "
            "`CIKDConfig()`) or a dict, and optionally `stop`, a dict."
        )
    return {path.stem: experiment}


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
        raise CommandError(
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
