"""The same seed gives the same run, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import rows_of, same, small_config, train, weights_of


def run(build, env, seed) -> tuple[dict, dict, dict]:
    """Weights, transitions and result after three phases."""
    algo = build(small_config(env, seed=seed))
    result = train(algo, 300)
    return weights_of(algo), rows_of(algo), result["ensemble"]


@pytest.mark.parametrize("env", ["Pendulum-v1", "HalfCheetah-v5"])
def test_same_seed_same_run(build, env):
    first, second, other = (run(build, env, seed) for seed in (1, 1, 2))
    assert all(same(first[0], second[0]).values())
    for name, values in first[1].items():
        assert np.array_equal(values, second[1][name]), name
    assert first[2]["episodes_lifetime"] == second[2]["episodes_lifetime"]
    assert not any(same(first[0], other[0]).values())
    assert not np.array_equal(first[1]["obs"][0], other[1]["obs"][0])
    assert not np.array_equal(first[1]["actions"][:50], other[1]["actions"][:50])


def test_without_a_seed_runs_differ(build):
    first, second = (run(build, "Pendulum-v1", None) for _ in range(2))
    assert not any(same(first[0], second[0]).values())
    assert not np.array_equal(first[1]["obs"][0], second[1]["obs"][0])
    assert not np.array_equal(first[1]["actions"][:50], second[1]["actions"][:50])


def test_members_start_different(build):
    start = weights_of(build(small_config(ensemble_size=3)), "policy")
    assert not np.array_equal(start["policy_0"], start["policy_1"])
    assert not np.array_equal(start["policy_1"], start["policy_2"])
