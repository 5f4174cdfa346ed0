"""Running statistics against numpy's over all observations at once."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch

from rllib_cikd.algorithm.normalization import (
    LIMIT,
    ObservationNormalizer,
    ObservationStatistics,
    normalize,
)
from rllib_cikd.algorithm.replay_buffer import ReplayBuffer


def test_statistics_are_those_of_all_observations():
    rng = np.random.default_rng(0)
    # A mean that is large beside the deviation, a number that never changes, and a huge one.
    obs = rng.normal([0.0, 1e6, 3.0, 0.0], [1.0, 0.5, 0.0, 1e8], (1_000, 4)).astype(np.float32)
    statistics = ObservationStatistics(4)
    for part in np.split(obs, [1, 2, 50, 50, 700]):
        statistics.add(part)
    exact = obs.astype(np.float64)
    np.testing.assert_allclose(statistics.mean.numpy(), exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.deviation.numpy(), exact.std(0, ddof=1) + 1e-8, rtol=1e-6)
    restored = ObservationStatistics(4)
    restored.set_state(statistics.get_state())
    restored.add(obs[:7])
    statistics.add(obs[:7])
    assert torch.equal(restored.mean, statistics.mean)
    assert torch.equal(restored.deviation, statistics.deviation)


def test_before_there_are_any_nothing_changes():
    statistics = ObservationStatistics(2)
    obs = torch.tensor([[3.0, -4.0]])
    assert torch.equal(normalize(obs, statistics.mean, statistics.deviation), obs)
    statistics.add(np.array([[1.0, 1.0]], np.float32))
    normalized = normalize(obs, statistics.mean, statistics.deviation)
    assert torch.equal(normalized, torch.tensor([[2.0, -5.0]]))


def test_normalized_observations_stay_within_a_limit():
    obs = torch.tensor([[1e9, -1e9, 0.5]])
    normalized = normalize(obs, torch.zeros(3), torch.tensor([1.0, 1e-8, 0.25]))
    assert normalized.tolist() == [[LIMIT, -LIMIT, 2.0]]


def test_a_minibatch_is_normalized_and_its_actions_are_not():
    members = [
        types.SimpleNamespace(obs_mean=torch.zeros(2), obs_deviation=torch.ones(2))
        for _ in range(3)
    ]
    normalizer = ObservationNormalizer(members)
    rng = np.random.default_rng(1)
    n, scale = 200, np.array([1_000.0, 0.01], np.float32)
    transitions = {
        "obs": rng.normal(size=(n, 2)).astype(np.float32) * scale,
        "actions": rng.uniform(-1, 1, (n, 1)).astype(np.float32),
        "rewards": np.zeros(n, np.float32),
        "next_obs": rng.normal(size=(n, 2)).astype(np.float32) * scale,
        "terminated": np.zeros(n, bool),
        "truncated": np.zeros(n, bool),
        "episodes": np.zeros(n, int),
    }
    buffer = ReplayBuffer(n, 2, 1)
    buffer.add(**transitions)
    normalizer.add(transitions["obs"])
    for member in members:
        assert torch.equal(member.obs_mean, normalizer.statistics.mean)
    batch = normalizer(buffer.gather(torch.arange(n), 0.99))
    exact = transitions["obs"].astype(np.float64)
    mean, deviation = exact.mean(0), exact.std(0, ddof=1)
    assert batch.obs.numpy() == pytest.approx((exact - mean) / deviation, abs=1e-5)
    next_obs = (transitions["next_obs"] - mean) / deviation  # by the same statistics
    assert batch.next_obs.numpy() == pytest.approx(next_obs, abs=1e-5)
    assert torch.equal(batch.obs_and_actions[:, :2], batch.obs)
    assert torch.equal(batch.obs_and_actions[:, 2:], torch.from_numpy(transitions["actions"]))
    assert torch.equal(batch.actions, torch.from_numpy(transitions["actions"]))
