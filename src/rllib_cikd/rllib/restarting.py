"""An env runner whose environments are replaced when they raise; what was sampled is kept."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.env.env_runner import NUM_ENV_STEP_FAILURES_LIFETIME
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import ENV_RESET_TIMER, ENV_STEP_TIMER
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rllib_cikd.algorithm.members import abandon
from rllib_cikd.common.errors import EnvironmentFault
from rllib_cikd.rllib.environment import env_name
from rllib_cikd.rllib.task import is_accident

logger = logging.getLogger(__name__)

#: Environments that raise without a step in between are replaced so often, then the error is final.
_MAX_FAILURES_IN_A_ROW = 10


class _EnvironmentsReplaced(Exception):
    """The fragment ends here: episodes cannot go on in other environments."""


class RestartingEnvRunner(MultiAgentEnvRunner):
    """`MultiAgentEnvRunner` with the following differences if an environment's step raises.

    All environments of this runner are replaced, as RLlib does. But what had been sampled until
    then is not thrown away: `sample` returns it, as a fragment that is shorter than asked for. So
    steps that are counted are steps that are returned. And the new environments start from other
    states: from the same ones, the same would happen again.
    """

    env: Any
    num_envs: int
    metrics: MetricsLogger
    _env_seeds: list[int]

    def __init__(self, config, **kwargs):
        self._failures_in_a_row = 0
        self._finished: list[MultiAgentEpisode] = []  # in the current call of `sample`
        super().__init__(config, **kwargs)

    @override(MultiAgentEnvRunner)
    def sample(self, **kwargs):
        self._finished = []
        try:
            return super().sample(**kwargs)
        except _EnvironmentsReplaced:
            return self._sampled_so_far()

    def _sampled_so_far(self) -> list[MultiAgentEpisode]:
        self._done_episodes_for_metrics.extend(self._finished)
        ongoing = [episode for episode in self._ongoing_episodes if episode.agent_episodes]
        for episode in ongoing:
            abandon(episode)
        episodes = [e if e.is_numpy else e.to_numpy() for e in [*self._finished, *ongoing]]
        make_callback(
            "on_sample_end",
            callbacks_objects=self._callbacks,
            callbacks_functions=self.config.callbacks_on_sample_end,
            kwargs={"env_runner": self, "metrics_logger": self.metrics, "samples": episodes},
        )
        return episodes

    @override(MultiAgentEnvRunner)
    def _new_episode(self, env_index, episodes=None):
        ended = None if episodes is None else episodes[env_index]
        if ended is not None and ended.is_done:
            self._finished.append(ended)
        super()._new_episode(env_index, episodes)

    @override(MultiAgentEnvRunner)
    def _try_env_reset(self, *, seed=None, options=None):
        # A seed comes with the first reset only. RLlib would make it seed + worker + i for
        # sub-environment i, so that neighbouring runners start from the same states.
        while True:
            seeds = None if self.config.seed is None or seed is None else self._env_seeds
            try:
                with self.metrics.log_time(ENV_RESET_TIMER):
                    return self.env.reset(seed=seeds, options=options)
            except Exception as error:
                self._replace_environments(error, "reset()")

    @override(MultiAgentEnvRunner)
    def _try_env_step(self, actions):
        try:
            with self.metrics.log_time(ENV_STEP_TIMER):
                results = self.env.step(actions)
        except Exception as error:
            self.metrics.log_value(NUM_ENV_STEP_FAILURES_LIFETIME, 1, reduce="lifetime_sum")
            self._replace_environments(error, "step()")
            raise _EnvironmentsReplaced from error
        self._failures_in_a_row = 0
        self._log_env_steps(metric=self._metrics_num_try_env_step, num_steps=1)
        return results

    def _replace_environments(self, error: Exception, source: str) -> None:
        """If RLlib's `restart_failed_sub_environments` is set; else, or in the end, raises."""
        self._failures_in_a_row += 1
        again = self._failures_in_a_row <= _MAX_FAILURES_IN_A_ROW
        if self.config.restart_failed_sub_environments and is_accident(error) and again:
            logger.warning(
                "%s of env=%r failed, another one takes its place: %s: %s",
                *(source, env_name(self.config), type(error).__name__, error),
            )
            steps = self.env.steps
            self.make_env()
            self.env.steps = steps
            following = np.random.SeedSequence(self._env_seeds).generate_state(self.num_envs)
            self._env_seeds = [int(seed) for seed in following]
        elif isinstance(error, EnvironmentFault):
            raise error
        else:
            raise RuntimeError(
                f"{source} of env={env_name(self.config)!r} raised {type(error).__name__}: {error}"
            ) from error
