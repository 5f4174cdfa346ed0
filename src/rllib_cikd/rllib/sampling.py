"""A fragment of training episodes from every env runner."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import ray
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_cikd.algorithm.members import policy_id
from rllib_cikd.common.errors import EnvironmentFault
from rllib_cikd.rllib.transitions import Chunk

logger = logging.getLogger(__name__)

#: Training stops when no env runner has answered for so many times `sample_timeout_s`.
_PATIENCE = 3


class Fragment(NamedTuple):
    """What one call of `sample_fragment` gives."""

    chunks: list[Chunk]
    metrics: dict[str, Any]
    fault: EnvironmentFault | None = None  #: then there is nothing else
    steps: int = 0  #: environment steps in this fragment until the fault
    member: int = 0  #: who was acting then
    worker: int = 0  #: index of the env runner
    lost: int = 0  #: environment steps that gave no transition, because an environment raised


class Sampler:
    """Samples on all env runners of a group, as long as there is one that answers.

    One that does not answer within `sample_timeout_s` hangs, as far as anybody can know: it is
    killed, and RLlib starts another in its place. RLlib itself would ask it again and again.

    Args:
        group: The env runners.
        config: `sample_timeout_s` and what belongs to it.
    """

    def __init__(self, group: EnvRunnerGroup, config: Any):
        self._group = group
        self._config = config
        self._silent_since: float | None = None  # when the first call began that nobody answered

    def sample(self, random_actions: bool) -> list[Fragment]:
        """A fragment from every env runner; none from one that failed or took too long.

        Raises:
            RuntimeError: If none has answered for several times `sample_timeout_s`.
        """
        if self._group.num_remote_workers() == 0:
            return [self._group.local_env_runner.sample_fragment(random_actions)]
        asked, timeout = self._group.healthy_worker_ids(), self._config.sample_timeout_s
        start = time.monotonic()
        fragments = self._group.foreach_env_runner(
            lambda runner: runner.sample_fragment(random_actions),
            local_env_runner=False,
            timeout_seconds=timeout,
        )
        if timeout is not None and time.monotonic() - start >= timeout:
            silent = set(asked) - {fragment.worker for fragment in fragments}
            remedy = "lower `rollout_fragment_length`"
            restart_silent(self._group, silent, "sample_timeout_s", timeout, remedy)
        if fragments or timeout is None:
            self._silent_since = None
        else:
            self._silent_since = self._silent_since or start
            self._give_up_if_silent()
        return fragments

    def _give_up_if_silent(self) -> None:
        assert self._silent_since is not None
        config, silence = self._config, time.monotonic() - self._silent_since
        patience = _PATIENCE * config.sample_timeout_s + config.delay_between_env_runner_restarts_s
        if silence > patience or not config.restart_failed_env_runners:
            raise RuntimeError(
                f"No env runner has returned samples for {silence:.0f} s (`sample_timeout_s`="
                f"{config.sample_timeout_s:g}): training stops here. Their errors are in the log "
                "above; if there are none, the environment hangs or needs more time."
            )


def restart_silent(
    group: EnvRunnerGroup, workers: set[int], setting: str, timeout: float, remedy: str
) -> None:
    """Kills env runners that did not answer in time: RLlib starts others in their places.

    Args:
        group: Whose they are.
        workers: Their indices; those that failed by themselves are left to RLlib.
        setting: Which holds the timeout.
        timeout: In seconds.
        remedy: What to do if they did not hang, besides raising the setting.
    """
    manager = group._worker_manager
    for worker in sorted(workers & set(manager.healthy_actor_ids())):
        logger.warning(
            "Env runner %s did not answer within `%s` (%s s) and is restarted: if it did not hang, "
            "raise that setting, or %s.",
            *(worker, setting, timeout, remedy),
        )
        ray.kill(manager.actors()[worker], no_restart=False)
        manager.set_actor_state(worker, healthy=False)


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
