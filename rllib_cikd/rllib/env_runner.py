"""RLlib's multi-agent env runner, for an ensemble that acts on one single-agent task."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.utils.annotations import override

from rllib_cikd.algorithm.members import assign_member, policy_ids
from rllib_cikd.rllib.environment import SingleAgentAsMulti, create_env
from rllib_cikd.rllib.evaluation import evaluation_seeds, play_episodes

_GENERATORS = "generators"


class CIKDEnvRunner(MultiAgentEnvRunner):
    """`MultiAgentEnvRunner` with the following differences.

    - It makes the user's single-agent environment and dresses it itself.
    - One member, drawn by `selection_probabilities`, acts through a whole episode.
    - `sample(random_actions=True)` draws uniform actions in [-1, 1] from a seeded generator
      and stores them as such (RLlib's are unseeded and in the environment's units).
    - Its draws come from generators of its own, which are part of its state.
    - `evaluate_members` plays the members' deterministic evaluation episodes.
    """

    def __init__(self, config, **kwargs):
        self._members = policy_ids(config.ensemble_size)
        self.selection_probabilities = np.full(len(self._members), 1.0 / len(self._members))
        self._evaluation_envs: list[list[gym.Env]] = []
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
        self._exploration_rng = torch.Generator().manual_seed(
            int(exploration.generate_state(1, np.uint64)[0] >> 1)
        )
        self._env_seeds = [int(s) for s in environments.generate_state(max(1, self.num_envs))]
        for member in self._members:
            self.module[member].generator = self._exploration_rng

    @override(MultiAgentEnvRunner)
    def make_env(self) -> None:
        # The base class builds from `config.env`; ours is a private, unfrozen copy.
        user_env = self.config.env
        config = self.config.copy(copy_frozen=False)
        self.config.env = functools.partial(_create_dressed_env, config)
        try:
            gym.registry.pop("rllib-multi-agent-env-v0", None)  # else a warning per runner
            super().make_env()
        finally:
            self.config.env = user_env

    @override(MultiAgentEnvRunner)
    def _try_env_reset(self, *, seed=None, options=None):
        # A seed comes with the first reset only. RLlib would make it seed + worker + i for
        # sub-environment i, so that neighbouring runners start from the same states.
        seeds = None if self.config.seed is None or seed is None else self._env_seeds
        return super()._try_env_reset(seed=seeds, options=options)

    @override(MultiAgentEnvRunner)
    def _new_episode(self, env_index, episodes=None):
        super()._new_episode(env_index, episodes)
        episodes = episodes if episodes is not None else self._ongoing_episodes
        member = self._selection_rng.choice(len(self._members), p=self.selection_probabilities)
        assign_member(episodes[env_index], int(member))

    @override(MultiAgentEnvRunner)
    def sample(self, *, random_actions: bool = False, **kwargs):
        for member in self._members:
            self.module[member].act_randomly = random_actions
        return super().sample(**kwargs)

    def evaluate_members(
        self, num_episodes: int, seed: int | Sequence[int] | None, share: tuple[int, int] = (0, 1)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Plays evaluation episodes of every member with its deterministic action.

        The environments are kept for the next call. Training episodes are not touched.

        Args:
            num_episodes: E, episodes of each member.
            seed: Entropy of the episodes' seeds; every member plays the same ones.
            share: (i, n): of the E episodes, play only the i-th of n shares.

        Returns:
            Returns and lengths, each `[K, episodes in this share]`.
        """
        first, step = share
        seeds = evaluation_seeds(seed, num_episodes)[first::step]
        if not seeds:
            return np.zeros((len(self._members), 0)), np.zeros((len(self._members), 0), np.int64)
        if len(self._evaluation_envs) == 0 or len(self._evaluation_envs[0]) < len(seeds):
            self._close_evaluation_envs()
            self._evaluation_envs = [
                [create_env(self.config, self.worker_index or 0) for _ in seeds]
                for _ in self._members
            ]
        envs = [row[: len(seeds)] for row in self._evaluation_envs]
        act = [functools.partial(_deterministic, self.module[m]) for m in self._members]
        return play_episodes(act, envs, seeds)

    def _close_evaluation_envs(self) -> None:
        for env in [env for row in self._evaluation_envs for env in row]:
            env.close()
        self._evaluation_envs = []

    @override(MultiAgentEnvRunner)
    def stop(self) -> None:
        self._close_evaluation_envs()
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
                "exploration": self._exploration_rng.get_state().numpy(),
            }
        return state

    @override(MultiAgentEnvRunner)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if _GENERATORS not in state:
            return
        # Environments cannot be stored: after a restore they start new episodes, from states
        # that depend on how far training is, so that they do not repeat those of its start.
        self._seed_generators(self.num_env_steps_sampled_lifetime)
        self._needs_initial_reset = True
        generators = state[_GENERATORS]
        if generators["worker_index"] == self.worker_index:  # else: another runner's draws
            self._selection_rng.bit_generator.state = generators["selection"]
            self._exploration_rng.set_state(torch.from_numpy(generators["exploration"].copy()))


def _create_dressed_env(config, env_context: EnvContext) -> SingleAgentAsMulti:
    return SingleAgentAsMulti(create_env(config, env_context.worker_index))


def _deterministic(module, observations: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module.deterministic_actions(torch.as_tensor(observations).float()).numpy()
