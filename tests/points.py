"""A small task, and everything that an environment can do wrong, one class each."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Point(gym.Env):
    """Moves a point to 0, in `n` steps (default 20); `difficulty` is in the observation."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, config: dict[str, Any] | None = None):
        self.config = config or {}
        self.n = self.config.get("n", 20)
        self.difficulty = self.config.get("difficulty", 0)
        self.render_mode = self.config.get("render_mode")
        self.observation_space = spaces.Box(-10, 10, (2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def set_difficulty(self, difficulty: int) -> str:
        self.difficulty = difficulty
        return f"now {difficulty}"

    def harder(self) -> None:
        self.difficulty += 1

    def observe(self) -> Any:
        return np.array([self.x, self.difficulty], np.float32)

    def reward(self) -> Any:
        return -abs(self.x)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = float(self.np_random.uniform(-1, 1)), 0
        return self.observe(), {"start": self.x}

    def step(self, action):
        self.x += 0.1 * float(np.asarray(action).ravel()[0])
        self.t += 1
        return self.observe(), self.reward(), False, self.t >= self.n, {"energy": 3.0 + self.t}

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


class FourValues(Point):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, info


class ResetWithoutSeed(Point):
    def reset(self):
        return super().reset()


class OnlyObservation(Point):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class WrongShape(Point):
    def observe(self):
        return np.zeros(3, np.float32)


class NoObservation(Point):
    def observe(self):
        return None


class DivergedObservation(Point):
    def observe(self):
        return np.array([np.nan, 0.0]) if self.t == 3 else super().observe()


class FractionForInteger(Point):
    def __init__(self, config=None):
        super().__init__(config)
        self.observation_space = spaces.Box(-10, 10, (2,), np.int64)


class NoReward(Point):
    def reward(self):
        return None


class DivergedReward(Point):
    def reward(self):
        return np.float64("inf") if self.t == 3 else super().reward()


class FlagIsNone(Point):
    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, None, truncated, info


class InfoIsNone(Point):
    def step(self, action):
        return (*super().step(action)[:4], None)


class Raises(Point):
    """The simulator crashes in its `raises_at`-th step of all (default 7), of all instances."""

    steps = 0

    def step(self, action):
        type(self).steps += 1
        if self.steps == self.config.get("raises_at", 7):
            raise OSError("simulator crashed")
        return super().step(action)


class Endless(Point):
    def __init__(self, config=None):
        super().__init__({**(config or {}), "n": 10**9})


class Camera(Point):
    def __init__(self, config=None):
        super().__init__(config)
        self.observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)


class Words(Point):
    def __init__(self, config=None):
        super().__init__(config)
        self.observation_space = spaces.Text(5)


class Buttons(Point):
    def __init__(self, config=None):
        super().__init__(config)
        self.action_space = spaces.MultiBinary(3)


class Unbounded(Point):
    def __init__(self, config=None):
        super().__init__(config)
        self.action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


class Stronger(Point):
    """Each one that is made has wider bounds than the one before."""

    force = 1

    def __init__(self, config=None):
        super().__init__(config)
        Stronger.force += 1
        self.action_space = spaces.Box(-self.force, self.force, (1,), np.float32)


class Structured(Point):
    """Dictionaries and tuples on both sides; the action it gets must be of its space."""

    def __init__(self, config=None):
        super().__init__(config)
        self.observation_space = spaces.Dict(
            place=spaces.Box(-10, 10, (1, 1), np.float64), left=spaces.Discrete(3, start=-1)
        )
        self.action_space = spaces.Tuple(
            [spaces.Box(-3, 5, (2,), np.float32), spaces.Dict(gear=spaces.Box(1, 4, (), np.int8))]
        )

    def observe(self):
        return {"place": [[self.x]], "left": int(np.sign(self.x))}

    def step(self, action):
        assert self.action_space.contains(action), action
        return super().step(action[0])


class Settings(Point):
    """Gymnasium's own form: settings by name."""

    def __init__(self, render_mode=None, size=5):
        super().__init__({"render_mode": render_mode})
        self.size = size


class NoSettings(Point):
    def __init__(self):
        super().__init__()
