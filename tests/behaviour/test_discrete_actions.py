"""Whole runs with discrete actions: what is stored, what the environment gets, distillation."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import MEMBERS, learner_of, small_config, train

from rllib_cikd import CIKD, CIKDConfig


class Choices(gym.Env):
    """Choosing the shown number is worth 1; choices are -1, 0 and 1."""

    def __init__(self, config=None):
        self.observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Discrete(3, start=-1)
        self.taken: list = []

    def _show(self) -> np.ndarray:
        self._shown = int(self.np_random.integers(3))
        return np.eye(3, dtype=np.float32)[self._shown]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self._show(), {}

    def step(self, action):
        assert type(action) is int
        assert action in self.action_space
        self.taken.append(action)
        reward = float(action + 1 == self._shown)
        self._steps += 1
        return self._show(), reward, False, self._steps == 20, {}


def test_what_is_stored_is_what_was_taken(build):
    algo = build(small_config(Choices, random_steps=100, distillation_interval=150))
    results = train(algo, 300)
    env = algo.env_runner.env.envs[0].unwrapped.env
    rows = learner_of(algo).replay_buffer.get_state()["rows"]
    actions = rows[:, 3:6]
    assert np.array_equal(actions.sum(1), np.ones(len(rows)))
    assert (actions.argmax(1) - 1).tolist() == env.taken[: len(rows)]
    assert len(set(env.taken)) == 3
    # Rewards follow from observation and action: nothing is out of step.
    assert np.array_equal(rows[:, 6], (actions.argmax(1) == rows[:, :3].argmax(1)).astype(float))
    assert results["ensemble"]["num_distillations_lifetime"] >= 1
    kl = results["ensemble"]["distillation"]["kl_after"]
    assert sum(np.isfinite(value) for value in kl.values()) == len(MEMBERS) - 1


def test_members_learn_to_choose(build, tmp_path):
    config = small_config(Choices, random_steps=100, target_entropy=0.1, distillation_interval=500)
    config.training(actor_lr=3e-3, critic_lr=3e-3, gamma=0.0)
    algo = build(config)
    train(algo, 1_200)
    for member in MEMBERS:
        assert algo.evaluate_members(5, seed=1)[member]["returns"].tolist() == [20.0] * 5
    obs = torch.eye(3)
    expected = algo.get_module("policy_0").deterministic_actions(obs)
    assert torch.equal(expected, torch.eye(3))
    restored = CIKD.from_checkpoint(algo.save_to_path(str(tmp_path / "checkpoint")))
    try:
        assert torch.equal(restored.get_module("policy_0").deterministic_actions(obs), expected)
        restored.train()
    finally:
        restored.stop()


def test_target_entropy_is_nearly_that_of_a_uniform_policy(build):
    """0.98 log |A| (Christodoulou 2019, section 6), where the user sets none."""
    algo = build(small_config(Choices))
    (update,) = learner_of(algo).updates
    assert update.settings.target_entropy == pytest.approx(0.98 * np.log(3))
    assert isinstance(algo.config, CIKDConfig)
