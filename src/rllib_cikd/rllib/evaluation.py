"""The evaluation protocol: every member, many episodes, deterministic actions, in lockstep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_cikd.algorithm.history import by_member
from rllib_cikd.common import result_keys as keys
from rllib_cikd.common.errors import EnvironmentFault
from rllib_cikd.rllib.recorded_episodes import RecordedEpisodes
from rllib_cikd.rllib.sampling import restart_silent
from rllib_cikd.rllib.transitions import Chunk


def evaluation_seeds(seed: int | Sequence[int] | None, num_episodes: int) -> list[int]:
    """Environment seeds of the evaluation episodes, the same for every member.

    Members that start from the same states can be compared pair by pair.
    """
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(num_episodes)]


class Played(NamedTuple):
    """Evaluation episodes of all members."""

    returns: np.ndarray  #: undiscounted, `[K, E]`
    lengths: np.ndarray  #: `[K, E]`
    metrics: list[dict[str, Any]]  #: what users' callbacks logged, of each env runner
    chunks: list[Chunk]  #: the episodes themselves, if they were recorded


def play_on_runners(
    group: EnvRunnerGroup,
    remote: Sequence[int],
    num_episodes: int,
    seeds: Sequence[int] | None,
    callbacks: bool = False,
    timeout: float | None = None,
    record: bool = False,
) -> Played:
    """Plays evaluation episodes on env runners, each of which takes a share.

    Args:
        group: Whose local env runner plays where there is no remote one, or one has failed.
        remote: Its remote env runners that take part.
        num_episodes: E, episodes of each member.
        seeds: Entropy of the episodes' seeds; None: drawn anew.
        callbacks: Whether the users' episode callbacks are called.
        timeout: Seconds after which a remote env runner counts as hanging; None: never.
        record: Whether the episodes are kept. Not together with `callbacks`.

    Raises:
        EnvironmentFault: If what an environment returns cannot be used, or an episode does not end.
    """
    if seeds is None:  # all runners must play shares of the same episodes
        seeds = [int(np.random.SeedSequence().generate_state(1)[0])]
    remote = list(remote)[:num_episodes]
    n = max(1, len(remote))
    plays = [_Share(num_episodes, seeds, (i, n), callbacks, record) for i in range(n)]
    answers = []
    if remote:
        answers = group.foreach_env_runner(
            plays, remote_worker_ids=remote, local_env_runner=False, timeout_seconds=timeout
        )
        for answer in answers:
            if isinstance(answer, EnvironmentFault):
                raise answer
    shares = {answer[0]: answer[1:] for answer in answers}
    left = [i for i in range(n) if i not in shares]
    if remote and left and timeout is not None:
        setting, remedy = "evaluation_sample_timeout_s", "lower `evaluation_duration`"
        restart_silent(group, {remote[i] for i in left}, setting, timeout, remedy)
    if left:  # there is no remote env runner, or it failed: RLlib restarts it, we play its share
        _tell_calls(group)
    for i in left:
        answer = plays[i](group.local_env_runner)
        if isinstance(answer, EnvironmentFault):
            raise answer
        shares[i] = answer[1:]
    returns = np.zeros((len(shares[0][0]), num_episodes))
    lengths = np.zeros_like(returns, dtype=np.int64)
    for i, (share_returns, share_lengths, *_) in shares.items():
        returns[:, i::n], lengths[:, i::n] = share_returns, share_lengths
    metrics = [metrics for _, _, metrics, _ in shares.values() if metrics]
    chunks = [chunk for i in sorted(shares) for chunk in shares[i][3]]
    return Played(returns, lengths, metrics, chunks)


@dataclass(frozen=True)
class _Share:
    """Plays a share; answers with its number, returns, lengths, metrics and recorded episodes, or
    with the fault.

    A fault that a remote env runner raised would make RLlib restart it, again and again.
    """

    num_episodes: int
    seeds: Sequence[int]
    share: tuple[int, int]
    callbacks: bool
    record: bool

    def __call__(self, runner: Any) -> Any:
        recorded = RecordedEpisodes() if self.record else None
        try:
            played = runner.evaluate_members(
                self.num_episodes, self.seeds, self.share, self.callbacks, recorded
            )
        except EnvironmentFault as fault:
            return fault
        chunks = [] if recorded is None else recorded.chunks()
        return (self.share[0], *played, runner.evaluation_metrics.reduce(), chunks)


def _tell_calls(group: EnvRunnerGroup) -> None:
    """Tells the local env runner of calls into the environments of the remote ones.

    It has none of its own that they could have been made into.
    """
    others, local = group.healthy_worker_ids()[:1], group.local_env_runner
    if not others or local.env is not None:
        return
    known = local.num_calls_heard
    for calls, count in group.foreach_env_runner(
        lambda runner: runner.calls.since(known), remote_worker_ids=others, local_env_runner=False
    ):
        local.hear_calls(calls, count)


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
    return not_a_number(summary | dict.fromkeys(_HEALTH_KEYS))


def not_a_number(values: dict[str, Any]) -> dict[str, Any]:
    """The same keys, at any depth, with NaN for each value."""
    return {
        key: not_a_number(value) if isinstance(value, dict) else float("nan")
        for key, value in values.items()
    }
