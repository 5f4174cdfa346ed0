"""The statistic R_k and the election of the teacher (CIKD, phases 2 and 3)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Values of `CIKDConfig.teacher_election`.
TEACHER_ELECTIONS = ("best", "random", "worst")


class ReturnWindows:
    """R_k: the mean return of the last M finished training episodes of each member.

    Args:
        ensemble_size: K.
        return_window: M.
    """

    def __init__(self, ensemble_size: int, return_window: int):
        self._windows: list[deque[float]] = [
            deque(maxlen=return_window) for _ in range(ensemble_size)
        ]

    def record(self, member: int, episode_return: float) -> None:
        """Adds the return of an episode in which `member` acted."""
        self._windows[member].append(episode_return)

    def means(self) -> list[float]:
        """R_k of every member; NaN for a member with no finished episode yet."""
        return [float(np.mean(window)) if window else math.nan for window in self._windows]

    def get_state(self) -> list[list[float]]:
        return [list(window) for window in self._windows]

    def set_state(self, state: list[list[float]]) -> None:
        for window, returns in zip(self._windows, state, strict=True):
            window.clear()
            window.extend(returns)


def elect_teacher(
    returns: Sequence[float], rule: str = "best", rng: np.random.Generator | None = None
) -> int | None:
    """Elects the teacher from R_k.

    Args:
        returns: R_k of every member, NaN where a member has none. Such a member cannot be
            elected, by no rule.
        rule: "best" (argmax R_k, the paper's), "worst" (argmin R_k) or "random" (uniform).
            The lowest index wins a tie.
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
    choose: Any = max if rule == "best" else min
    return choose(candidates, key=lambda k: returns[k])
