"""Checks what an experiment would run, before Ray starts: algorithm, settings, environments."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.registry import ALGORITHMS
from ray.tune.registry import ENV_CREATOR, TRAINABLE_CLASS, _global_registry, get_trainable_cls

from rllib_cikd.algorithm.members import policy_ids
from rllib_cikd.cikd import CIKD
from rllib_cikd.common.errors import CommandError, did_you_mean
from rllib_cikd.rllib.action_map import OneHot
from rllib_cikd.rllib.environment import make_task
from rllib_cikd.rllib.settings.networks import check_actions

# Keys that `AlgorithmConfig.update_from_dict` understands besides a config's own attributes.
_SPECIAL_SETTINGS = (
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


def find_algorithm(run: str | type[Algorithm] | None) -> type[Algorithm]:
    """The class that `run` names.

    Raises:
        CommandError: If there is none, or a package is missing that it needs.
    """
    if isinstance(run, type):
        return run
    if run is None:
        raise CommandError("`run` is missing. Name the algorithm: `run: CIKD`.")
    # Not `get_trainable_cls` alone: for a name that it does not know yet, it imports all of RLlib's
    # algorithms, and one of them needs Pillow.
    if _global_registry.contains(TRAINABLE_CLASS, run):
        algorithm = get_trainable_cls(run)
    elif run in ALGORITHMS:
        try:
            algorithm = ALGORITHMS[run]()[0]
        except ImportError as error:
            raise CommandError(f"run: {run} needs a missing package: {error}") from error
    else:
        names = ["CIKD", *ALGORITHMS]
        raise CommandError(
            f"unknown algorithm run: {run!r}.{did_you_mean(str(run), names)} "
            f"Known: {', '.join(names)}."
        )
    if not (isinstance(algorithm, type) and issubclass(algorithm, Algorithm)):
        raise CommandError(f"run: {run!r} is not an RLlib algorithm.")
    return algorithm


def check_settings(algorithm: type[Algorithm], settings: dict[str, Any]) -> AlgorithmConfig:
    """Resolves one trial's settings as the trial will; returns the validated config.

    Raises:
        CommandError: If the algorithm does not know a setting, or rejects its value.
    """
    default = algorithm.get_default_config()
    known = {*vars(default), *_SPECIAL_SETTINGS}
    if not issubclass(algorithm, CIKD):  # CIKDConfig checks its keys itself
        for key in settings:
            if key not in known:
                raise CommandError(
                    f"config: unknown setting {key!r} for {algorithm.__name__}."
                    f"{did_you_mean(str(key), known)}"
                )
    try:
        config = default.update_from_dict(copy.deepcopy(settings))
        config.validate()
    except Exception as error:  # RLlib raises all kinds
        raise CommandError(f"config: {error}") from error
    return config


def check_environments(
    algorithm: type[Algorithm],
    trial_configs: Sequence[dict[str, Any]],
    configs: Sequence[AlgorithmConfig],
) -> None:
    """Checks each of the environments once, so that a misspelt id does not wait for a trial.

    Args:
        algorithm: That of all trials.
        trial_configs: Their settings.
        configs: What `check_settings` made of each.

    Raises:
        CommandError: If one is missing, cannot be made, or has actions that members cannot learn.
    """
    checked: list[tuple[Any, Any, bool]] = []  # and whether the actions are discrete
    for settings, config in zip(trial_configs, configs, strict=True):
        env, env_config = settings.get("env"), settings.get("env_config")
        known = [discrete for e, c, discrete in checked if (e, c) == (env, env_config)]
        if known:
            _check_actions(config, known[0])
            continue
        if env is None:
            if "input" not in settings and "input_" not in settings:
                raise CommandError("`env` is missing. Name the environment: `env: ...`.")
            continue
        try:
            discrete = _check_environment(algorithm, env, env_config or {})
        except Exception as error:  # whatever a user's environment raises
            message = str(error) if str(env) in str(error) else f"env={env!r}: {error}"
            raise CommandError(message) from error
        checked.append((env, env_config, discrete))
        _check_actions(config, discrete)


def _check_actions(config: AlgorithmConfig, discrete: bool) -> None:
    if not issubclass(config.algo_class, CIKD):
        return
    try:
        check_actions(config, policy_ids(config.ensemble_size), discrete)
    except ValueError as error:
        raise CommandError(f"config: {error}") from error


def _check_environment(algorithm: type[Algorithm], env: Any, env_config: dict[str, Any]) -> bool:
    """Whether its actions are discrete, for CIKD."""
    if issubclass(algorithm, CIKD):
        config = algorithm.get_default_config().environment(env, env_config=env_config)
        task = make_task(config)
        task.close()
        return isinstance(task.actions.member_space, OneHot)
    if isinstance(env, str) and not _global_registry.contains(ENV_CREATOR, env):
        gym.spec(env)  # other algorithms take environments of other kinds, made in other ways
    return False
