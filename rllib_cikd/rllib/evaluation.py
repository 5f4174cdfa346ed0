"""The evaluation protocol: every member, many episodes, deterministic actions, in lockstep."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_cikd.algorithm.history import by_member
from rllib_cikd.algorithm.members import policy_id
from rllib_cikd.common import result_keys as keys
from rllib_cikd.rllib.environment import unsquash_actions


def evaluation_seeds(seed: int | Sequence[int] | None, num_episodes: int) -> list[int]:
    """Environment seeds of the evaluation episodes, the same for every member.

    Members that start from the same states can be compared pair by pair.
    """
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(num_episodes)]


def play_episodes(
    act: Sequence[Callable[[np.ndarray], np.ndarray]],
    envs: Sequence[Sequence[gym.Env]],
    seeds: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Plays one episode in every environment, all of them in lockstep.

    Args:
        act: Per member a function from observations `[n, D]` to actions in [-1, 1], `[n, A]`.
        envs: Per member its E environments.
        seeds: E seeds; episode e of every member starts from `reset(seed=seeds[e])`.

    Returns:
        Undiscounted returns and lengths, each `[K, E]`.

    Raises:
        ValueError: If an observation or reward is not finite.
    """
    returns = np.zeros((len(envs), len(seeds)))
    lengths = np.zeros((len(envs), len(seeds)), dtype=np.int64)
    observations = [
        np.stack([env.reset(seed=seed)[0] for env, seed in zip(row, seeds, strict=True)])
        for row in envs
    ]
    rewards = np.zeros(len(seeds))
    running = [list(range(len(seeds))) for _ in envs]
    action_space: Any = envs[0][0].action_space
    while any(running):
        for k, episodes in enumerate(running):
            if not episodes:
                continue
            actions = unsquash_actions(act[k](observations[k][episodes]), action_space)
            still_running = []
            for e, action in zip(episodes, actions, strict=True):
                observation, rewards[e], terminated, truncated, _ = envs[k][e].step(action)
                observations[k][e] = observation
                if not (terminated or truncated):
                    still_running.append(e)
            lengths[k, episodes] += 1
            returns[k, episodes] += rewards[episodes]
            _check_finite(k, lengths[k], episodes, reward=rewards, observation=observations[k])
            running[k] = still_running
    return returns, lengths


def play_on_runners(
    group: EnvRunnerGroup, remote: Sequence[int], num_episodes: int, seeds: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Plays evaluation episodes on env runners, each of which takes a share.

    Args:
        group: Whose local env runner plays where there is no remote one, or one has failed.
        remote: Its remote env runners that take part.
        num_episodes: E, episodes of each member.
        seeds: Entropy of the episodes' seeds; None: drawn anew.

    Returns:
        Undiscounted returns and lengths, each `[K, E]`.
    """
    if seeds is None:  # all runners must play shares of the same episodes
        seeds = [int(np.random.SeedSequence().generate_state(1)[0])]
    local = group.local_env_runner
    remote = list(remote)[:num_episodes]
    if not remote:
        return local.evaluate_members(num_episodes, seeds)
    n = len(remote)
    answers = group.foreach_env_runner(
        [_share(num_episodes, seeds, (i, n)) for i in range(n)],
        remote_worker_ids=remote,
        local_env_runner=False,
    )
    shares = dict(answers)
    for i in range(n):
        if i not in shares:  # its env runner failed: RLlib restarts it, we play its share
            shares[i] = local.evaluate_members(num_episodes, seeds, (i, n))
    returns = np.zeros((len(shares[0][0]), num_episodes))
    lengths = np.zeros_like(returns, dtype=np.int64)
    for i, (share_returns, share_lengths) in shares.items():
        returns[:, i::n], lengths[:, i::n] = share_returns, share_lengths
    return returns, lengths


def _share(
    num_episodes: int, seeds: Sequence[int], share: tuple[int, int]
) -> Callable[[Any], tuple[int, tuple[np.ndarray, np.ndarray]]]:
    """Which share was played, and its returns and lengths."""
    return lambda runner: (share[0], runner.evaluate_members(num_episodes, seeds, share))


def _check_finite(
    member: int, lengths: np.ndarray, episodes: list[int], **quantities: np.ndarray
) -> None:
    """Looks at the rows of these episodes, after a step of each of them."""
    for quantity, values in quantities.items():
        if np.isfinite(values[episodes]).all():
            continue
        e = next(e for e in episodes if not np.isfinite(values[e]).all())
        raise ValueError(
            f"The environment returned a non-finite {quantity} ({values[e]}) at step {lengths[e]} "
            f"of an evaluation episode of {policy_id(member)}: check the environment for a "
            "diverging simulation."
        )


def summarize(
    returns: np.ndarray, lengths: np.ndarray, elected: int | None, env_steps: int
) -> dict[str, Any]:
    """The evaluation's part of a result dict.

    Args:
        returns, lengths: Of every member's episodes, `[K, E]`.
        elected: The member with the highest R_k, chosen without looking at `returns`; None if
            no member has an R_k.
        env_steps: Training steps so far: what the evaluated networks have seen.

    Returns:
        `ensemble/…` with the figures of every member, and RLlib's usual `env_runners/…` for the
        best one, so that metrics and stoppers of Tune work unchanged.
    """
    means = returns.mean(axis=1)
    best = int(means.argmax())
    summaries = {
        "best": means.max(),
        "worst": means.min(),
        "mean": means.mean(),
        "elected": math.nan if elected is None else means[elected],
    }
    return {
        keys.ENSEMBLE: {
            keys.RETURN_MEAN: by_member([float(mean) for mean in means]),
            **{keys.summary_key(who): float(summaries[who]) for who in keys.SUMMARIES},
            keys.BEST_POLICY: best,
            keys.STEPS: env_steps,
        },
        "env_runners": {
            "episode_return_mean": float(means[best]),
            "episode_return_min": float(returns[best].min()),
            "episode_return_max": float(returns[best].max()),
            "episode_len_mean": float(lengths[best].mean()),
            "num_episodes": returns.size,
            "num_env_steps_sampled": int(lengths.sum()),
        },
    }


def assessment(
    teacher: int, returns_before: Sequence[float], returns_after: Sequence[float]
) -> dict[str, Any]:
    """What an evaluation just before and one just after a phase say of it.

    Args:
        teacher: Who taught.
        returns_before, returns_after: Mean evaluation return of every member, `[K]`.

    Returns:
        Among others `teacher_was_best` (1 or 0) and `election_regret`, the return that the
        election gave away: the best member's before the phase less the teacher's.
    """
    students = [value for k, value in enumerate(returns_after) if k != teacher]
    above = [value > returns_after[teacher] for value in students]
    regret = max(returns_before) - returns_before[teacher]
    return {
        "return_before": dict(enumerate(returns_before)),
        "return_after": dict(enumerate(returns_after)),
        keys.STUDENTS_ABOVE_TEACHER: float(np.mean(above)) if above else math.nan,
        keys.TEACHER_WAS_BEST: float(regret == 0.0),
        keys.ELECTION_REGRET: float(regret),
    }


#: What RLlib adds to the results of an evaluation.
_HEALTH_KEYS = (
    "num_healthy_workers",
    "actor_manager_num_outstanding_async_reqs",
    "num_remote_worker_restarts",
    "num_env_runners_dropped_lifetime",
)


def no_evaluation_yet(ensemble_size: int) -> dict[str, Any]:
    """A result's `evaluation` part, filled with NaN: what it holds before the first one."""
    nothing = np.full((ensemble_size, 1), np.nan)
    summary = summarize(nothing, np.zeros_like(nothing), elected=None, env_steps=0)
    return _all_nan(summary | dict.fromkeys(_HEALTH_KEYS))


def _all_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _all_nan(value) if isinstance(value, dict) else float("nan")
        for key, value in values.items()
    }
