"""Remote env runners, evaluation env runners and learners: the same as local ones, or an error."""

from __future__ import annotations

import envs
import numpy as np
import points
import pytest
import ray
from courses import assert_each_transition_once_and_in_order, hang_in, remote_config
from helpers import MEMBERS, learner_of, rows_of, small_config

from rllib_cikd import CIKD


def test_remote_env_runners(build):
    algo = build(remote_config(2, num_envs=3, fragment=33, assess_distillation=True))
    results = [algo.train() for _ in range(3)]
    rows = rows_of(algo)
    steps = results[-1]["num_env_steps_sampled_lifetime"]
    assert len(rows["rewards"]) == steps >= 300
    assert algo.history.num_updates == steps - 50
    assert assert_each_transition_once_and_in_order(rows) == 2 * 3
    finished = sum(results[-1]["ensemble"]["episodes_lifetime"].values())
    assert finished == results[-1]["env_runners"]["num_episodes_lifetime"]
    # At the first phase there may be no R_k yet: the warm-up's episodes do not count.
    phases = results[-1]["ensemble"]
    assert phases["num_skipped_phases_lifetime"] <= 1
    due = phases["num_distillations_lifetime"] + phases["num_skipped_phases_lifetime"]
    assert due == steps // 100
    # After each iteration, the remote members equal the learner's.
    own = learner_of(algo).module.get_state(inference_only=True)
    for state in algo.env_runner_group.foreach_env_runner(
        lambda runner: runner.module.get_state(), local_env_runner=False
    ):
        for member in MEMBERS:
            assert all(
                np.array_equal(state[member][name], value) for name, value in own[member].items()
            )
    # Without an evaluation interval the local env runner evaluates.
    assert set(algo.evaluate()["ensemble"]["return_mean"]) == set(MEMBERS)


def test_run_goes_on_when_an_env_runner_is_killed(build):
    algo = build(remote_config(2))
    algo.train()
    manager = algo.env_runner_group._worker_manager
    ray.kill(manager.actors()[1], no_restart=False)
    for _ in range(20):
        result = algo.train()
        if result["fault_tolerance"]["num_remote_worker_restarts"]:
            break
    result = algo.train()
    assert result["fault_tolerance"]["num_remote_worker_restarts"] == 1
    assert result["fault_tolerance"]["num_healthy_workers"] == 2
    steps = algo.history.env_steps
    assert result["timesteps_total"] == steps
    rows = rows_of(algo)
    assert len(rows["rewards"]) == steps
    assert algo.history.num_updates == steps - 50
    # The new env runner has a new environment, which counts from 0 again: look at its part.
    rows = {name: values[rows["obs"][:, 0] == envs.UNIT] for name, values in rows.items()}
    (restart,) = np.flatnonzero(np.diff(rows["obs"][:, 2]) < 0)
    for part in (slice(0, restart + 1), slice(restart + 1, None)):
        course = {name: values[part] for name, values in rows.items()}
        assert assert_each_transition_once_and_in_order(course) == 1


def test_an_env_runner_that_hangs_is_restarted(build, caplog):
    config = remote_config(2)
    algo = build(config.env_runners(sample_timeout_s=5.0))
    hang_in(algo.env_runner_group, "sample_fragment")
    for _ in range(20):
        result = algo.train()
        if result["fault_tolerance"]["num_remote_worker_restarts"]:
            break
    assert result["fault_tolerance"]["num_remote_worker_restarts"] == 1
    assert result["timesteps_total"] == len(rows_of(algo)["rewards"]) > 100
    (warning,) = [message for message in caplog.messages if "did not answer" in message]
    assert warning.startswith(
        "Env runner 1 did not answer within `sample_timeout_s` (5.0 s) and is"
    )


def test_training_stops_when_no_env_runner_answers(build):
    config = remote_config(1).env_runners(sample_timeout_s=2.0)
    algo = build(config.fault_tolerance(restart_failed_env_runners=False))
    hang_in(algo.env_runner_group, "sample_fragment")
    with pytest.raises(RuntimeError, match="No env runner has returned samples for 2 s"):
        algo.train()


def test_an_evaluation_env_runner_that_hangs_is_restarted(build, caplog):
    """Its share of the episodes is played here."""
    config = small_config(envs.DriftEnv).evaluation(
        evaluation_interval=1, evaluation_num_env_runners=1, evaluation_sample_timeout_s=3.0
    )
    algo = build(config)
    expected = algo.evaluate_members(3, seed=0)
    hang_in(algo.eval_env_runner_group, "evaluate_members")
    played = algo.evaluate_members(3, seed=0)
    assert played["policy_1"]["returns"] == pytest.approx(expected["policy_1"]["returns"], rel=1e-5)
    assert any("within `evaluation_sample_timeout_s` (3.0 s)" in m for m in caplog.messages)
    assert np.isfinite(algo.train()["evaluation"]["ensemble"]["mean_return_mean"])


def test_evaluation_env_runners_give_the_same_numbers(build, tmp_path):
    """However many share the episodes, and also when there are more of them than episodes."""
    config = small_config(envs.DriftEnv)
    source = build(config)
    source.train()
    path = source.save_to_path(str(tmp_path / "checkpoint"))
    expected = {n: source.evaluate_members(n, seed=4) for n in (1, 5)}
    evaluation = source.evaluate()
    for num_env_runners in (0, 1, 2):
        algo = build(
            small_config(envs.DriftEnv).evaluation(
                evaluation_interval=1, evaluation_num_env_runners=num_env_runners
            )
        )
        algo.restore_from_path(path)
        for num_episodes, played in expected.items():
            other = algo.evaluate_members(num_episodes, seed=4)
            for member in MEMBERS:
                # Shares come one after the other: compare as sets.
                for key in ("returns", "lengths"):
                    assert np.allclose(
                        np.sort(other[member][key]), np.sort(played[member][key]), rtol=1e-5
                    )
        means = algo.evaluate()["ensemble"]["return_mean"]
        assert means == pytest.approx(evaluation["ensemble"]["return_mean"], rel=1e-5)
        result = algo.train()
        assert result["evaluation"]["env_runners"]["num_episodes"] == 9


def test_run_goes_on_when_an_evaluation_env_runner_is_killed(build):
    algo = build(
        small_config(envs.DriftEnv).evaluation(evaluation_interval=1, evaluation_num_env_runners=1)
    )
    algo.train()
    ray.kill(algo.eval_env_runner_group._worker_manager.actors()[1], no_restart=False)
    for _ in range(3):
        result = algo.train()
    returns = result["evaluation"]["ensemble"]["return_mean"]
    assert np.isfinite([returns[member] for member in MEMBERS]).all()


@pytest.fixture(scope="module")
def remote_learner(ray_cluster) -> CIKD:
    """An algorithm with a remote learner, trained for three iterations."""
    algo = small_config(envs.DriftEnv).learners(num_learners=1).build_algo()
    algo.results = [algo.train() for _ in range(3)]
    yield algo
    algo.stop()


def test_remote_learner_does_what_a_local_one_does(remote_learner, build):
    local = build(small_config(envs.DriftEnv))
    results = [local.train() for _ in range(3)]
    for result, expected in zip(remote_learner.results, results, strict=True):
        assert repr(result["ensemble"]["return_mean"]) == repr(expected["ensemble"]["return_mean"])
        for member in MEMBERS:
            ours, theirs = result["learners"][member], expected["learners"][member]
            assert ours["qf_loss"] == pytest.approx(theirs["qf_loss"], rel=1e-3, nan_ok=True)
    (rows,) = ask(remote_learner, lambda learner: learner.replay_buffer.get_state()["rows"])
    assert np.array_equal(rows, learner_of(local).replay_buffer.get_state()["rows"])
    assert remote_learner.evaluate_members(3, seed=0)["policy_1"]["returns"] == pytest.approx(
        local.evaluate_members(3, seed=0)["policy_1"]["returns"], rel=1e-3
    )


def ask(algo: CIKD, question) -> list:
    return [answer.get() for answer in algo.learner_group.foreach_learner(question)]


def test_checkpoints_pass_between_remote_and_local_learners(remote_learner, build, tmp_path):
    path = remote_learner.save_to_path(str(tmp_path / "of_remote"))
    local = build(small_config(envs.DriftEnv, seed=7))
    local.restore_from_path(path)
    (state,) = ask(remote_learner, lambda learner: learner.get_state())
    own = learner_of(local).get_state()
    assert np.array_equal(state["replay_buffer"]["rows"], own["replay_buffer"]["rows"])
    for member in MEMBERS:
        for name, value in state["rl_module"][member].items():
            assert np.array_equal(value, own["rl_module"][member][name]), name
    local.train()
    path = local.save_to_path(str(tmp_path / "of_local"))
    remote_learner.restore_from_path(path)
    (rows,) = ask(remote_learner, lambda learner: learner.replay_buffer.get_state()["rows"])
    assert np.array_equal(rows, learner_of(local).replay_buffer.get_state()["rows"])
    (attached,) = ask(
        remote_learner, lambda learner: all(stack.is_attached() for stack in learner.stacks)
    )
    assert attached
    assert remote_learner.train()["num_env_steps_sampled_lifetime"] == 500


def fail_to_share(learner) -> None:
    def share_knowledge(teacher):
        raise RuntimeError("no knowledge today")

    learner.share_knowledge = share_knowledge


def test_remote_learner_that_fails_in_a_phase_stops_the_run(build):
    algo = build(small_config(envs.DriftEnv).learners(num_learners=1))
    ask(algo, fail_to_share)
    with pytest.raises(RuntimeError, match="no knowledge today"):
        [algo.train() for _ in range(3)]  # the first phase with a candidate is among these


def test_remote_learner_that_is_killed_stops_the_run(build):
    algo = build(small_config(envs.DriftEnv).learners(num_learners=1))
    algo.train()
    ray.kill(algo.learner_group._worker_manager.actors()[0])
    with pytest.raises(ray.exceptions.RayActorError):
        algo.train()


def test_broken_remote_environment_stops_the_run(build):
    config = small_config(
        envs.CountingEnv, env_config={"broken": "reward", "broken_at": 83}
    ).env_runners(num_env_runners=1)
    algo = build(config)
    with pytest.raises(ValueError, match=r"non-finite reward.*policy_\d was acting"):
        algo.train()
    assert np.isfinite(rows_of(algo)["rewards"]).all()


def test_unsupported_remote_environment_is_named(ray_cluster):
    config = small_config(points.Buttons).env_runners(num_env_runners=1)
    with pytest.raises(ValueError, match="MultiBinary is not supported"):
        config.build_algo()
