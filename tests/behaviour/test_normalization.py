"""`observation_filter="MeanStdFilter"`: one normalisation in acting, learning and evaluation."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers import MEMBERS, learner_of, same, small_config, train, weights_of
from ray.tune.registry import register_env

from rllib_cikd import CIKD
from rllib_cikd.algorithm.normalization import EPSILON

SCALE = np.array([1_000.0, 1e-3, 1.0], np.float32)


class Scaled(gym.ObservationWrapper):
    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation * SCALE


register_env("scaled-pendulum", lambda config: Scaled(gym.make("Pendulum-v1")))


def config_of(env: str, **training):
    config = small_config(env, **training)
    return config.env_runners(observation_filter="MeanStdFilter")


def numbers(module) -> tuple[list[float], list[float]]:
    return module.obs_mean.tolist(), module.obs_deviation.tolist()


def test_everyone_sees_the_same_statistics_of_what_was_stored(build):
    algo = build(config_of("scaled-pendulum", random_steps=100))
    train(algo, 300)
    learner = learner_of(algo)
    stored = learner.replay_buffer.get_state()["rows"][:, :3].astype(np.float64)
    mean, deviation = stored.mean(0), stored.std(0, ddof=1) + EPSILON
    for mid in MEMBERS:
        for module in (learner.module[mid], algo.env_runner.module[mid], algo.get_module(mid)):
            ours = numbers(module)
            assert ours[0] == pytest.approx(mean, rel=1e-5)
            assert ours[1] == pytest.approx(deviation, rel=1e-5)
    # What acts is the network at (s - mean) / deviation.
    module = algo.get_module("policy_1")
    obs = torch.from_numpy(stored[:5].astype(np.float32))
    by_hand = (
        module.policy(((obs - mean) / deviation).clamp(-10, 10).float()).chunk(2, -1)[0].tanh()
    )
    torch.testing.assert_close(module.deterministic_actions(obs), by_hand, rtol=0, atol=1e-4)


def test_the_scale_of_observations_does_not_matter(build):
    """The same run with observations in other units: the members act alike."""
    plain, scaled = (
        build(config_of(env, random_steps=100)) for env in ("Pendulum-v1", "scaled-pendulum")
    )
    for algo in (plain, scaled):
        train(algo, 300)
    rows = [learner_of(algo).replay_buffer.get_state()["rows"] for algo in (plain, scaled)]
    np.testing.assert_allclose(rows[1][:, :3] / SCALE, rows[0][:, :3], rtol=1e-2, atol=1e-2)
    obs = torch.from_numpy(rows[0][:20, :3])
    for mid in MEMBERS:
        torch.testing.assert_close(
            scaled.get_module(mid).deterministic_actions(obs * torch.from_numpy(SCALE)),
            plain.get_module(mid).deterministic_actions(obs),
            rtol=0,
            atol=0.02,
        )


def test_a_checkpoint_goes_on_with_the_same_statistics(build, tmp_path):
    algo = build(config_of("Pendulum-v1", random_steps=100))
    train(algo, 200)
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    restored = CIKD.from_checkpoint(path)
    try:
        statistics = [learner_of(a)._normalizer.statistics for a in (algo, restored)]
        assert statistics[0].count == statistics[1].count >= 200
        assert torch.equal(statistics[0].mean, statistics[1].mean)
        assert numbers(restored.get_module("policy_2")) == numbers(algo.get_module("policy_2"))
        before = statistics[1].count
        restored.train()
        assert statistics[1].count == before + 100
    finally:
        restored.stop()
    with pytest.raises(ValueError, match=r"observation_filter='NoFilter': was 'MeanStdFilter'"):
        CIKD.from_checkpoint(path, config={"observation_filter": "NoFilter"})


@pytest.mark.parametrize("member", ["", "/policy_1"])
def test_members_are_not_loaded_alone(build, tmp_path, member):
    """The learner's own statistics would take the place of theirs."""
    algo = build(config_of("Pendulum-v1"))
    algo.train()
    component = f"learner_group/learner/rl_module{member}"
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    other = build(config_of("Pendulum-v1", seed=1))
    before = weights_of(other)
    with pytest.raises(ValueError, match="cannot be loaded alone with observation_filter="):
        other.restore_from_path(f"{path}/{component}", component=component)
    assert all(same(weights_of(other), before).values())


def test_without_the_filter_nothing_is_kept(build):
    algo = build(small_config("Pendulum-v1"))
    assert learner_of(algo)._normalizer is None
    assert not hasattr(algo.get_module("policy_0"), "obs_mean")
    assert "observation_statistics" not in learner_of(algo).get_state()
