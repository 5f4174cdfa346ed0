"""The statistic R_k and the election of the teacher (CIKD, phases 2 and 3)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Values of `CIKDConfig.teacher_election`.
TEACHER_ELECTIONS = ("best", "evaluation", "random", "worst")


class ReturnWindows:
    """R_k: the mean return of the last M finished training episodes of each member.

    Args:
        ensemble_size: K.
        return_window: M.
        return_horizon: Episodes that ended so many environment steps ago, or more, no longer
            count; None: all do (the paper's).
    """

    def __init__(self, ensemble_size: int, return_window: int, return_horizon: int | None = None):
        self._horizon = return_horizon
        # Of each episode the step at which it ended, and its return.
        self._windows: list[deque[tuple[int, float]]] = [
            deque(maxlen=return_window) for _ in range(ensemble_size)
        ]

    def record(self, member: int, episode_return: float, env_step: int = 0) -> None:
        """Adds the return of an episode in which `member` acted, and which ended at `env_step`."""
        self._windows[member].append((env_step, episode_return))

    def clear(self) -> None:
        """Forgets all episodes."""
        for window in self._windows:
            window.clear()

    def means(self, env_steps: int = 0) -> list[float]:
        """R_k of every member after so many steps; NaN for a member with no episode that counts."""
        means = []
        for window in self._windows:
            oldest = -math.inf if self._horizon is None else env_steps - self._horizon
            returns = [episode_return for step, episode_return in window if step > oldest]
            means.append(float(np.mean(returns)) if returns else math.nan)
        return means

    def get_state(self) -> list[list[list[float]]]:
        """Of each member, `[env_step, episode_return]` of each episode."""
        return [[list(episode) for episode in window] for window in self._windows]

    def set_state(self, state: list[list[list[float]]]) -> None:
        for window, episodes in zip(self._windows, state, strict=True):
            window.clear()
            window.extend((int(step), episode_return) for step, episode_return in episodes)


def elect_teacher(
    returns: Sequence[float], rule: str = "best", rng: np.random.Generator | None = None
) -> int | None:
    """Elects the teacher from R_k.

    Args:
        returns: R_k of every member, NaN where a member has none. Such a member cannot be
            elected, by no rule.
        rule: "best" (argmax R_k, the paper's) and "evaluation" (the same, with an R_k of episodes
            played for the election), "worst" (argmin R_k) or "random" (uniform). The lowest index
            wins a tie.
        rng: Source of the random rule.

    Returns:
        The member's index, or None if there is no candidate.
    """
    candidates = [k for k, value in enumerate(returns) if not math.isnan(value)]
    if not candidates:
        return None
    if rule == "random":
        rng = rng or np.random.default_rng()
        return int(rng.choice(candidates))
    choose: Any = min if rule == "worst" else max
    return choose(candidates, key=lambda k: returns[k])
