"""The user's single-agent Gymnasium task, and the thin dress in which RLlib's runner sees it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.tune.registry import ENV_CREATOR, _global_registry

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

#: The id of the one agent that RLlib's multi-agent runner sees.
AGENT_ID = "agent_0"


def create_env(
    config: AlgorithmConfig, worker_index: int = 0, render_mode: str | None = None
) -> gym.Env:
    """Makes one plain (unwrapped by us) environment of `config.env`.

    Args:
        config: Any RLlib config; `env` is a Gymnasium id, a name registered with
            `ray.tune.register_env`, or an env class. `env_config` goes to the constructor.
        worker_index: Index of the env runner, put into the `EnvContext` of registered
            names and env classes.
        render_mode: For example "rgb_array"; only Gymnasium ids and env classes take it.

    Raises:
        ValueError: If the environment cannot be used: unknown id, not a `gymnasium.Env`, or
            spaces that CIKD does not support (see `check_spaces`).
    """
    env_context = EnvContext(config.env_config or {}, worker_index=worker_index)
    render: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    if isinstance(config.env, str) and _global_registry.contains(ENV_CREATOR, config.env):
        env = _global_registry.get(ENV_CREATOR, config.env)(env_context)
    elif isinstance(config.env, str):
        try:
            env = gym.make(config.env, **env_context, **render)
        except gym.error.Error as error:
            raise ValueError(
                f"env={config.env!r} is neither a Gymnasium id nor a name registered with "
                f"`ray.tune.register_env` in this process ({error}). Check the spelling, or "
                "register it before the algorithm is built."
            ) from error
    elif inspect.isclass(config.env):
        env_class: Any = config.env
        env = env_class(env_context, **render)
    else:
        raise ValueError(
            f"env={config.env!r} is not supported: give a Gymnasium id, a name registered with "
            "`ray.tune.register_env`, or an env class."
        )
    if isinstance(env, MultiAgentEnv) or not isinstance(env, gym.Env):
        raise ValueError(
            f"env={config.env!r} makes a {type(env).__name__}, not a single-agent "
            "`gymnasium.Env`. CIKD's members learn one single-agent task together: give the "
            "single-agent environment itself, the ensemble is added for you."
        )
    check_spaces(env.observation_space, env.action_space, name=str(config.env))
    return env


def check_spaces(observation_space: gym.Space, action_space: gym.Space, name: str) -> None:
    """Raises a `ValueError` unless both spaces are flat real vectors and actions are bounded."""
    if not isinstance(observation_space, gym.spaces.Box) or len(observation_space.shape) != 1:
        raise ValueError(
            f"env={name!r} has the observation space {observation_space}. CIKD supports "
            "one-dimensional `Box` observations: wrap the environment with "
            "`gymnasium.wrappers.FlattenObservation`."
        )
    if not isinstance(action_space, gym.spaces.Box) or len(action_space.shape) != 1:
        raise ValueError(
            f"env={name!r} has the action space {action_space}. CIKD's soft actor-critic "
            "supports one-dimensional continuous `Box` actions; discrete actions need another "
            "algorithm (for example RLlib's DQN)."
        )
    if not (np.isfinite(action_space.low).all() and np.isfinite(action_space.high).all()):
        raise ValueError(
            f"env={name!r} has the unbounded action space {action_space}. Policies act in "
            "[-1, 1]: bound it with `gymnasium.wrappers.RescaleAction` or `ClipAction`."
        )


def unsquash_actions(actions: np.ndarray, space: gym.spaces.Box) -> np.ndarray:
    """Maps actions `[..., A]` in [-1, 1] to the bounds of `space`."""
    return space.low + (actions.clip(-1.0, 1.0) + 1.0) * (0.5 * (space.high - space.low))


class SingleAgentAsMulti(MultiAgentEnv):
    """One single-agent environment as the multi-agent environment RLlib's runner expects.

    Done flags are given for `"__all__"` only. With per-agent flags RLlib's episode would
    store every time limit as a termination, and critics would stop bootstrapping there.
    """

    def __init__(self, env: gym.Env):
        super().__init__()
        self.env = env
        self.agents = self.possible_agents = [AGENT_ID]
        self.observation_spaces = {AGENT_ID: env.observation_space}
        self.action_spaces = {AGENT_ID: env.action_space}

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        observation, _ = self.env.reset(seed=seed, options=options)
        return {AGENT_ID: observation}, {AGENT_ID: {}}

    def step(self, action_dict: dict[str, Any]):
        observation, reward, terminated, truncated, _ = self.env.step(action_dict[AGENT_ID])
        return (
            {AGENT_ID: observation},
            {AGENT_ID: float(reward)},
            {"__all__": bool(terminated)},
            {"__all__": bool(truncated and not terminated)},
            {AGENT_ID: {}},
        )

    def render(self):
        return self.env.render()

    def close(self) -> None:
        self.env.close()
