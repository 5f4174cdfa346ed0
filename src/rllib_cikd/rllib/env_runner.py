"""RLlib's multi-agent env runner, for an ensemble that acts on one single-agent task."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rllib_cikd.algorithm.members import assign_member, member_of, policy_ids
from rllib_cikd.algorithm.policy_selection import next_in_round
from rllib_cikd.common.errors import EnvironmentFault
from rllib_cikd.rllib.between_episodes import BetweenEpisodes, generator_state
from rllib_cikd.rllib.environment import env_name, make_task
from rllib_cikd.rllib.evaluation import evaluation_seeds
from rllib_cikd.rllib.evaluation_callbacks import EvaluationEpisodes, wants_episodes
from rllib_cikd.rllib.lockstep import play_episodes
from rllib_cikd.rllib.restarting import RestartingEnvRunner
from rllib_cikd.rllib.sampling import Fragment
from rllib_cikd.rllib.spaces import Spaces, refuse_unequal
from rllib_cikd.rllib.task import Task
from rllib_cikd.rllib.transitions import Chunk
from rllib_cikd.rllib.vector_env import Call, CallLog, SingleAgentAsMulti, TaskVectorEnv

logger = logging.getLogger(__name__)

_GENERATORS = "generators"


class CIKDEnvRunner(RestartingEnvRunner):
    """`MultiAgentEnvRunner` with the following differences.

    - It makes the user's single-agent environment and dresses it itself, as a `Task`.
    - One member, drawn by `policy_selection`, acts through a whole episode.
    - `sample(random_actions=True)` draws uniform actions in [-1, 1] from a seeded generator
      and stores them as such (RLlib's are unseeded and in the environment's units).
    - Its draws come from generators of its own, which are part of its state.
    - `evaluate_members` plays the members' deterministic evaluation episodes. The environments
      of an evaluation env runner are those of its evaluation episodes.
    - Calls into environments (`env.call`, `foreach_env`, …) reach evaluation environments, too.
    - What was sampled before an environment raised is kept (see `RestartingEnvRunner`).
    """

    def __init__(self, config, **kwargs):
        self._members = policy_ids(config.ensemble_size)
        self.selection_probabilities = np.full(len(self._members), 1.0 / len(self._members))
        #: Per member the environments of its evaluation episodes.
        self._evaluation_envs: list[list[SingleAgentAsMulti]] = [[] for _ in self._members]
        self.calls = CallLog()
        self.num_calls_heard = 0  # of other env runners' calls
        self._calls_made = 0  # of `calls`, in the evaluation environments
        self.evaluation_metrics = MetricsLogger(
            root=False, stats_cls_lookup=config.stats_cls_lookup
        )
        #: The same in all environments; None while there is none.
        self.spaces_of_envs: Spaces | None = None
        self._between_episodes: BetweenEpisodes | None = None  # restored, not used yet
        super().__init__(config, **kwargs)
        self._seed_generators()

    def _seed_generators(self, env_steps: int = 0) -> None:
        """Seeds all of this runner's draws from (seed, evaluation, worker, steps done)."""
        root: Any = None
        if self.config.seed is not None:
            evaluation = int(self.config.in_evaluation)
            root = [self.config.seed, evaluation, self.worker_index or 0, env_steps]
        selection, exploration, environments = np.random.SeedSequence(root).spawn(3)
        self._selection_rng = np.random.default_rng(selection)
        self._round: list[int] = []  # who has not acted yet in this one
        self._exploration_rng = torch.Generator().manual_seed(
            int(exploration.generate_state(1, np.uint64)[0] >> 1)
        )
        self._env_seeds = [int(s) for s in environments.generate_state(max(1, self.num_envs))]
        for member in self._members:
            self.module[member].generator = self._exploration_rng

    @override(MultiAgentEnvRunner)
    def make_env(self) -> None:
        if self.env is not None:
            self._close_quietly(self.env)
        if self.config.in_evaluation:
            self._evaluation_envs = [[] for _ in self._members]
            self._grow_evaluation_envs(self._evaluation_width)
            envs = [env for row in self._evaluation_envs for env in row]
        else:
            envs = [self._dressed(i) for i in range(self.config.num_envs_per_env_runner)]
        self.env = TaskVectorEnv(envs, self.calls)
        self.num_envs = self.env.num_envs
        self._needs_initial_reset = True
        make_callback(
            "on_environment_created",
            callbacks_objects=self._callbacks,
            callbacks_functions=self.config.callbacks_on_environment_created,
            kwargs={
                "env_runner": self,
                "metrics_logger": self.metrics,
                "env": self.env,
                "env_context": EnvContext(
                    self.config.env_config or {},
                    worker_index=self.worker_index or 0,
                    num_workers=self.config.num_env_runners,
                ),
            },
        )

    def _make_task(self, index: int) -> Task:
        task = make_task(self.config, self.worker_index or 0, vector_index=index)
        spaces = Spaces(task.observations.member_space, task.actions.member_space)
        self.spaces_of_envs = self.spaces_of_envs or spaces
        refuse_unequal([self.spaces_of_envs, spaces], task.name)
        return task

    def _dressed(self, index: int) -> SingleAgentAsMulti:
        """A new environment, in which all calls are made that others had before."""
        env = SingleAgentAsMulti(self._make_task(index), self.calls if index == 0 else None)
        self.calls.repeat([env])
        return env

    def _close_quietly(self, env: Any) -> None:
        try:
            env.close()
        except Exception as error:  # of an environment that may be broken
            logger.warning("env=%r could not be closed: %s", env_name(self.config), error)

    def foreach_env(self, func: Call) -> list[Any]:
        """Calls a function with every environment (`EnvRunnerGroup.foreach_env`)."""
        return [] if self.env is None else self.env.foreach(func)

    def hear_calls(self, calls: Sequence[Call], count: int) -> None:
        """Remembers calls that were made into the environments of another env runner."""
        for call in calls:
            self.calls.add("heard", call)
        self.num_calls_heard = count

    @override(RestartingEnvRunner)
    def _new_episode(self, env_index, episodes=None):
        super()._new_episode(env_index, episodes)
        episodes = episodes if episodes is not None else self._ongoing_episodes
        if self._between_episodes is not None:
            member = self._between_episodes.members[env_index]
        elif self.config.policy_selection == "round":
            member = next_in_round(self._round, len(self._members), self._selection_rng)
        else:
            member = self._selection_rng.choice(len(self._members), p=self.selection_probabilities)
        assign_member(episodes[env_index], int(member))

    @override(RestartingEnvRunner)
    def _try_env_reset(self, *, seed=None, options=None):
        if self._between_episodes is not None:
            # Its episodes have been made, with their members: the environments go on as well.
            self._between_episodes.restore(self.env)
            self._between_episodes, seed = None, None
        return super()._try_env_reset(seed=seed, options=options)

    @override(RestartingEnvRunner)
    def sample(self, *, random_actions: bool = False, **kwargs):
        for member in self._members:
            self.module[member].act_randomly = random_actions
        self.calls.sampling = True
        try:
            return super().sample(**kwargs)
        finally:
            self.calls.sampling = False

    def sample_fragment(
        self, random_actions: bool = False, probabilities: np.ndarray | None = None
    ) -> Fragment:
        """Samples as the config says; returns what the driver needs, and as little as it needs.

        Args:
            random_actions: See `sample`.
            probabilities: `selection_probabilities` from now on; None: as before.

        A fault of the environment is returned: raised in a remote env runner, it would make RLlib
        restart it, again and again.
        """
        if probabilities is not None:
            self.selection_probabilities = probabilities
        before = self.env.steps
        try:
            episodes = self.sample(random_actions=random_actions)
        except EnvironmentFault as fault:
            acting = member_of(self._ongoing_episodes[self.env.current])
            return Fragment([], {}, fault, self.env.steps - before, acting, self.worker_index or 0)
        of_episodes = [Chunk.of(episode) for episode in episodes]
        chunks = [chunk for chunk in of_episodes if chunk is not None]
        lost = self.env.steps - before - sum(map(len, chunks))
        return Fragment(chunks, self.get_metrics(), worker=self.worker_index or 0, lost=lost)

    def evaluate_members(
        self,
        num_episodes: int,
        seed: int | Sequence[int] | None,
        share: tuple[int, int] = (0, 1),
        callbacks: bool = False,
        observer: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Plays evaluation episodes of every member with its deterministic action.

        The environments are kept for the next call. Training episodes are not touched.

        Args:
            num_episodes: E, episodes of each member.
            seed: Entropy of the episodes' seeds; every member plays the same ones.
            share: (i, n): of the E episodes, play only the i-th of n shares.
            callbacks: Whether the user's episode callbacks are called. They log into
                `evaluation_metrics`, and find `config.in_evaluation` set.
            observer: Another `EpisodeObserver` in their place.

        Returns:
            Returns and lengths, each `[K, episodes in this share]`.

        Raises:
            EnvironmentFault: If what an environment returns cannot be used, or an episode does
                not end within `max_evaluation_steps`.
        """
        first, step = share
        seeds = evaluation_seeds(seed, num_episodes)[first::step]
        if not seeds:
            return np.zeros((len(self._members), 0)), np.zeros((len(self._members), 0), np.int64)
        self._make_calls()
        self._grow_evaluation_envs(min(len(seeds), self._evaluation_width))
        width = len(self._evaluation_envs[0])
        if callbacks and wants_episodes(self):
            env = TaskVectorEnv([env for row in self._evaluation_envs for env in row])
            if self.config.in_evaluation:
                env = self.env
            observer = EvaluationEpisodes(self, env, width, self.evaluation_metrics)
        in_evaluation, metrics = self.config.in_evaluation, self.metrics
        self.config.in_evaluation, self.metrics = True, self.evaluation_metrics
        try:
            played = [
                play_episodes(
                    [functools.partial(_deterministic, self.module[m]) for m in self._members],
                    [[env.task for env in row[: len(wave)]] for row in self._evaluation_envs],
                    wave,
                    self.config.max_evaluation_steps,
                    observer,
                    self._replace if self.config.restart_failed_sub_environments else None,
                )
                for wave in (seeds[i : i + width] for i in range(0, len(seeds), width))
            ]
            if observer is not None:
                observer.end()
        finally:
            self.config.in_evaluation, self.metrics = in_evaluation, metrics
        returns, lengths = zip(*played, strict=True)
        return np.concatenate(returns, axis=1), np.concatenate(lengths, axis=1)

    @property
    def _evaluation_width(self) -> int:
        """Evaluation environments of each member: as many as this runner's share has episodes."""
        runners = self.config.evaluation_num_env_runners
        return math.ceil(self.config.evaluation_duration / max(1, runners))

    def _grow_evaluation_envs(self, width: int) -> None:
        for k, row in enumerate(self._evaluation_envs):
            for e in range(len(row), width):
                row.append(self._dressed(k * width + e))

    def _make_calls(self) -> None:
        """Makes the calls in evaluation environments that training environments had since."""
        if self.env is None or not self.config.in_evaluation:  # else they are `env`'s own
            envs = [env for row in self._evaluation_envs for env in row]
            self._calls_made = self.calls.repeat(envs, self._calls_made)

    def _replace(self, k: int, e: int, error: Exception) -> Task:
        """Another environment in the place of one that raised during evaluation."""
        logger.warning(
            "env=%r failed during evaluation, another one takes its place: %s: %s",
            *(env_name(self.config), type(error).__name__, error),
        )
        env = self._evaluation_envs[k][e]
        self._close_quietly(env)
        env.task = self._make_task(k * len(self._evaluation_envs[k]) + e)
        self.calls.repeat([env])
        return env.task

    @override(MultiAgentEnvRunner)
    def stop(self) -> None:
        if self.env is None or not self.config.in_evaluation:  # else they are `env`'s own
            for env in [env for row in self._evaluation_envs for env in row]:
                env.close()
            self._evaluation_envs = [[] for _ in self._members]
        super().stop()

    @override(MultiAgentEnvRunner)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component(_GENERATORS, components, not_components):
            state[_GENERATORS] = {
                "worker_index": self.worker_index,
                "selection": self._selection_rng.bit_generator.state,
                "round": list(self._round),
                "exploration": self._exploration_rng.get_state().numpy(),
                "between_episodes": self._episodes_to_begin(),
            }
        return state

    @override(MultiAgentEnvRunner)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if _GENERATORS not in state:
            return
        # Between two episodes the environments go on as if nothing had been.
        self.begin_anew(self.num_env_steps_sampled_lifetime)
        generators = state[_GENERATORS]
        if generators["worker_index"] == self.worker_index:  # else: another runner's draws
            self._selection_rng.bit_generator.state = generators["selection"]
            self._round = list(generators["round"])
            self._exploration_rng.set_state(torch.from_numpy(generators["exploration"].copy()))
            between = generators["between_episodes"]
            if between is not None and len(between[0]) == self.num_envs:
                self._between_episodes = BetweenEpisodes(*between)

    def begin_anew(self, env_steps: int) -> None:
        """Other episodes and draws than at the start: environments cannot be stored."""
        self._seed_generators(env_steps)
        self._needs_initial_reset = True
        self._between_episodes = None

    def _episodes_to_begin(self) -> BetweenEpisodes | None:
        """What is to be known of the next episodes, if just now all environments have ended one."""
        if self.env is None or self.config.in_evaluation or not self.env.all_ended:
            return None
        members = [member_of(episode) for episode in self._ongoing_episodes]
        return BetweenEpisodes(members, [generator_state(env) for env in self.env.envs])


def _deterministic(module, observations: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module.deterministic_actions(torch.from_numpy(observations)).numpy()
