"""SAC steps of every member: how many there are, when, and what settings make of them."""

from __future__ import annotations

import math

import envs
import numpy as np
import pytest
from helpers import (
    MEMBERS,
    gradient_steps,
    learner_of,
    rows_of,
    same,
    small_config,
    train,
    weights_of,
)
from ray.rllib.core.rl_module import MultiRLModuleSpec, RLModuleSpec

from rllib_cikd import CIKD, CIKDConfig

NETWORKS = ("policy", "qf1", "qf2", "target_qf1", "target_qf2", "log_alpha")

# ---------------------------------------------------------------------- How many


@pytest.mark.parametrize(("fragment", "num_envs"), [(1, 1), (7, 3), (50, 1), (64, 1)])
def test_one_gradient_step_per_env_step_after_learning_starts(build, fragment, num_envs):
    """After each fragment as many as there are transitions beyond the start. All of them, of
    critics, policies and temperatures, as their optimisers count."""
    config = small_config(
        envs.CountingEnv,
        fragment=fragment,
        random_steps=20,
        num_steps_sampled_before_learning_starts=70,
        knowledge_sharing="none",
        num_envs=num_envs,
    )
    algo = build(config)
    stored = 0
    while stored < 150:
        algo.training_step()
        stored = learner_of(algo).replay_buffer.num_added
        assert gradient_steps(algo) == algo.history.num_updates == max(0, stored - 70)


@pytest.mark.parametrize(("intensity", "per_step"), [(4, 0.5), (20, 2.5), (3, 0.375)])
def test_training_intensity(build, intensity, per_step):
    algo = build(
        small_config(
            envs.CountingEnv,
            training_intensity=intensity,
            fragment=7,
            knowledge_sharing="none",
        )
    )
    steps = train(algo, 100)["num_env_steps_sampled_lifetime"]
    assert gradient_steps(algo) == int((steps - 50) * per_step)


def test_no_learning_before_its_start(build):
    algo = build(small_config(envs.DriftEnv, random_steps=300, distillation_interval=50))
    before = weights_of(algo)
    result = train(algo, 300)
    assert gradient_steps(algo) == 0
    assert all(same(before, weights_of(algo)).values())
    assert result["ensemble"]["num_distillations_lifetime"] == 0


@pytest.mark.parametrize("intensity", [0.1, 3, 8])
def test_statistics_are_numbers_from_the_first_gradient_step_on(build, intensity):
    """Also if the last fragment of the iteration, or all of them, had no gradient step."""
    algo = build(
        small_config(
            envs.DriftEnv,
            fragment=1,
            steps_per_iteration=20,
            random_steps=20,
            training_intensity=intensity,
        )
    )
    while gradient_steps(algo) == 0:
        statistics = algo.train()["learners"]["policy_0"]
        assert all(math.isnan(value) for value in statistics.values()) == (
            gradient_steps(algo) == 0
        )
    for _ in range(3):
        statistics = algo.train()["learners"]["policy_0"]
        assert not [name for name, value in statistics.items() if math.isnan(value)]


# ---------------------------------------------------------------------- What moves


@pytest.mark.parametrize("env", [envs.DriftEnv, "HalfCheetah-v5"])
def test_every_network_of_every_member_learns(build, env):
    algo = build(small_config(env, knowledge_sharing="none"))
    before = {network: weights_of(algo, network) for network in NETWORKS}
    algo.train()
    assert gradient_steps(algo) == 50
    for network, weights in before.items():
        assert not any(same(weights, weights_of(algo, network)).values()), network


@pytest.fixture(scope="module")
def plain(ray_cluster) -> CIKD:
    """An algorithm after 50 gradient steps with the settings of a small run."""
    algo = small_config(envs.DriftEnv).build_algo()
    algo.train()
    yield algo
    algo.stop()


@pytest.mark.parametrize(
    "option",
    [
        {"n_step": 3},
        {"gamma": 0.9},
        {"tau": 0.5},
        {"actor_lr": 0.1},
        {"critic_targets": "shared"},
    ],
)
def test_sac_option_changes_the_outcome(plain, build, option):
    other = build(small_config(envs.DriftEnv, **option))
    other.train()
    assert np.array_equal(rows_of(plain)["obs"], rows_of(other)["obs"])
    assert not any(same(weights_of(plain), weights_of(other)).values())


def test_learning_rate_schedule(build):
    algo = build(
        small_config(
            envs.DriftEnv,
            steps_per_iteration=50,
            actor_lr=[[0, 1e-3], [200, 1e-5]],
            knowledge_sharing="none",
        )
    )
    optimizer = learner_of(algo).updates[0].optimizers["actor"]
    for steps, rate in [(50, 0.7525e-3), (100, 0.505e-3), (150, 0.2575e-3), (200, 1e-5)]:
        reported = algo.train()["learners"]["__all_modules__"]["actor_learning_rate"]
        assert reported == pytest.approx(rate), steps
        assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(rate), steps


# ---------------------------------------------------------------------- Members that differ


@pytest.mark.parametrize("setting", [{"actor_lr": 1e-12}, {"critic_lr": 1e-12}])
def test_overrides_per_member_take_effect(build, setting):
    config = small_config(envs.DriftEnv, knowledge_sharing="none").rl_module(
        algorithm_config_overrides_per_module={"policy_1": CIKDConfig.overrides(**setting)}
    )
    algo = build(config)
    network = "policy" if "actor_lr" in setting else "qf1"
    before = weights_of(algo, network)
    train(algo, 100)
    after = weights_of(algo, network)
    change = {m: np.abs(after[m] - before[m]).max() for m in MEMBERS}
    assert change["policy_1"] < 1e-8
    assert change["policy_0"] > 1e-3
    assert change["policy_2"] > 1e-3


def test_members_of_different_shape_train_and_distil(build, tmp_path):
    """The loop over unequal members makes as many gradient steps as the batched pass."""
    hiddens = {"policy_0": [8], "policy_1": [16, 16], "policy_2": [8]}
    specs = {
        member: RLModuleSpec(model_config={"fcnet_hiddens": widths})
        for member, widths in hiddens.items()
    }
    settings = {"distillation_updates": 100, "distillation_batch_size": 64}
    algo = build(
        small_config(envs.DriftEnv, **settings).rl_module(
            rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs)
        )
    )
    before = weights_of(algo)
    result = train(algo, 200)
    after = weights_of(algo)
    assert len(learner_of(algo).updates) == 2
    assert gradient_steps(algo) == 150
    assert [len(after[m]) for m in MEMBERS] == [len(before[m]) for m in MEMBERS]
    assert len(after["policy_0"]) == len(after["policy_2"]) < len(after["policy_1"])
    assert not any(same(before, after).values())
    report = result["ensemble"]["distillation"]
    students = [m for m in MEMBERS if m != f"policy_{result['ensemble']['teacher']}"]
    assert all(report["kl_after"][m] < report["kl_before"][m] for m in students)
    restored = CIKD.from_checkpoint(algo.save_to_path(str(tmp_path / "checkpoint")))
    assert all(same(after, weights_of(restored)).values())
    assert restored.train()["num_env_steps_sampled_lifetime"] == 300
    restored.stop()
