"""Plays evaluation episodes of all members in lockstep: one step of each, then the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from rllib_cikd.algorithm.members import policy_id
from rllib_cikd.common.errors import EnvironmentFault
from rllib_cikd.rllib.endless import endless_episode
from rllib_cikd.rllib.task import Task, is_accident

#: How often an environment that raises is replaced in one evaluation episode.
_MAX_REPLACEMENTS = 3


class EpisodeObserver(Protocol):
    """Looks on while evaluation episodes are played; k and e are member and environment."""

    def start(self, k: int, e: int, observation: np.ndarray, info: dict[str, Any]) -> None:
        """An episode was reset."""

    def step(self, k: int, e: int, action: np.ndarray, result: tuple[Any, ...]) -> None:
        """A member's action `[A]`, and what `Task.step` returned for it."""


def play_episodes(
    act: Sequence[Callable[[np.ndarray], np.ndarray]],
    tasks: Sequence[Sequence[Task]],
    seeds: Sequence[int],
    max_steps: int,
    observer: EpisodeObserver | None = None,
    replace: Callable[[int, int, Exception], Task] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Plays one episode in every environment, all of them in lockstep.

    Args:
        act: Per member a function from observations `[n, D]` to actions in [-1, 1], `[n, A]`.
        tasks: Per member its E environments.
        seeds: E seeds; episode e of every member starts from `reset(seed=seeds[e])`.
        max_steps: An episode that is longer does not end, as far as anybody can wait.
        observer: Told of every reset and step.
        replace: Called with (k, e, error) when an environment raises: makes another one, in which
            the episode is played again. Without it, and in the end, the error passes through.

    Returns:
        Undiscounted returns and lengths, each `[K, E]`.

    Raises:
        EnvironmentFault: If what an environment returns cannot be used, or an episode does not end.
    """
    episodes = _Lockstep(tasks, seeds, observer, replace)
    while any(episodes.running):
        for k, running in enumerate(episodes.running):
            if running:
                episodes.advance(k, act[k](episodes.observations[k][running]), max_steps)
    return episodes.returns, episodes.lengths


class _Lockstep:
    """The state of all members' episodes, between steps."""

    def __init__(
        self,
        tasks: Sequence[Sequence[Task]],
        seeds: Sequence[int],
        observer: EpisodeObserver | None,
        replace: Callable[[int, int, Exception], Task] | None,
    ):
        self._tasks = [list(row) for row in tasks]
        self._seeds = seeds
        self._observer = observer
        self._replace = replace
        shape = (len(tasks), len(seeds))
        self._replacements = np.zeros(shape, dtype=np.int64)
        self.returns = np.zeros(shape)
        self.lengths = np.zeros(shape, dtype=np.int64)
        dim = tasks[0][0].observations.member_space.shape[0]
        self.observations = np.zeros((*shape, dim), dtype=np.float32)
        self.running = [list(range(len(seeds))) for _ in tasks]
        for k, e in np.ndindex(*shape):
            self._reset(k, e)

    def _reset(self, k: int, e: int) -> None:
        self.returns[k, e], self.lengths[k, e] = 0.0, 0
        while True:
            try:
                self.observations[k, e], info = self._tasks[k][e].reset(seed=self._seeds[e])
                break
            except Exception as error:
                self._make_anew(k, e, error)
        if self._observer is not None:
            self._observer.start(k, e, self.observations[k, e].copy(), info)

    def _make_anew(self, k: int, e: int, error: Exception) -> None:
        """Another environment in the place of one that raised; the error again if it is no use."""
        self._replacements[k, e] += 1
        give_up = self._replacements[k, e] > _MAX_REPLACEMENTS
        if self._replace is None or give_up or not is_accident(error):
            raise self._located(error, k, e)
        self._tasks[k][e] = self._replace(k, e, error)

    def _located(self, error: Exception, k: int, e: int) -> Exception:
        if not isinstance(error, EnvironmentFault):
            return error
        where = f"step {self.lengths[k, e] + 1} of an evaluation episode of {policy_id(k)}"
        return type(error)(f"{error} This was at {where}.")

    def advance(self, k: int, actions: np.ndarray, max_steps: int) -> None:
        """One step of member k's running episodes, with actions in [-1, 1] of each, `[n, A]`."""
        running, tasks = self.running[k], self._tasks[k]
        try:
            mapped = tasks[0].actions.batch(actions)
        except EnvironmentFault as fault:
            raise self._located(fault, k, running[0]) from None
        self.running[k] = []
        for e, action, in_env_units in zip(running, actions, mapped, strict=True):
            try:
                result = tasks[e].step_with(in_env_units)
            except Exception as error:
                self._make_anew(k, e, error)
                self._reset(k, e)
                self.running[k].append(e)
                continue
            self.observations[k, e], reward, terminated, truncated, _ = result
            self.returns[k, e] += reward
            self.lengths[k, e] += 1
            if self._observer is not None:
                self._observer.step(k, e, action, result)
            if terminated or truncated:
                continue
            if self.lengths[k, e] >= max_steps:
                raise endless_episode(
                    tasks[e].name, f"an evaluation episode of {policy_id(k)}", max_steps
                )
            self.running[k].append(e)
