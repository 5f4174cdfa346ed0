"""Small deterministic environments whose transitions can be told apart."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

#: Episode and step numbers are stored as multiples of this, which float32 holds exactly.
UNIT = 1.0 / 128.0


class CountingEnv(gym.Env):
    """Every observation and reward tells instance, episode and step.

    - Observation: [worker, instance, episode, step, last action], the first four in `UNIT`s.
    - Reward of a step: episode + step (in `UNIT`s), times `reward_scale`.
    - Actions: one number in [-1, 3].

    `env_config`:
        reward_scale: 1 if not given.
        lengths: Lengths of the episodes, in turn and from the start again.
        ends: For each of `lengths`, whether it "terminates" or "truncates".
        raises_every: The simulator crashes in each such step of all of the instances' steps.
        broken: What is not a number at step `broken_at` of the environment's life:
            "observation", "reward", "huge_reward" (beyond float32) or "" for nothing.
    """

    _instances = itertools.count()
    _steps = itertools.count(1)
    #: Per instance every step's (episode, step, action received, terminated, truncated).
    log: ClassVar[dict[int, list[tuple[int, int, float, bool, bool]]]] = {}

    def __init__(self, config: dict[str, Any] | None = None):
        config = config or {}
        self.lengths = list(config.get("lengths", [5]))
        self.ends = list(config.get("ends", ["truncates"] * len(self.lengths)))
        self.reward_scale = config.get("reward_scale", 1.0)
        self.broken = config.get("broken", "")
        self.broken_at = config.get("broken_at", 0)
        self.raises_every = config.get("raises_every", 0)
        self.worker = getattr(config, "worker_index", 0)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (5,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 3.0, (1,), np.float32)
        self.instance = next(self._instances)
        self.episode, self.step_count, self.life = -1, 0, 0
        self.action = 0.0

    @classmethod
    def clear(cls) -> None:
        """Forgets what earlier instances did, and numbers new ones from 0."""
        cls._instances, cls._steps = itertools.count(), itertools.count(1)
        cls.log = {}

    def _observation(self) -> np.ndarray:
        numbers = np.array([self.worker, self.instance, self.episode, self.step_count]) * UNIT
        return np.append(numbers, self.action)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.step_count, self.action = 0, 0.0
        return self._observation(), {}

    def step(self, action):
        if self.raises_every and next(self._steps) % self.raises_every == 0:
            raise OSError("simulator crashed")
        self.step_count += 1
        self.life += 1
        self.action = float(action[0])
        reward = (self.episode + self.step_count) * UNIT * self.reward_scale
        turn = self.episode % len(self.lengths)
        done = self.step_count >= self.lengths[turn]
        terminated = done and self.ends[turn] == "terminates"
        truncated = done and not terminated
        self.log.setdefault(self.instance, []).append(
            (self.episode, self.step_count, self.action, terminated, truncated)
        )
        observation = self._observation()
        if self.broken and self.life == self.broken_at:
            if self.broken == "observation":
                observation[2] = np.nan
            elif self.broken == "reward":
                reward = np.inf
            elif self.broken == "huge_reward":
                reward = 1e300
        return observation, reward, terminated, truncated, {}


class DriftEnv(gym.Env):
    """A point that drifts from a random start; leaving [-1, 1] ends the episode, so does time.

    Small differences stay small, so that two ways to compute the same actions agree. Episodes
    of different members and starts have different lengths.

    `env_config`: time_limit, gain (of the action).
    """

    #: Where episodes started, of all instances in this process.
    first_observations: ClassVar[list[float]] = []

    def __init__(self, config: dict[str, Any] | None = None):
        config = config or {}
        self.time_limit = config.get("time_limit", 30)
        self.gain = config.get("gain", 0.2)
        self.observation_space = gym.spaces.Box(-10.0, 10.0, (2,), np.float32)
        self.action_space = gym.spaces.Box(-2.0, 1.0, (2,), np.float32)

    def _observation(self) -> np.ndarray:
        return self.position.astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-0.5, 0.5, 2)
        self.step_count = 0
        self.first_observations.append(float(self.position[0]))
        return self._observation(), {}

    def step(self, action):
        self.step_count += 1
        self.position = self.position + self.gain * np.asarray(action, dtype=np.float64)
        terminated = bool(np.abs(self.position).max() > 1.0)
        truncated = self.step_count >= self.time_limit
        reward = 1.0 - float(np.square(self.position).sum())
        return self._observation(), reward, terminated, truncated, {}


class SpacesEnv(gym.Env):
    """An environment of any spaces, which only ever is looked at."""

    def __init__(self, config: dict[str, Any]):
        self.observation_space = config["observation_space"]
        self.action_space = config["action_space"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, True, {}
