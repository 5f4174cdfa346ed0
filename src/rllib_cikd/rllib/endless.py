"""Episodes that do not end: an error in evaluation, a warning in training."""

from __future__ import annotations

import logging

from rllib_cikd.common.errors import EnvironmentFault

logger = logging.getLogger(__name__)

_REMEDY = "with `gymnasium.wrappers.TimeLimit(env, max_episode_steps=…)`"


def endless_episode(env_name: str, what: str, max_steps: int) -> EnvironmentFault:
    """The error for an evaluation episode that has not ended after `max_steps`."""
    return EnvironmentFault(
        f"env={env_name!r}: {what} has not ended after {max_steps:,} steps "
        f"(`max_evaluation_steps`). Give the environment a time limit, {_REMEDY}, or raise that "
        "setting."
    )


class EndlessEpisodes:
    """Warns, once, of training episodes that do not end.

    Args:
        env_name: How the warning calls the environment.
        max_steps: An episode with more steps is one of them.
    """

    def __init__(self, env_name: str, max_steps: int):
        self._env_name = env_name
        self._max_steps = max_steps
        self._warned = False

    def watch(self, longest: int) -> None:
        """Takes the steps of the longest episode that is going on."""
        if longest > self._max_steps:
            self._warn(f"a training episode has not ended after {longest:,} steps")

    def phase_skipped(self, env_steps: int) -> None:
        """A phase is skipped after `env_steps`, since no member has finished an episode."""
        self._warn(
            f"no training episode has ended within {env_steps:,} steps, and the phase of knowledge "
            "sharing that is due is skipped"
        )

    def _warn(self, what: str) -> None:
        if not self._warned:
            logger.warning(
                "env=%r: %s. While episodes do not end, no member has an R_k and nobody can be "
                "elected; evaluation would not end either. Give the environment a time limit, %s.",
                *(self._env_name, what, _REMEDY),
            )
        self._warned = True
