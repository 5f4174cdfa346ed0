"""`load_policy`: a member of a checkpoint as a function of one observation."""

from __future__ import annotations

import envs
import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import small_config, train

from rllib_cikd import load_policy
from rllib_cikd.algorithm.history import History
from rllib_cikd.rllib.policy import best_member

OBSERVATION = np.array([0.3, -0.2], np.float32)


@pytest.fixture(scope="module")
def trained(ray_cluster, tmp_path_factory):
    """An algorithm of two members that has elected one, and its checkpoint."""
    algo = small_config(envs.DriftEnv, ensemble_size=2).build_algo()
    train(algo, 300)
    yield algo, algo.save_to_path(tmp_path_factory.mktemp("run") / "trial" / "checkpoint")
    algo.stop()


def mean_action(algo, member: str) -> np.ndarray:
    """In `DriftEnv`'s bounds, -2 and 1."""
    with torch.no_grad():
        action = algo.get_module(member).deterministic_actions(torch.from_numpy(OBSERVATION)[None])
    return action[0].numpy() * 1.5 - 0.5


@pytest.mark.parametrize("member", ["policy_0", "policy_1", 0, 1])
def test_actions_are_those_of_training_in_the_environments_units(trained, member):
    algo, path = trained
    policy = load_policy(path, member)
    action = policy(OBSERVATION)
    assert action.dtype == policy.action_space.dtype
    assert policy.action_space.contains(action)
    assert np.allclose(action, mean_action(algo, policy.member), atol=1e-6)
    assert np.array_equal(action, policy(OBSERVATION.tolist()))


def test_members_by_what_they_are(trained):
    algo, path = trained
    assert load_policy(path, "elected").member == algo.elected_policy_id
    assert load_policy(path).member == algo.best_policy_id


def test_the_best_of_the_last_evaluation_goes_first():
    history = History(3, 5)
    assert best_member(history) == 0
    history.returns.record(1, 10.0)
    assert best_member(history) == 1
    history.evaluation_best = 2
    assert best_member(history) == 2


def test_a_folder_above_and_a_relative_path(trained, monkeypatch):
    _, path = trained
    action = load_policy(path)(OBSERVATION)
    monkeypatch.chdir(f"{path}/..")
    assert np.array_equal(load_policy("..")(OBSERVATION), action)
    assert np.array_equal(load_policy("checkpoint")(OBSERVATION), action)


def test_drawn_actions_follow_the_seed(trained):
    _, path = trained
    first, again, other = (
        np.array([policy(OBSERVATION) for _ in range(50)])
        for policy in (load_policy(path, deterministic=False, seed=seed) for seed in (1, 1, 2))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(np.unique(first, axis=0)) == 50


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (np.zeros(3, np.float32), r"^observation: an observation of shape \(3,\) instead of \(2,"),
        (np.zeros((4, 2), np.float32), r"shape \(4, 2\) instead of \(2,\). Give one observation"),
        (np.array([np.nan, 0.0], np.float32), "non-finite"),
        (None, "^observation: None for observation"),
    ],
)
def test_observations_of_another_form(trained, observation, words):
    with pytest.raises(ValueError, match=words):
        load_policy(trained[1])(observation)


@pytest.mark.parametrize("member", ["policy_2", "worst", 2, -1])
def test_a_member_that_is_not_there(trained, member):
    with pytest.raises(ValueError, match=f"^member={member!r}: give .* policy_0, policy_1, or its"):
        load_policy(trained[1], member)


def test_nobody_elected_yet(build, tmp_path):
    path = build(small_config(envs.DriftEnv, ensemble_size=2)).save_to_path(tmp_path / "c")
    assert load_policy(path).member == "policy_0"
    with pytest.raises(ValueError, match=r"^member='elected': no member has finished"):
        load_policy(path, "elected")


def test_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="no RLlib checkpoint in it"):
        load_policy(tmp_path)


def test_spaces_of_parts(build, tmp_path):
    """Whatever the environment's own form is."""
    own = {
        "observation_space": spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-1, 1, (2, 2))}),
        "action_space": spaces.Tuple([spaces.Box(0, 9, (2,), np.int64), spaces.Box(-3, 5, (1, 1))]),
    }
    algo = build(small_config(envs.SpacesEnv, env_config=own, ensemble_size=2))
    policy = load_policy(algo.save_to_path(tmp_path / "c"), deterministic=False, seed=0)
    for seed in range(5):
        own["observation_space"].seed(seed)
        assert own["action_space"].contains(policy(own["observation_space"].sample()))


def test_discrete_actions_and_normalised_observations(build, tmp_path):
    own = {
        "observation_space": spaces.Box(-500, 500, (3,), np.float32, seed=0),
        "action_space": spaces.Discrete(4, start=-1),
    }
    config = small_config(envs.SpacesEnv, env_config=own, ensemble_size=2)
    algo = build(config.env_runners(observation_filter="MeanStdFilter"))
    train(algo, 200)
    policy = load_policy(algo.save_to_path(tmp_path / "c"), "policy_1")
    module = algo.get_module("policy_1")
    assert module.obs_deviation.min() > 50
    for observation in (own["observation_space"].sample() for _ in range(20)):
        one_hot = module.deterministic_actions(torch.from_numpy(observation)[None])
        assert policy(observation) == int(one_hot.argmax()) - 1
