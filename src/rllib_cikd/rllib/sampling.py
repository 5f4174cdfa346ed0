"""A fragment of training episodes from every env runner."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_cikd.algorithm.members import policy_id
from rllib_cikd.common.errors import EnvironmentFault
from rllib_cikd.rllib.transitions import Chunk

logger = logging.getLogger(__name__)


class Fragment(NamedTuple):
    """What one call of `sample_fragment` gives."""

    chunks: list[Chunk]
    metrics: dict[str, Any]
    fault: EnvironmentFault | None = None  #: then there is nothing else
    steps: int = 0  #: environment steps in this fragment until the fault
    member: int = 0  #: who was acting then
    lost: int = 0  #: environment steps that gave no transition, because an environment raised


def sample_on_runners(group: EnvRunnerGroup, config: Any, random_actions: bool) -> list[Fragment]:
    """A fragment from every env runner; none from one that failed or took too long."""
    if group.num_remote_workers() == 0:
        return [group.local_env_runner.sample_fragment(random_actions)]
    fragments = group.foreach_env_runner(
        lambda runner: runner.sample_fragment(random_actions),
        local_env_runner=False,
        timeout_seconds=config.sample_timeout_s,
    )
    if not fragments:
        logger.warning(
            "No env runner returned samples within `sample_timeout_s` (%s s): if they did not "
            "fail, raise that setting, or lower `rollout_fragment_length` (%s).",
            *(config.sample_timeout_s, config.rollout_fragment_length),
        )
    return fragments


def raise_faults(fragments: Sequence[Fragment], env_steps: int) -> None:
    """Raises the first fault among fragments that were sampled after `env_steps`.

    Raises:
        EnvironmentFault: With the step near which it came, and who was acting.
    """
    for fragment in fragments:
        if fragment.fault is not None:
            raise type(fragment.fault)(
                f"{fragment.fault} This came near environment step {env_steps + fragment.steps}, "
                f"while {policy_id(fragment.member)} was acting. Nothing of this fragment was "
                "stored, and training stops here."
            )
