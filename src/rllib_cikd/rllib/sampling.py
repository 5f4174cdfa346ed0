"""A fragment of training episodes from every env runner."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import ray
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_cikd.algorithm.members import policy_id
from rllib_cikd.common.errors import EnvironmentFault
from rllib_cikd.rllib.transitions import Chunk

logger = logging.getLogger(__name__)

#: Training stops when no env runner has answered for so many times `sample_timeout_s`.
_PATIENCE = 3

#: RLlib's manager of env runners tells calls apart by it.
_TAG = "sample_fragment"


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
    The time runs from when the fragment is waited for, also if it was begun before.

    Args:
        group: The env runners.
        config: `sample_while_learning`, `sample_timeout_s` and what belongs to it.
    """

    def __init__(self, group: EnvRunnerGroup, config: Any):
        self._group = group
        self._config = config
        self._unread: list[Fragment] = []  # waited for, but not given to anybody yet
        self._silent_since: float | None = None  # when the first call began that nobody answered

    def sample(self, random_actions: bool, probabilities: np.ndarray) -> list[Fragment]:
        """A fragment from every env runner; none from one that failed or took too long.

        It is the one under way, if there is one: then the arguments are not looked at.

        Args:
            random_actions: Whether the warm-up's actions are taken, not the members'.
            probabilities: `[K]`, with which members are drawn for new episodes.

        Raises:
            RuntimeError: If none has answered for several times `sample_timeout_s`.
        """
        start = time.monotonic()
        if self._group.num_remote_workers() == 0 and not self._unread:
            return [self._group.local_env_runner.sample_fragment(random_actions, probabilities)]
        if not self._unread and not self._group.num_in_flight_async_reqs(_TAG):
            self._begin(random_actions, probabilities)
        fragments, self._unread = self.unread(), []
        if fragments or self._config.sample_timeout_s is None:
            self._silent_since = None
        else:
            self._silent_since = self._silent_since or start
            self._give_up_if_silent()
        return fragments

    def sample_ahead(self, random_actions: bool, probabilities: np.ndarray) -> None:
        """With `sample_while_learning`, env runners begin the next fragment; else nothing.

        Env runners do one thing after the other: what they are sent from now on, such as weights,
        they look at when this fragment is done.
        """
        if self._config.sample_while_learning:
            self._begin(random_actions, probabilities)

    def unread(self) -> list[Fragment]:
        """Waits for the fragment under way, if there is one, and leaves it to the next `sample`."""
        if not self._group.num_in_flight_async_reqs(_TAG):
            return self._unread
        timeout = self._config.sample_timeout_s
        answers = self._group.fetch_ready_async_reqs(tags=_TAG, timeout_seconds=timeout)
        silent = self._under_way()
        if silent:
            self._group._num_env_runners_dropped_lifetime += len(silent)
            remedy = "lower `rollout_fragment_length`"
            restart_silent(self._group, silent, "sample_timeout_s", timeout, remedy)
        self._unread += [fragment for _, fragment in sorted(answers, key=lambda a: a[0])]
        return self._unread

    def restore(self, unread: Sequence[Fragment]) -> None:
        """The next `sample` gives these; a fragment under way is dropped, as of another past."""
        self.unread()
        self._unread = list(unread)

    def _begin(self, random_actions: bool, probabilities: np.ndarray) -> None:
        self._group.foreach_env_runner_async(
            lambda runner: runner.sample_fragment(random_actions, probabilities), tag=_TAG
        )

    def _under_way(self) -> set[int]:
        """Indices of the env runners whose fragments are waited for."""
        calls = self._group._worker_manager._in_flight_req_to_actor_id.values()
        return {worker for tag, worker in calls if tag == _TAG}

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
