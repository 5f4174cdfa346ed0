"""An ensemble of CrossQ members: trained, stored, gone on with, deployed."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from helpers import assert_same_state, full_state, learner_of, small_config, train, weights_of

from rllib_cikd import CIKD, CIKDConfig, load_policy
from rllib_cikd.rllib.evaluation import evaluation_seeds


def config(env: str = "Pendulum-v1", **training) -> CIKDConfig:
    model = {"fcnet_hiddens": [16, 16], "batch_norm": True}
    settings = {"policy_delay": 3, "adam_beta1": 0.5} | training
    return small_config(env, **settings).rl_module(model_config=model)


@pytest.fixture
def trained(build) -> CIKD:
    algo = build(config())
    train(algo, 400)
    return algo


def test_members_learn_teach_and_are_deployed_as_they_are(trained, build, tmp_path):
    """Target critics stay; statistics are members' own; a policy outside acts as the one inside."""
    start = build(config())
    assert trained.history.num_phases > 0
    for prefix, moves in (("policy.", True), ("qf1.", True), ("qf2.", True), ("target_", False)):
        before, after = weights_of(start, prefix), weights_of(trained, prefix)
        for member in before:
            assert np.array_equal(before[member], after[member]) != moves, (prefix, member)
    first, second = (learner_of(trained).module[m].policy[0].mean for m in ("policy_0", "policy_1"))
    assert not np.array_equal(first, second)
    updates = learner_of(trained).updates[0].optimizers
    critic, actor = (next(iter(updates[n].state.values()))["step"] for n in ("critic", "actor"))
    assert int(actor) == -(-int(critic) // 3)

    path = trained.save_to_path(str(tmp_path / "checkpoint"))
    policy, env = load_policy(path, "policy_1"), gym.make("Pendulum-v1")
    seed, total = 7, 0.0
    played = trained.evaluate_members(1, seed=seed)["policy_1"]["returns"][0]
    observation, _ = env.reset(seed=evaluation_seeds([seed], 1)[0])
    for _ in range(200):
        observation, reward, *_ = env.step(policy(observation))
        total += reward
    assert total == pytest.approx(played, rel=1e-6)


def test_a_restored_run_goes_on_to_the_same_bits(trained, tmp_path):
    """Also in the middle of a round of `policy_delay` updates."""
    path = trained.save_to_path(str(tmp_path / "checkpoint"))
    ends = []
    for _ in range(2):
        restored = CIKD.from_checkpoint(path)
        assert_same_state(
            {k: v for k, v in full_state(restored).items() if k.startswith(("w", "o"))},
            {k: v for k, v in full_state(trained).items() if k.startswith(("w", "o"))},
        )
        train(restored, 600)
        ends.append(full_state(restored))
        restored.stop()
    assert_same_state(*ends)


def test_another_beta_holds_after_a_restore(trained, tmp_path):
    path = trained.save_to_path(str(tmp_path / "checkpoint"))
    restored = CIKD.from_checkpoint(path, config={"adam_beta1": 0.25, "policy_delay": 1})
    for optimizer in learner_of(restored).updates[0].optimizers.values():
        assert optimizer.param_groups[0]["betas"] == (0.25, 0.999)
    restored.stop()


def test_remote_env_runners_get_the_statistics(build):
    algo = build(config().env_runners(num_env_runners=1))
    train(algo, 300)
    norms = algo.env_runner_group.foreach_env_runner(
        lambda runner: runner.module["policy_0"].policy[0].state_dict(), local_env_runner=False
    )
    own = learner_of(algo).module["policy_0"].policy[0].state_dict()
    assert set(norms[0]) == {"gain", "offset", "mean", "variance"}
    for name, value in own.items():
        assert np.array_equal(norms[0][name], value), name
        assert len(set(value.tolist())) > 1


def test_discrete_actions_are_refused(build):
    with pytest.raises(ValueError, match="batch_norm=True is for continuous actions"):
        build(config("CartPole-v1"))
