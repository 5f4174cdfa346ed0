"""Checkpoints: everything that training needs comes back, in this process and in a fresh one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import envs
import numpy as np
import pytest
import torch
from helpers import learner_of, rows_of, same, small_config, weights_of
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.rl_module import RLModule

from rllib_cikd import CIKD

TESTS = Path(__file__).parent
MEMBERS = ("policy_0", "policy_1", "policy_2")


def optimizer_state(algo: CIKD) -> dict[str, np.ndarray]:
    """Steps and moments of every Adam, by optimiser, parameter and name."""
    return {
        f"{i}/{name}/{parameter}/{key}": np.array(value)
        for i, update in enumerate(learner_of(algo).updates)
        for name, optimizer in update.optimizers.items()
        for parameter, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def everything(algo: CIKD) -> dict[str, np.ndarray]:
    """All state that training goes on from."""
    runner = algo.env_runner
    buffer = learner_of(algo).replay_buffer.get_state()
    own = algo.get_state(components="cikd")["cikd"]
    history = own["history"]
    plain = {name: history[name] for name in ("env_steps", "num_updates", "num_phases", "teacher")}
    return {
        "iteration": np.array(algo.iteration),
        **{f"own/{name}": np.array(value, dtype=float) for name, value in plain.items()},
        "stored": np.array(algo.history.stored),
        "times_teacher": np.array(history["times_teacher"]),
        "episodes": np.array(history["episodes"]),
        "returns": np.array([json.dumps(window) for window in history["returns"]]),
        "election_generator": np.array(json.dumps(own["rng"])),
        "learner_generator": learner_of(algo)._generator.get_state().numpy(),
        "selection_generator": np.array(json.dumps(runner._selection_rng.bit_generator.state)),
        "exploration_generator": runner._exploration_rng.get_state().numpy(),
        **{f"buffer/{name}": np.asarray(value) for name, value in buffer.items()},
        **{f"weights/{member}": value for member, value in weights_of(algo).items()},
        **{f"log_alpha/{m}": value for m, value in weights_of(algo, "log_alpha").items()},
        **{f"optimizer/{name}": value for name, value in optimizer_state(algo).items()},
    }


def assert_same_state(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert set(a) == set(b)
    different = [name for name in a if not np.array_equal(a[name], b[name])]
    assert not different


def eventful_config(**settings):
    """Has an election behind it, a fraction of an update owed, n-step links, an odd fragment."""
    return small_config(
        envs.DriftEnv,
        fragment=7,
        teacher_election="random",
        policy_selection="softmax",
        training_intensity=5,
        n_step=2,
        **settings,
    )


@pytest.fixture(scope="module")
def trained(ray_cluster, tmp_path_factory):
    """A trained algorithm and its checkpoint; tests must not train it on."""
    algo = eventful_config().build_algo()
    for _ in range(4):
        algo.train()
    assert algo.history.num_phases >= 3
    assert (algo.history.stored - 50) * algo.config.updates_per_step % 1 != 0
    path = algo.save_to_path(str(tmp_path_factory.mktemp("checkpoint")))
    yield algo, path
    algo.stop()


@pytest.fixture
def restore(trained):
    """Restores the checkpoint, or another one; stopped at the end of the test."""
    restored = []

    def restore_checkpoint(path=None, load=CIKD.from_checkpoint) -> CIKD:
        restored.append(load(path or trained[1]))
        return restored[-1]

    yield restore_checkpoint
    for algo in restored:
        algo.stop()


@pytest.mark.parametrize("load", [CIKD.from_checkpoint, Algorithm.from_checkpoint])
def test_from_checkpoint_restores_everything(trained, restore, load):
    algo, path = trained
    restored = restore(path, load)
    assert type(restored) is CIKD
    assert_same_state(everything(restored), everything(algo))
    assert repr(restored.history.returns.means()) == repr(algo.history.returns.means())
    assert restored.elected_policy_id == algo.elected_policy_id
    assert restored.evaluate() == algo.evaluate()
    assert all(stack.is_attached() for stack in learner_of(restored).stacks)


def test_restored_into_an_algorithm_of_the_same_config(trained, build):
    algo, path = trained
    other = build(eventful_config())
    other.train()
    other.restore_from_path(path)
    assert_same_state(everything(other), everything(algo))
    assert all(stack.is_attached() for stack in learner_of(other).stacks)


def test_training_goes_on_the_same_from_the_same_checkpoint(restore, trained):
    """Two restored runs are bit-identical, and go on from the step of the checkpoint."""
    algo, _ = trained
    one, two = restore(), restore()
    for _ in range(2):
        first, second = one.train(), two.train()
    assert_same_state(everything(one), everything(two))
    assert repr(first["ensemble"]["return_mean"]) == repr(second["ensemble"]["return_mean"])
    assert first["training_iteration"] == algo.iteration + 2
    assert first["num_env_steps_sampled_lifetime"] == one.history.env_steps
    assert algo.history.env_steps + 200 <= one.history.env_steps < algo.history.env_steps + 220
    assert first["ensemble"]["num_distillations_lifetime"] >= algo.history.num_phases + 2
    learner, old = learner_of(one), rows_of(algo)
    assert learner.replay_buffer.num_added == one.history.env_steps
    for name, values in rows_of(one).items():
        assert np.array_equal(values[: algo.history.env_steps], old[name]), name


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
        for episode_return in window
    }
    assert returns == {(sum(range(1, 31)) + 30 * e) * envs.UNIT for e in range(3)}


def test_a_live_algorithm_starts_new_episodes_after_a_restore(build):
    """The episode that its environment is in belongs to another past."""
    config = small_config(envs.CountingEnv, env_config={"lengths": [30]}, fragment=20)
    algo = build(config)
    algo.train()
    path = algo.save_to_path()
    algo.restore_from_path(path)
    finished = sum(algo.history.episodes)
    algo.train()
    steps = rows_of(algo)["obs"][100:, 3] / envs.UNIT
    assert steps.tolist() == [step % 30 for step in range(100)]
    assert sum(algo.history.episodes) == finished + 3


def test_new_start_states_after_a_restore(build, restore):
    """A restored run must not play the first episodes of the run again."""
    algo = build(small_config(envs.DriftEnv))
    algo.train()
    path = algo.save_to_path()
    first = list(envs.DriftEnv.first_observations)
    envs.DriftEnv.first_observations.clear()
    restore(path).train()
    assert not set(first) & set(envs.DriftEnv.first_observations)


def test_older_checkpoint_into_a_live_algorithm(build):
    """Evaluation and training use the restored networks, not the newer ones."""
    algo = build(small_config(envs.DriftEnv))
    algo.train()
    old_state, old_result = everything(algo), algo.evaluate_members(4, seed=1)
    path = algo.save_to_path()
    for _ in range(3):
        algo.train()
    newer = algo.evaluate_members(4, seed=1)
    algo.restore_from_path(path)
    assert_same_state(everything(algo), old_state)
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


FRESH_PROCESS = """
import json, sys
import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
path, out = sys.argv[1:]
algo = Algorithm.from_checkpoint(path)
import test_checkpoint  # for what is looked at; the package must come with the checkpoint

np.savez(out + ".npz", **test_checkpoint.everything(algo))
evaluations = [algo.evaluate() for _ in range(2)]
means = algo.history.returns.means()
result = algo.train()
with open(out + ".json", "w") as file:
    json.dump(
        {
            "evaluations": evaluations,
            "return_means": means,
            "iteration": result["training_iteration"],
            "steps": result["num_env_steps_sampled_lifetime"],
            "transitions": test_checkpoint.learner_of(algo).replay_buffer.num_added,
            "attached": all(s.is_attached() for s in test_checkpoint.learner_of(algo).stacks),
        },
        file,
    )
"""


def test_in_a_fresh_process(trained, tmp_path):
    """`Algorithm.from_checkpoint` alone brings the whole training back."""
    algo, path = trained
    script, out = tmp_path / "restore.py", tmp_path / "out"
    script.write_text(FRESH_PROCESS)
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    process = subprocess.run(
        [sys.executable, str(script), path, str(out)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    with np.load(out.with_suffix(".npz")) as restored:
        assert_same_state(dict(restored), everything(algo))
    report = json.loads(out.with_suffix(".json").read_text())
    first, second = report["evaluations"]
    assert first == second
    assert set(first["ensemble"]["return_mean"]) == set(MEMBERS)
    here = algo.evaluate()["ensemble"]["return_mean"]
    assert first["ensemble"]["return_mean"] == pytest.approx(here, rel=1e-5)
    assert repr(report["return_means"]) == repr(algo.history.returns.means())
    assert report["iteration"] == algo.iteration + 1
    assert algo.history.env_steps + 100 <= report["steps"] < algo.history.env_steps + 107
    assert report["transitions"] == report["steps"]
    assert report["attached"]


def test_without_the_buffer_learning_waits_until_it_is_filled_again(build, restore, monkeypatch):
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
    phases = []
    share = learner.share_knowledge
    monkeypatch.setattr(
        learner,
        "share_knowledge",
        lambda teacher: phases.append(len(learner.replay_buffer)) or share(teacher),
    )
    restored.training_step()
    assert len(learner.replay_buffer) == 50
    assert all(same(weights_of(restored), before).values()), "learned from too few transitions"
    assert phases == []
    restored.training_step()
    assert restored.history.env_steps == 300
    assert restored.history.num_updates == algo.history.num_updates + 20
    assert phases == [100]
    # No second random phase: the exploring policies act at once.
    assert not restored.get_module("policy_0").act_randomly


def test_one_member_loads_alone(trained):
    algo, path = trained
    module = RLModule.from_checkpoint(f"{path}/learner_group/learner/rl_module/policy_1")
    observations = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    own = learner_of(algo).module["policy_1"]
    batch = {"obs": observations}
    # The learner stores its weights transposed, so that sums may round in another order.
    torch.testing.assert_close(
        module.forward_inference(batch)["actions"], own.forward_inference(batch)["actions"]
    )
    inputs = torch.cat([observations, observations], dim=1)
    for critic in ("qf1", "qf2", "target_qf1", "target_qf2"):
        torch.testing.assert_close(getattr(module, critic)(inputs), getattr(own, critic)(inputs))
    assert torch.equal(module.log_alpha, own.log_alpha)


def test_one_member_into_a_live_algorithm(trained, build):
    algo, path = trained
    other = build(eventful_config(seed=5))
    before = weights_of(other)
    component = "learner_group/learner/rl_module/policy_1"
    other.restore_from_path(f"{path}/{component}", component=component)
    after = weights_of(other)
    assert same(after, weights_of(algo)) == {
        "policy_0": False,
        "policy_1": True,
        "policy_2": False,
    }
    assert same(after, before) == {"policy_0": True, "policy_1": False, "policy_2": True}
    assert all(stack.is_attached() for stack in learner_of(other).stacks)
    played, expected = other.evaluate_members(3, seed=0), algo.evaluate_members(3, seed=0)
    assert np.allclose(played["policy_1"]["returns"], expected["policy_1"]["returns"])
    other.train()


def test_weight_syncs_never_carry_the_buffer(trained):
    algo, _ = trained
    learner = learner_of(algo)
    state = learner.get_state(components=["rl_module"], inference_only=True)
    assert "replay_buffer" not in state
    state = learner.get_state(components=["rl_module/policy_0"])
    assert "replay_buffer" not in state
    assert "generator" not in state
    assert "replay_buffer" in learner.get_state()
    group = algo.learner_group.get_state(
        components=[f"learner/rl_module/{member}" for member in MEMBERS], inference_only=True
    )
    assert "replay_buffer" not in group["learner"]
    # Critics and temperatures do not travel either.
    names = group["learner"]["rl_module"]["policy_0"]
    assert all(name.startswith("policy.") for name in names)


def test_weights_always_apply(trained):
    """RLlib ignores weights with an older sequence number; ours never count up."""
    algo, _ = trained
    assert learner_of(algo)._weights_seq_no == 0
    assert algo.env_runner._weights_seq_no == 0


def test_tune_checkpoint_and_restore(ray_cluster, tmp_path):
    """By name with a plain dict; a run that failed goes on from its last checkpoint."""
    flag = tmp_path / "failed_once"

    def fail_once(algorithm, **kwargs):
        if algorithm.iteration == 3 and not flag.exists():
            flag.touch()
            raise RuntimeError("this run fails once")

    param_space = {
        "env": envs.DriftEnv,
        "ensemble_size": 2,
        "random_steps": 50,
        "distillation_interval": 100,
        "distillation_updates": 3,
        "distillation_batch_size": 8,
        "replay_buffer_config": {"capacity": 5000},
        "min_sample_timesteps_per_iteration": 100,
        "model_config": {"fcnet_hiddens": [16, 16]},
        "evaluation_interval": 2,
        "evaluation_duration": 2,
        "callbacks_on_train_result": fail_once,
        "seed": 0,
        "log_level": "ERROR",
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
