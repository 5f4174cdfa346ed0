"""What has happened in a run so far: counters, R_k, the last phase, the last evaluation."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from rllib_cikd.algorithm.members import policy_id
from rllib_cikd.algorithm.teacher_election import ReturnWindows, elect_teacher
from rllib_cikd.common import result_keys as keys


class FinishedEpisode(NamedTuple):
    """A training episode that came to its end."""

    member: int  #: who acted
    episode_return: float  #: undiscounted
    random: bool = False  #: whether any of its actions were the warm-up's, not the member's


@dataclass
class History:
    """Counters and statistics of a run, with their state for checkpoints and their log.

    Attributes:
        ensemble_size, return_window: K and M.
        return_horizon: Of R_k, in environment steps (see `ReturnWindows`).
        env_steps: Environment steps over the whole run whose transitions were stored. What stops
            a run, and what everything else goes by.
        env_steps_lost: Other environment steps, as far as they are known: an environment raised
            in them, or the env runner that took them was too late.
        stored: Transitions that the replay buffer has taken in. Fewer than `env_steps` after a
            restore without the buffer. Not part of the state: the buffer knows.
        num_updates: Gradient steps of every member.
        returns: What R_k is the mean of (see `return_means`).
        episodes: Finished episodes by member.
        teacher: Of the last phase; None before the first.
        times_teacher: Phases by teacher.
        num_phases, num_skipped_phases: Phases so far; and those for which no member had an R_k.
        last_phase: What the last phase reported (see `log`).
        last_evaluation: The `evaluation` part of a result.
        evaluation_best: The best member of an evaluation after which no step was taken.
    """

    ensemble_size: int
    return_window: int
    return_horizon: int | None = None
    env_steps: int = 0
    env_steps_lost: int = 0
    stored: int = 0
    num_updates: int = 0
    returns: ReturnWindows = field(init=False)
    episodes: list[int] = field(init=False)
    teacher: int | None = None
    times_teacher: list[int] = field(init=False)
    num_phases: int = 0
    num_skipped_phases: int = 0
    last_phase: dict[str, Any] = field(default_factory=dict)
    last_evaluation: dict[str, Any] = field(default_factory=dict)
    evaluation_best: int | None = None

    def __post_init__(self) -> None:
        self.returns = ReturnWindows(self.ensemble_size, self.return_window, self.return_horizon)
        self.episodes = [0] * self.ensemble_size
        self.times_teacher = [0] * self.ensemble_size

    def record_episodes(self, finished: Iterable[FinishedEpisode], elects: bool = True) -> None:
        """Takes the returns of training episodes that have just finished into R_k.

        Random actions say nothing of a member: an episode with any of them counts for no R_k.

        Args:
            finished: The episodes.
            elects: Whether they count for R_k at all.
        """
        for episode in finished:
            self.episodes[episode.member] += 1
            if elects and not episode.random:
                self.returns.record(episode.member, episode.episode_return, self.env_steps)

    def record_steps(self, count: int) -> None:
        """Counts environment steps, whose transitions go into the buffer."""
        self.env_steps += count
        self.stored += count
        self.evaluation_best = None  # the networks that it judged are about to change

    def record_phase(self, teacher: int, report: dict[str, Any]) -> None:
        """Takes note of a phase in which `teacher` taught."""
        self.teacher = teacher
        self.times_teacher[teacher] += 1
        self.num_phases += 1
        self.last_phase = report

    @property
    def elected(self) -> int | None:
        """The member with the highest R_k; None while no member has finished an episode."""
        return elect_teacher(self.return_means())

    def return_means(self) -> list[float]:
        """R_k of every member; NaN for a member with no finished episode that counts."""
        return self.returns.means(self.env_steps)

    def log(self, shares_knowledge: bool, assessed: bool, filtered: bool = False) -> dict[str, Any]:
        """The `ensemble` part of a result; NaN where there is nothing yet.

        Args:
            shares_knowledge: Whether there are phases at all.
            assessed: Whether members are evaluated before and after each phase.
            filtered: Whether students imitate at some states only.
        """
        log: dict[str, Any] = {
            keys.RETURN_MEAN: by_member(self.return_means()),
            keys.EPISODES: by_member(self.episodes),
            keys.TIMES_TEACHER: by_member(self.times_teacher),
            keys.TEACHER: math.nan if self.teacher is None else self.teacher,
            keys.NUM_DISTILLATIONS: self.num_phases,
            keys.NUM_SKIPPED_PHASES: self.num_skipped_phases,
            keys.NUM_UPDATES: self.num_updates,
            keys.STEPS_LOST: self.env_steps_lost,
        }
        if not shares_knowledge:
            return log
        phase: dict[str, Any] = {
            name: by_member(
                [self.last_phase.get(name, {}).get(k, math.nan) for k in range(self.ensemble_size)]
            )
            for name in (
                *keys.DISTANCES,
                *(keys.PHASE_RETURNS if assessed else ()),
                *((keys.SHARE_IMITATED,) if filtered else ()),
            )
        }
        for name in (keys.PHASE_TIME, *(keys.PHASE_ASSESSMENT if assessed else ())):
            phase[name] = self.last_phase.get(name, math.nan)
        return log | {keys.DISTILLATION: phase}

    def get_state(self) -> dict[str, Any]:
        """All of it, of plain types."""
        state = {name: copy.deepcopy(getattr(self, name)) for name in _STATE}
        return state | {"returns": self.returns.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores `get_state()`."""
        for name in _STATE:
            setattr(self, name, copy.deepcopy(state[name]))
        self.returns.set_state(state["returns"])


_STATE = [
    f.name
    for f in fields(History)
    if f.name not in ("ensemble_size", "return_window", "return_horizon", "stored", "returns")
]


def updates_due(stored_before: int, stored: int, starts_at: int, per_step: float) -> int:
    """Gradient steps that follow from new transitions in the buffer.

    Args:
        stored_before, stored: Transitions stored before and after.
        starts_at: Learning starts beyond so many of them.
        per_step: Gradient steps per environment step; fractions add up.
    """

    def due(count: int) -> int:
        return int(max(0, count - starts_at) * per_step)

    return due(stored) - due(stored_before)


def crossings(steps_before: int, steps: int, interval: int) -> int:
    """How often the step counter crossed a multiple of the interval (Algorithm 1: t mod I = 0)."""
    return steps // interval - steps_before // interval


def by_member(values: Sequence[Any]) -> dict[str, Any]:
    """Values by member id."""
    return {policy_id(k): value for k, value in enumerate(values)}
