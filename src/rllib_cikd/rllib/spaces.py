"""The spaces of a run: the same in all its environments, and after a restore.

Members act in [-1, 1] and see flat vectors. What these mean is the environment's own spaces, so
that where those differ, a policy would do something else without a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_cikd.common.errors import EnvironmentFault
from rllib_cikd.rllib.action_map import MemberActions
from rllib_cikd.rllib.observation_map import MemberObservations


class Spaces(NamedTuple):
    """What members see and act in; each knows the environment's own space."""

    observation_space: MemberObservations
    action_space: MemberActions

    @classmethod
    def of(cls, module: Any) -> Spaces:
        """Those that a member was made for."""
        return cls(module.observation_space, module.action_space)

    def difference(self, other: Spaces) -> tuple[str, gym.Space, gym.Space] | None:
        """The first field in which the environments' own spaces differ, and both.

        Bounds of observations are not looked at: they change nothing of what members see.
        """
        if self.observation_space.layout != other.observation_space.layout:
            return "observation_space", self.observation_space.own, other.observation_space.own
        if self.action_space.own != other.action_space.own:
            return "action_space", self.action_space.own, other.action_space.own
        return None


def refuse_unequal(spaces: Sequence[Spaces], env_name: str) -> None:
    """Compares the spaces of environments.

    Raises:
        EnvironmentFault: If two of them differ.
    """
    for other in spaces[1:]:
        found = spaces[0].difference(other)
        if found is not None:
            field, one, another = found
            raise EnvironmentFault(
                f"env={env_name!r} has the {field} {one} in one place and {another} in another: "
                "members see and act in all environments alike. Give training and evaluation, all "
                "env runners and their sub-environments the same spaces."
            )


def refuse_unequal_environments(groups: Iterable[EnvRunnerGroup | None], env_name: str) -> None:
    """Compares the spaces of all environments of all env runners in these groups.

    Raises:
        EnvironmentFault: If two of them differ.
    """
    spaces = [
        found
        for group in groups
        if group is not None
        for found in group.foreach_env_runner(lambda runner: runner.spaces_of_envs)
        if found is not None
    ]
    refuse_unequal(spaces, env_name)
