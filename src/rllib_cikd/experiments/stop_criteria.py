"""Names of results: to stop at, to score checkpoints by, and to compare trials by.

Classic names become today's, and what is never reported is refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune.utils import flatten_dict

from rllib_cikd.cikd import CIKD
from rllib_cikd.common import result_keys as keys
from rllib_cikd.common.errors import CommandError, did_you_mean

# Classic names of results, and what RLlib's new API stack reports instead.
_CLASSIC_KEYS = {
    "timesteps_total": keys.STEPS,
    "num_env_steps_sampled": keys.STEPS,
    "agent_timesteps_total": keys.STEPS,
    "info/num_env_steps_sampled": keys.STEPS,
    "episodes_total": "env_runners/num_episodes_lifetime",
}
_EPISODE_KEYS = {
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
# What begins at 0 and grows.
_COUNTS = [
    keys.ITERATION,
    keys.STEPS,
    "num_training_step_calls_per_iteration",
    "time_total_s",
    "time_this_iter_s",
    "time_since_restore",
    "iterations_since_restore",
    "env_runners/num_episodes_lifetime",
]
_KNOWN_KEYS = [
    *_COUNTS,
    f"env_runners/{keys.STEPS}",
    *sorted({f"{s}/{key}" for s in _EPISODE_SCOPES.values() for key in _EPISODE_KEYS.values()}),
]
_CIKD_KEYS = [
    f"{keys.ENSEMBLE}/{keys.TEACHER}",
    f"{keys.ENSEMBLE}/{keys.NUM_DISTILLATIONS}",
    *map(keys.evaluation_key, keys.SUMMARIES),
    *map(keys.score_key, keys.SUMMARIES),
]
# Anything may be logged below these.
_SCOPES = ("env_runners", "evaluation", "learners", "timers", "fault_tolerance", "perf")


def flatten_stop(stop: Mapping[str, Any]) -> dict[str, float]:
    """Returns stop criteria as Tune wants them: flat keys of results that RLlib reports.

    Nested keys are joined by "/", and classic names (`timesteps_total`, `episode_reward_mean`)
    are replaced by those of RLlib's new API stack.

    Raises:
        CommandError: If a value is not a number.
    """
    flat = {}
    for key, value in flatten_dict(dict(stop), prevent_delimiter=False).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CommandError(
                f"stop: {key} is {value!r}. Give a number: a trial stops when the result of that "
                "name reaches it."
            )
        flat[modern_key(key)] = value
    return flat


def modern_key(key: str) -> str:
    """Today's name of a result: "env_runners/episode_return_mean" for "episode_reward_mean"."""
    scope, _, leaf = key.rpartition("/")
    if leaf in _EPISODE_KEYS and scope in _EPISODE_SCOPES:
        return f"{_EPISODE_SCOPES[scope]}/{_EPISODE_KEYS[leaf]}"
    return _CLASSIC_KEYS.get(key, key)


def check_stop(stop: Mapping[str, float], config: AlgorithmConfig) -> None:
    """Refuses criteria that can never be met, because Tune would run on for ever.

    Args:
        stop: What `flatten_stop` returned.
        config: Of a trial, validated.

    Raises:
        CommandError: If the algorithm does not report a key, or counts nothing up to its goal.
    """
    for key, goal in stop.items():
        if key in _COUNTS and goal <= 0:
            raise CommandError(
                f"stop: {key} is {goal:g}, where every run begins. Give more than 0."
            )
        _check_reported(
            key, config, f"stop: {key!r}", "it would never stop a trial", "Common criteria"
        )


def note_of_no_learning(steps: float, config: AlgorithmConfig) -> str | None:
    """What to say of a run that ends, after so many environment steps, before it has learned."""
    if not issubclass(config.algo_class, CIKD) or steps > config.learning_starts_at:
        return None
    return (
        f"it ends at {steps:,.0f} environment steps, and learning begins after "
        f"{config.learning_starts_at:,} (`random_steps`): nothing is learned."
    )


def check_score(attribute: str | None, config: AlgorithmConfig) -> None:
    """Refuses to score checkpoints by what Ray cannot find: it would keep the last ones instead.

    Args:
        attribute: `checkpoint_score_attribute`, a result's key joined by "/"; None for no score.
        config: Of a trial, validated.

    Raises:
        CommandError: If the algorithm does not report it, or only below the results' top level
            and the algorithm is not CIKD.
    """
    if attribute is None:
        return
    field = f"checkpoint_config: checkpoint_score_attribute: {attribute!r}"
    if not issubclass(config.algo_class, CIKD) and "/" in attribute:
        raise CommandError(
            f"{field} stands below the top level of results, where Ray does not look: for "
            f"{config.algo_class.__name__} it would keep the last checkpoints, not the best. Leave "
            "it out, and keep all with `num_to_keep: null`."
        )
    _check_reported(attribute, config, field, "no checkpoint would be scored", "Common scores")


def check_metric(
    key: str, config: AlgorithmConfig, field: str, *, at_the_end: bool = False
) -> None:
    """Refuses to compare trials by what is not reported, or by no number.

    Args:
        key: Of a result, joined by "/".
        config: Of a trial, validated.
        field: Where it is named; begins the error.
        at_the_end: Whether trials are compared by their last result alone.

    Raises:
        CommandError: If the algorithm does not report it, or not in its last result.
    """
    _check_reported(key, config, field, "trials cannot be compared by it", "Common metrics")
    lasting = dict(
        zip(
            map(keys.score_key, keys.SUMMARIES),
            map(keys.evaluation_key, keys.SUMMARIES),
            strict=True,
        )
    )
    if at_the_end and key in lasting and config.evaluation_interval != 1:
        raise CommandError(
            f"{field} is NaN in iterations without an evaluation, and the last one may be of them. "
            f"Give {lasting[key]!r}, which repeats the last evaluation."
        )


def _check_reported(
    key: str, config: AlgorithmConfig, field: str, consequence: str, common: str
) -> None:
    known, scopes = list(_KNOWN_KEYS), list(_SCOPES)
    if issubclass(config.algo_class, CIKD):
        members = [f"{keys.ENSEMBLE}/{keys.RETURN_MEAN}/{member}" for member in config.policies]
        known += [*_CIKD_KEYS, *members, *(f"evaluation/{member}" for member in members)]
        scopes += [keys.ENSEMBLE]
    of_evaluation = (*map(keys.score_key, keys.SUMMARIES),)
    if (key.startswith("evaluation/") or key in of_evaluation) and not config.evaluation_interval:
        raise CommandError(
            f"{field} is only reported when the algorithm is evaluated. Set "
            "`evaluation_interval` in `config`."
        )
    if key in known:
        return
    # Below RLlib's own scopes, and with callbacks anywhere, only what looks like a misspelling is
    # refused.
    may_exist = key.split("/")[0] in scopes or _has_callbacks(config)
    if not may_exist or difflib.get_close_matches(key, known, n=1, cutoff=0.9):
        raise CommandError(
            f"{field} is not reported by {config.algo_class.__name__}, so {consequence}."
            f"{did_you_mean(key, known)} {common}: {keys.STEPS}, {keys.ITERATION}, "
            f"{keys.TRAINING_RETURN}, {keys.EVALUATION_RETURN}."
        )


def _has_callbacks(config: AlgorithmConfig) -> bool:
    settings = {k: v for k, v in vars(config).items() if k.startswith("callbacks")}
    default = config.algo_class.get_default_config()
    return any(value != getattr(default, key, None) for key, value in settings.items())
