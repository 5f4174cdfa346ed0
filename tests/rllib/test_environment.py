"""Environments: how they are made, which cannot be used, and how RLlib's runner sees them."""

from __future__ import annotations

import envs
import numpy as np
import pytest
from gymnasium.spaces import Box, MultiDiscrete
from ray.rllib.env.multi_agent_env import MultiAgentEnv, make_multi_agent
from ray.tune.registry import register_env

from rllib_cikd import CIKDConfig
from rllib_cikd.rllib.environment import AGENT_ID, create_env
from rllib_cikd.rllib.task import Task
from rllib_cikd.rllib.vector_env import SingleAgentAsMulti


def config_of(env, **env_config) -> CIKDConfig:
    return CIKDConfig().environment(env, env_config=env_config)


# ---------------------------------------------------------------- made from what the user gave


def test_gymnasium_id_with_env_config():
    env = create_env(config_of("Pendulum-v1", g=0.0))
    assert env.unwrapped.g == 0.0
    assert env.spec.id == "Pendulum-v1"


def test_registered_name_gets_an_env_context():
    def create(context):
        env = envs.DriftEnv(context)
        env.context = context
        return env

    register_env("drift", create)
    env = create_env(config_of("drift", time_limit=7), worker_index=3)
    assert env.time_limit == 7
    assert env.context == {"time_limit": 7}
    assert env.context.worker_index == 3


def test_env_class_gets_an_env_context():
    env = create_env(config_of(envs.CountingEnv, lengths=[6]), worker_index=2)
    assert type(env) is envs.CountingEnv
    assert env.lengths == [6]
    assert env.worker == 2


@pytest.mark.parametrize("env", ["Pendulum-v1", "class"])
def test_render_mode_is_passed_on(env):
    class Rendered(envs.DriftEnv):
        def __init__(self, config, render_mode=None):
            super().__init__(config)
            self.render_mode = render_mode

    made = create_env(config_of(Rendered if env == "class" else env), render_mode="rgb_array")
    assert made.render_mode == "rgb_array"


# ---------------------------------------------------------------- what cannot be used


BOX = Box(-1.0, 1.0, (3,), np.float32)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "words"),
    [
        (BOX, MultiDiscrete([2, 4]), "MultiDiscrete is not supported"),
        (Box(0, 255, (8, 8, 3), np.uint8), BOX, "images are not supported"),
        (BOX, Box(-np.inf, np.inf, (2,), np.float32), "unbounded action space.*TransformAction"),
    ],
)
def test_unsupported_spaces(observation_space, action_space, words):
    config = config_of(
        envs.SpacesEnv, observation_space=observation_space, action_space=action_space
    )
    with pytest.raises(ValueError, match=words):
        create_env(config)


class TwoAgents(MultiAgentEnv):
    def __init__(self, config=None):
        super().__init__()
        self.agents = self.possible_agents = ["a", "b"]
        self.observation_spaces = self.action_spaces = {"a": BOX, "b": BOX}


@pytest.mark.parametrize("env", [TwoAgents, make_multi_agent("Pendulum-v1")])
def test_multi_agent_env_is_rejected(env):
    with pytest.raises(ValueError, match="not a single-agent"):
        create_env(config_of(env))


def test_unknown_env_is_rejected():
    with pytest.raises(ValueError, match="'Pendulumm-v1' is neither a Gymnasium id nor a name"):
        create_env(config_of("Pendulumm-v1"))


@pytest.mark.parametrize("env", [None, 5])
def test_what_is_no_env_is_rejected(env):
    with pytest.raises(ValueError, match=f"env={env} is not supported: give a Gymnasium id"):
        create_env(config_of("Pendulum-v1").environment(env))


def test_env_that_is_no_gymnasium_env_is_rejected():
    register_env("a-list", lambda context: [])
    with pytest.raises(ValueError, match="makes a list, not a single-agent"):
        create_env(config_of("a-list"))


# ---------------------------------------------------------------- as RLlib's runner sees it


@pytest.mark.parametrize("end", ["terminates", "truncates"])
def test_one_agent_whose_episode_ends_for_all(end):
    """No flag of its own: RLlib would store the agent's time limits as terminations."""
    env = SingleAgentAsMulti(Task(envs.CountingEnv({"lengths": [2], "ends": [end]}), "the task"))
    assert env.observation_spaces[AGENT_ID].shape == (5,)
    assert env.action_spaces[AGENT_ID] == Box(-1.0, 1.0, (1,), np.float32)
    observations, _ = env.reset()
    assert observations[AGENT_ID].tolist() == [0.0, 0.0, 0.0, 0.0, 0.0]
    steps = [
        env.step({AGENT_ID: np.array([action])}) for action in (0.5, 0.75)
    ]  # 2 and 2.5 within [-1, 3]
    assert [list(observations) for observations, *_ in steps] == [[AGENT_ID]] * 2
    assert steps[1][0][AGENT_ID].tolist() == [0.0, 0.0, 0.0, 2 * envs.UNIT, 2.5]
    assert [rewards for _, rewards, *_ in steps] == [{AGENT_ID: n * envs.UNIT} for n in (1, 2)]
    terminated = [flags for _, _, flags, _, _ in steps]
    truncated = [flags for _, _, _, flags, _ in steps]
    assert terminated == [{"__all__": False}, {"__all__": end == "terminates"}]
    assert truncated == [{"__all__": False}, {"__all__": end == "truncates"}]


def test_a_termination_at_the_time_limit_is_a_termination():
    class Both(envs.DriftEnv):
        def step(self, action):
            observation, reward, _, _, info = super().step(action)
            return observation, reward, True, True, info

    env = SingleAgentAsMulti(Task(Both(), "the task"))
    env.reset(seed=0)
    _, _, terminated, truncated, _ = env.step({AGENT_ID: np.zeros(2)})
    assert (terminated["__all__"], truncated["__all__"]) == (True, False)


def test_seeds_reach_the_environment_and_it_is_closed():
    closed = []

    class Closing(envs.DriftEnv):
        def close(self):
            closed.append(1)

    env = SingleAgentAsMulti(Task(Closing(), "the task"))
    starts = [env.reset(seed=seed)[0][AGENT_ID].tolist() for seed in (5, 5, 6)]
    assert starts[0] == starts[1] != starts[2]
    env.close()
    assert closed == [1]
