"""Training goes on from a checkpoint: no transition is lost or double, no episode repeated."""

from __future__ import annotations

from pathlib import Path

import envs
import numpy as np
import pytest
import torch
from helpers import (
    MEMBERS,
    SMALL_RUN,
    assert_same_state,
    eventful_config,
    full_state,
    learner_of,
    rows_of,
    same,
    small_config,
    train,
    weights_of,
)
from ray import tune

from rllib_cikd import CIKD


@pytest.fixture
def restore():
    """`restore(path)` makes an algorithm from a checkpoint, which is stopped in the end."""
    restored = []

    def restore_checkpoint(path: str) -> CIKD:
        restored.append(CIKD.from_checkpoint(path))
        return restored[-1]

    yield restore_checkpoint
    for algo in restored:
        algo.stop()


def test_training_goes_on_the_same_from_the_same_checkpoint(build, restore):
    """Two restored runs are bit-identical, and go on from the step of the checkpoint."""
    algo = build(eventful_config())
    for _ in range(2):
        algo.train()
    path = algo.save_to_path()
    one, two = restore(path), restore(path)
    for _ in range(2):
        first, second = one.train(), two.train()
    assert_same_state(full_state(one), full_state(two))
    assert repr(first["ensemble"]["return_mean"]) == repr(second["ensemble"]["return_mean"])
    assert first["training_iteration"] == algo.iteration + 2
    assert first["num_env_steps_sampled_lifetime"] == one.history.env_steps
    assert algo.history.env_steps + 200 <= one.history.env_steps < algo.history.env_steps + 220
    assert first["ensemble"]["num_distillations_lifetime"] >= algo.history.num_phases + 2
    learner, old = learner_of(one), rows_of(algo)
    assert learner.replay_buffer.num_added == one.history.env_steps
    for name, values in rows_of(one).items():
        assert np.array_equal(values[: algo.history.env_steps], old[name]), name


@pytest.mark.parametrize(
    ("env", "length", "num_envs"), [("Pendulum-v1", 200, 2), ("HalfCheetah-v5", 1000, 1)]
)
def test_a_run_that_was_stopped_between_episodes_ends_as_one_that_was_not(
    build, restore, env, length, num_envs
):
    """Same members, start states, draws, transitions, networks: to the bit."""
    steps = length * num_envs
    config = small_config(
        env,
        fragment=length,
        num_envs=num_envs,
        steps_per_iteration=steps,
        distillation_interval=steps,
        training_intensity=0.5,
        policy_selection="softmax",
    )
    algo = build(config)
    for _ in range(2):
        algo.train()
    stopped = restore(algo.save_to_path())
    for _ in range(2):
        algo.train()
        stopped.train()
    assert_same_state(full_state(algo), full_state(stopped))


def test_no_transition_is_missing_or_double_after_a_restore(build, restore):
    """The episode that was cut by the checkpoint is not continued; a new one starts."""
    config = small_config(
        envs.CountingEnv, env_config={"lengths": [30], "ends": ["terminates"]}, fragment=20
    )
    algo = build(config)
    algo.train()
    restored = restore(algo.save_to_path())
    restored.train()
    rows = {name: values[100:] for name, values in rows_of(restored).items()}
    assert rows["obs"][0, 3] == 0
    assert not rows["terminated"][:29].any()
    assert rows["terminated"][29]
    finished_before = sum(algo.history.episodes)
    assert finished_before == 3
    # 100 more steps hold three whole episodes; the ten steps before the restore count for none.
    assert sum(restored.history.episodes) == 6
    # Episode e has the return sum(step + e), and a new environment counts from 0 again.
    returns = {
        episode_return
        for window in restored.history.returns.get_state()
        for _, episode_return in window
    }
    assert returns == {(sum(range(1, 31)) + 30 * e) * envs.UNIT for e in range(3)}


@pytest.mark.parametrize("num_env_runners", [0, 1])
def test_a_live_algorithm_starts_new_episodes_after_a_restore(build, num_env_runners):
    """The episode that its environment is in belongs to another past."""
    config = small_config(envs.CountingEnv, env_config={"lengths": [30]}, fragment=20)
    algo = build(config.env_runners(num_env_runners=num_env_runners))
    algo.train()
    path = algo.save_to_path()
    algo.restore_from_path(path)
    finished = sum(algo.history.episodes)
    algo.train()
    steps = rows_of(algo)["obs"][100:, 3] / envs.UNIT
    assert steps.tolist() == [step % 30 for step in range(100)]
    assert sum(algo.history.episodes) == finished + 3
    assert algo.history.env_steps_lost == 0


def test_new_start_states_after_a_restore(build, restore):
    """A restored run must not play the first episodes of the run again."""
    algo = build(small_config(envs.DriftEnv))
    algo.train()
    path = algo.save_to_path()
    first = list(envs.DriftEnv.first_observations)
    envs.DriftEnv.first_observations.clear()
    restore(path).train()
    assert not set(first) & set(envs.DriftEnv.first_observations)


def test_new_start_states_of_a_remote_env_runner_after_a_restore(build, restore):
    algo = build(small_config(envs.DriftEnv, seed=3).env_runners(num_env_runners=1))
    algo.train()
    restored = restore(algo.save_to_path())
    restored.train()
    positions = rows_of(restored)["obs"][:, 0].tolist()
    assert not set(positions[:100]) & set(positions[100:])


def test_the_last_of_two_restores_counts(build):
    """Of the first, between two episodes, nothing is left when the second lies in an episode."""
    algo = build(small_config("Pendulum-v1", fragment=50, steps_per_iteration=200))
    train(algo, 400)
    between = algo.save_to_path()
    algo.training_step()
    within = algo.save_to_path()
    algo.restore_from_path(within)
    algo.train()
    expected = full_state(algo)
    algo.restore_from_path(between)
    algo.restore_from_path(within)
    algo.train()
    assert_same_state(full_state(algo), expected)


def test_older_checkpoint_into_a_live_algorithm(build):
    """Evaluation and training use the restored networks, not the newer ones."""
    algo = build(small_config(envs.DriftEnv))
    algo.train()
    old_state, old_result = full_state(algo), algo.evaluate_members(4, seed=1)
    path = algo.save_to_path()
    for _ in range(3):
        algo.train()
    newer = algo.evaluate_members(4, seed=1)
    algo.restore_from_path(path)
    assert_same_state(full_state(algo), old_state)
    restored = algo.evaluate_members(4, seed=1)
    for member in MEMBERS:
        assert np.array_equal(restored[member]["returns"], old_result[member]["returns"])
        assert not np.array_equal(restored[member]["returns"], newer[member]["returns"])
        runners = algo.get_module(member).state_dict()
        learners = learner_of(algo).module[member].state_dict()
        assert all(torch.equal(value, learners[name]) for name, value in runners.items())
    assert algo.train()["num_env_steps_sampled_lifetime"] == 200


def test_state_dict_of_older_training_into_a_live_algorithm(build):
    algo = build(small_config(envs.DriftEnv))
    algo.train()
    state, before = algo.get_state(), weights_of(algo)
    algo.train()
    assert not any(same(weights_of(algo), before).values())
    algo.set_state(state)
    assert all(same(weights_of(algo), before).values())


def test_without_the_buffer_learning_waits_until_it_is_filled_again(build, restore):
    config = small_config(
        envs.CountingEnv,
        random_steps=80,
        distillation_interval=50,
        store_buffer_in_checkpoints=False,
    )
    algo = build(config)
    for _ in range(2):
        algo.train()
    path = algo.save_to_path()
    files = sum(f.stat().st_size for f in (Path(path) / "learner_group").rglob("*.pkl"))
    assert files < 200_000
    restored = restore(path)
    learner = learner_of(restored)
    assert len(learner.replay_buffer) == 0
    before = weights_of(restored)
    phases = restored.history.num_phases
    restored.training_step()
    assert len(learner.replay_buffer) == 50
    assert all(same(weights_of(restored), before).values()), "learned from too few transitions"
    assert restored.history.num_phases == phases
    restored.training_step()
    assert restored.history.env_steps == 300
    assert restored.history.num_updates == algo.history.num_updates + 20
    assert restored.history.num_phases == phases + 1
    # No second random phase: the exploring policies act at once.
    assert not restored.get_module("policy_0").act_randomly


@pytest.mark.parametrize("n_step", [1, 3])
def test_without_the_buffer_a_live_algorithm_forgets_its_own(build, n_step):
    """Its transitions were sampled after the checkpoint, or in another run."""
    algo = build(small_config(envs.DriftEnv, n_step=n_step, store_buffer_in_checkpoints=False))
    algo.train()
    path = algo.save_to_path()
    algo.train()
    algo.restore_from_path(path)
    assert len(learner_of(algo).replay_buffer) == algo.history.stored == 0
    before = weights_of(algo)
    algo.training_step()
    assert len(learner_of(algo).replay_buffer) == 50
    assert all(same(weights_of(algo), before).values()), "learned from too few transitions"
    algo.training_step()
    assert not any(same(weights_of(algo), before).values())


def test_tune_checkpoint_and_restore(ray_cluster, tmp_path):
    """By name with a plain dict; a run that failed goes on from its last checkpoint."""
    flag = tmp_path / "failed_once"

    def fail_once(algorithm, **kwargs):
        if algorithm.iteration == 3 and not flag.exists():
            flag.touch()
            raise RuntimeError("this run fails once")

    param_space = SMALL_RUN | {
        "env": envs.DriftEnv,
        "ensemble_size": 2,
        "evaluation_interval": 2,
        "callbacks_on_train_result": fail_once,
    }
    run_config = tune.RunConfig(
        name="cikd",
        storage_path=str(tmp_path),
        stop={"num_env_steps_sampled_lifetime": 500},
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=2, checkpoint_at_end=True),
        verbose=0,
    )
    results = tune.Tuner("CIKD", param_space=param_space, run_config=run_config).fit()
    assert results.num_errors == 1
    assert "this run fails once" in str(results.errors[0])
    tuner = tune.Tuner.restore(
        str(tmp_path / "cikd"), "CIKD", resume_errored=True, param_space=param_space
    )
    results = tuner.fit()
    assert results.num_errors == 0
    metrics = results[0].metrics
    assert metrics["num_env_steps_sampled_lifetime"] == 500
    assert metrics["training_iteration"] == 5
    # It went on at step 200, where the last checkpoint was, not at the start.
    assert metrics["iterations_since_restore"] == 3
    columns = results[0].metrics_dataframe.columns
    for key in (
        "ensemble/teacher",
        "ensemble/return_mean/policy_1",
        "evaluation/ensemble/best_return_mean",
        "learners/policy_0/qf_loss",
    ):
        assert key in columns
    algo = CIKD.from_checkpoint(results[0].checkpoint.path)
    assert algo.history.env_steps == 500
    assert len(learner_of(algo).replay_buffer) == 500
    assert set(algo.evaluate()["ensemble"]["return_mean"]) == {"policy_0", "policy_1"}
    algo.stop()
