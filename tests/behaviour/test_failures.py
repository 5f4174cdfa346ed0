"""What is not finite stops the run, says where it came from, and is not stored."""

from __future__ import annotations

import envs
import numpy as np
import pytest
import torch
from helpers import learner_of, rows_of, small_config, train

from rllib_cikd.common.errors import NotSound
from rllib_cikd.rllib.manifest import check_checkpoint


@pytest.mark.parametrize(
    ("broken", "quantity", "fragment"),
    [("observation", "observation", 1), ("reward", "reward", 50), ("huge_reward", "reward", 7)],
)
def test_broken_environment_stops_the_run(build, broken, quantity, fragment):
    config = small_config(
        envs.CountingEnv, env_config={"broken": broken, "broken_at": 83}, fragment=fragment
    )
    algo = build(config)
    with pytest.raises(ValueError, match=f"non-finite {quantity}") as error:
        train(algo, 200)
    near = int(str(error.value).split("near environment step ")[1].split(",")[0])
    assert abs(near - 83) <= 1
    stored = learner_of(algo).replay_buffer.get_state()["rows"]
    assert np.isfinite(stored).all()
    assert len(stored) <= 83


def test_the_message_names_the_member_that_acted(build):
    acting = []
    config = small_config(
        envs.CountingEnv, env_config={"broken": "reward", "broken_at": 83}
    ).callbacks(
        on_episode_start=lambda episode, **kwargs: acting.append(episode),
    )
    algo = build(config)
    with pytest.raises(ValueError, match="non-finite reward") as error:
        train(algo, 200)
    # The 17th episode (of 5 steps each) holds step 83.
    assert f"while {acting[16].module_for('agent_0')} was acting" in str(error.value)


@pytest.mark.parametrize("member", [0, 2])
def test_loss_that_is_not_finite_stops_the_run(build, member):
    algo = build(small_config(envs.DriftEnv))
    algo.train()
    with torch.no_grad():
        learner_of(algo).stacks[0].critics.biases[0][member, 0, 0] = float("nan")
    with pytest.raises(RuntimeError, match=f"qf_loss of policy_{member} became nan after 150"):
        algo.train()


def test_action_that_is_not_finite_stops_the_run(build):
    """A policy that has diverged must not fill the buffer: the environment may not mind."""
    algo = build(small_config(envs.CountingEnv, num_steps_sampled_before_learning_starts=1000))
    algo.train()
    with torch.no_grad():
        learner_of(algo).stacks[0].policy.biases[0].fill_(float("nan"))
    algo._sync_weights()
    with pytest.raises((ValueError, RuntimeError), match="action"):
        algo.train()
    assert np.isfinite(rows_of(algo)["actions"]).all()


def test_distillation_that_diverges_stops_the_run(build, tmp_path):
    """At once: R_k would elect one of the spoilt members' teachers, and a checkpoint hold them."""
    algo = build(small_config(envs.DriftEnv, steps_per_iteration=50))
    algo.train()
    learner_of(algo).config.distillation_lr = 1e30
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    with pytest.raises(NotSound) as error:
        train(algo, 400)
    message = str(error.value)
    assert "of policy_" in message
    assert ": not finite after phase 1 of knowledge_sharing='distillation'" in message
    assert "(distillation_lr=0.001), at environment step " in message
    assert f"the last sound checkpoint is {path}" in message
    with pytest.raises(NotSound, match="not finite before a checkpoint was written"):
        algo.save_to_path(path)
    check_checkpoint(path)  # the sound one was not touched


@pytest.mark.parametrize(
    ("quantity", "spoil"),
    [
        ("policy", lambda stack, update: stack.policy.biases[1][1]),
        ("critics", lambda stack, update: stack.critics.weights[0][4]),
        ("target critics", lambda stack, update: stack.target_critics.biases[0][1]),
        ("temperature", lambda stack, update: stack.log_alpha.detach()[1:2]),
        (
            "moments of the critic optimiser",
            lambda stack, update: stack.critics.split(
                update.optimizers["critic"].state[stack.critics.parameters]["exp_avg"]
            )[2][4],
        ),
    ],
)
def test_nothing_unsound_is_saved(build, tmp_path, quantity, spoil):
    algo = build(small_config(envs.DriftEnv))
    algo.train()
    update = learner_of(algo).updates[0]
    spoil(update.stack, update).view(-1)[0] = float("inf")
    with pytest.raises(NotSound, match=f"^{quantity} of policy_1: .* there is no checkpoint yet"):
        algo.save_to_path(str(tmp_path / "checkpoint"))
    assert not (tmp_path / "checkpoint").exists()
