"""The user's environment as the members see it, with everything checked that it gives."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import NormalizeObservation, NormalizeReward

from rllib_cikd.common.errors import EnvironmentFault, NotFinite
from rllib_cikd.rllib.action_map import ActionMap
from rllib_cikd.rllib.alarm import Alarm
from rllib_cikd.rllib.observation_map import ObservationMap

_FLOAT32_MAX = float(np.finfo(np.float32).max)

_STEP = "`step` returns (observation, reward, terminated, truncated, info) in Gymnasium"
_RESET = "`reset(self, *, seed=None, options=None)` returns (observation, info) in Gymnasium"

#: What to use instead of wrappers that keep running statistics.
_INSTEAD = {
    NormalizeObservation: (
        "set `observation_filter='MeanStdFilter'`, which keeps one mean and deviation for all"
    ),
    NormalizeReward: "scale rewards by a constant, with `gymnasium.wrappers.TransformReward`",
}


class Task:
    """A single-agent environment with float32 observations `[D]` and actions `[A]`.

    Actions are members': in [-1, 1], or one-hot vectors where they are discrete.

    Everything that acts in an environment does so through this class: training, evaluation and
    videos. What the environment itself raises passes through.

    Args:
        env: The user's environment, with the user's wrappers.
        name: How error messages call it.
        timeout: Seconds that one `reset` or `step` may take (see `Alarm`); None: any time.

    Raises:
        EnvironmentFault: If the environment cannot be used: spaces, statistics that a wrapper
            keeps for itself, `reset` without a seed.
    """

    def __init__(self, env: gym.Env, name: str, timeout: float | None = None):
        self.env = env
        self.name = name
        self._alarm = Alarm(timeout, name)
        self.observations = ObservationMap(env.observation_space, name)
        self.actions = ActionMap(env.action_space, name)
        for layer in _layers(env):
            self._check_statistics(layer)
            self._check_reset(layer)

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns the flat first observation of an episode and the environment's info.

        Raises:
            EnvironmentFault: If what the environment returns cannot be used, or nothing comes.
        """
        result = self._ask(self.env.reset, seed=seed)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            self._refuse(f"reset() returned {_what(result)} instead of a pair. {_RESET}")
        observation, info = result
        self._check_info(info, "reset()", _RESET)
        return self.observations(observation, "reset()"), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step with a member's action, `[A]` in [-1, 1].

        Returns:
            The flat observation, reward, terminated, truncated and the environment's info.

        Raises:
            EnvironmentFault: If what the environment returns, or the action, cannot be used, or
                nothing comes.
        """
        return self.step_with(self.actions(action))

    def step_with(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As `step`, with an action that `self.actions` has mapped already."""
        result = self._ask(self.env.step, action)
        if not isinstance(result, (tuple, list)) or len(result) != 5:
            self._refuse(f"step() returned {_what(result)} instead of five. {_STEP}")
        observation, reward, terminated, truncated, info = result
        self._check_info(info, "step()", _STEP)
        return (
            self.observations(observation, "step()"),
            self._reward(reward),
            self._flag(terminated, "terminated"),
            self._flag(truncated, "truncated"),
            info,
        )

    def _ask(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            with self._alarm:
                return method(*args, **kwargs)
        except SystemExit as error:  # would end the process without a word
            raise RuntimeError(f"it called sys.exit({error.code!r})") from error

    def close(self) -> None:
        """Closes the user's environment."""
        self.env.close()

    def _reward(self, reward: Any) -> float:
        number = reward
        if type(number) is not float:
            try:
                array = np.asarray(reward)
                if array.size != 1 or array.dtype.kind not in "fiub":
                    raise TypeError
                number = float(array.reshape(())[()])
            except Exception:  # whatever has no number in it
                self._refuse(f"step() returned {_what(reward)} as reward. Return one number")
        if not -_FLOAT32_MAX <= number <= _FLOAT32_MAX:
            large = math.isfinite(number)
            hint = "too large for float32" if large else "a diverging simulation?"
            raise NotFinite(
                f"env={self.name!r}: step() returned a non-finite reward ({number}: {hint}). "
                "Return finite rewards, or end the episode before."
            )
        return number

    def _flag(self, value: Any, name: str) -> bool:
        if value is True or value is False:
            return value
        try:
            array = np.asarray(value)
            if array.size == 1 and array.dtype.kind in "biu":
                return bool(array.reshape(())[()])
        except Exception:  # whatever is no array
            pass
        self._refuse(f"step() returned {_what(value)} as {name}. {_STEP}, the flags as bool")
        raise AssertionError

    def _check_info(self, info: Any, source: str, expected: str) -> None:
        if not isinstance(info, dict):
            self._refuse(f"{source} returned {_what(info)} as info, not a dict. {expected}")

    def _check_statistics(self, layer: gym.Env) -> None:
        remedy = next((text for cls, text in _INSTEAD.items() if isinstance(layer, cls)), None)
        running = [k for k, v in vars(layer).items() if type(v).__name__ == "RunningMeanStd"]
        if remedy is None and running:
            remedy = f"{_INSTEAD[NormalizeObservation]} for observations"
        if remedy is not None:
            self._refuse(
                f"the wrapper {type(layer).__name__} keeps running statistics, of its own in every "
                "environment and in no checkpoint: members would be evaluated on other "
                f"observations or rewards than they were trained on. Leave it out, and {remedy}"
            )

    def _check_reset(self, layer: gym.Env) -> None:
        try:
            parameters = inspect.signature(layer.reset).parameters
        except (TypeError, ValueError):  # no Python function
            return
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if "seed" not in parameters and not takes_all:
            self._refuse(f"reset() of {type(layer).__name__} takes no seed. {_RESET}")

    def _refuse(self, reason: str) -> None:
        raise EnvironmentFault(f"env={self.name!r}: {reason}.")


def is_accident(error: Exception) -> bool:
    """Whether another environment may do better: it raised, or its simulation diverged."""
    return isinstance(error, NotFinite) or not isinstance(error, EnvironmentFault)


def _layers(env: gym.Env) -> Iterator[gym.Env]:
    """The environment's wrappers from the outermost on, then itself."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def _what(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, (tuple, list)):
        return f"{len(value)} values"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
