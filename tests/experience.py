"""Synthetic episodes, for the learner and for the plain agents that it is compared with."""

from __future__ import annotations

import numpy as np

from rllib_cikd.algorithm.replay_buffer import ReplayBuffer

#: Dimensions of observations and actions.
D, A = 5, 2


class Experience:
    """Synthetic episodes, of which some terminate, some are cut and the last goes on."""

    def __init__(self, num_transitions: int = 150, seed: int = 0):
        rng = np.random.default_rng(seed)
        n = num_transitions
        self.obs = rng.normal(size=(n, D)).astype(np.float32)
        self.next_obs = np.vstack([self.obs[1:], rng.normal(size=(1, D)).astype(np.float32)])
        self.actions = rng.uniform(-1, 1, size=(n, A)).astype(np.float32)
        self.rewards = rng.integers(-16, 17, size=n).astype(np.float32) / 8
        ends = rng.random(n) < 0.2
        ends[-1] = False
        self.terminated = ends & (rng.random(n) < 0.5)
        self.truncated = ends & ~self.terminated
        assert self.terminated.sum() > 5
        assert self.truncated.sum() > 5
        self.next_obs[ends] = rng.normal(size=(ends.sum(), D))
        self.episodes = np.cumsum(np.append(False, ends[:-1]))

    def buffer(self, n_step: int = 1) -> ReplayBuffer:
        buffer = ReplayBuffer(len(self.rewards), D, A, n_step=n_step)
        buffer.add(
            self.obs,
            self.actions,
            self.rewards,
            self.next_obs,
            self.terminated,
            self.truncated,
            self.episodes,
        )
        return buffer

    def returns(self, n_step: int, gamma: float) -> dict[str, np.ndarray]:
        """Returns of up to n rewards, transition by transition."""
        n = len(self.rewards)
        rewards, num_rewards = np.zeros(n), np.zeros(n, int)
        terminated, next_obs = np.zeros(n, bool), np.zeros((n, D), np.float32)
        for first in range(n):
            for i in range(first, min(first + n_step, n)):
                rewards[first] += gamma ** (i - first) * float(self.rewards[i])
                num_rewards[first] = i - first + 1
                terminated[first], next_obs[first] = self.terminated[i], self.next_obs[i]
                if self.terminated[i] or self.truncated[i]:
                    break
        return {
            "obs": self.obs,
            "actions": self.actions,
            "rewards": rewards,
            "terminated": terminated,
            "next_obs": next_obs,
            "num_rewards": num_rewards,
        }
