"""Checkpoints hold all that training needs, and it comes back, here and in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    MEMBERS,
    assert_same_state,
    eventful_config,
    full_state,
    learner_of,
    same,
    weights_of,
)
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.rl_module import RLModule

from rllib_cikd import CIKD

TESTS = Path(__file__).parents[1]


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
    assert_same_state(full_state(restored), full_state(algo))
    assert repr(restored.history.return_means()) == repr(algo.history.returns.means())
    assert restored.elected_policy_id == algo.elected_policy_id
    assert restored.evaluate() == algo.evaluate()
    assert all(stack.is_attached() for stack in learner_of(restored).stacks)


def test_restored_into_an_algorithm_of_the_same_config(trained, build):
    algo, path = trained
    other = build(eventful_config())
    other.train()
    other.restore_from_path(path)
    assert_same_state(full_state(other), full_state(algo))
    assert all(stack.is_attached() for stack in learner_of(other).stacks)


FRESH_PROCESS = """
import json, sys
import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
path, out = sys.argv[1:]
algo = Algorithm.from_checkpoint(path)
import helpers  # for what is looked at; the package must come with the checkpoint

np.savez(out + ".npz", **helpers.full_state(algo))
evaluations = [algo.evaluate() for _ in range(2)]
means = algo.history.return_means()
result = algo.train()
with open(out + ".json", "w") as file:
    json.dump(
        {
            "evaluations": evaluations,
            "return_means": means,
            "iteration": result["training_iteration"],
            "steps": result["num_env_steps_sampled_lifetime"],
            "transitions": helpers.learner_of(algo).replay_buffer.num_added,
            "attached": all(s.is_attached() for s in helpers.learner_of(algo).stacks),
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
        assert_same_state(dict(restored), full_state(algo))
    report = json.loads(out.with_suffix(".json").read_text())
    first, second = report["evaluations"]
    assert first == second
    assert set(first["ensemble"]["return_mean"]) == set(MEMBERS)
    here = algo.evaluate()["ensemble"]["return_mean"]
    assert first["ensemble"]["return_mean"] == pytest.approx(here, rel=1e-5)
    assert repr(report["return_means"]) == repr(algo.history.return_means())
    assert report["iteration"] == algo.iteration + 1
    assert algo.history.env_steps + 100 <= report["steps"] < algo.history.env_steps + 107
    assert report["transitions"] == report["steps"]
    assert report["attached"]


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
