"""Evaluation: every member, exactly so many deterministic episodes, and nothing else touched."""

from __future__ import annotations

import math

import envs
import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers import MEMBERS, flat, learner_of, rows_of, same, small_config, weights_of

from rllib_cikd.rllib.evaluation import (
    assessment,
    evaluation_seeds,
    no_evaluation_yet,
    summarize,
)

# ---------------------------------------------------------------- summaries, by hand


def test_summary_of_an_evaluation():
    """Mean returns 2, 5 and -1: member 1 is best, and its episodes have 4 and 8 steps. Elected was
    member 0, by R_k."""
    returns = np.array([[1.0, 3.0], [4.0, 6.0], [-9.0, 7.0]])
    lengths = np.array([[1, 2], [4, 8], [16, 32]])
    summary = summarize(returns, lengths, elected=0, env_steps=700)
    assert summary["ensemble"] == {
        "return_mean": {"policy_0": 2.0, "policy_1": 5.0, "policy_2": -1.0},
        "best_return_mean": 5.0,
        "worst_return_mean": -1.0,
        "mean_return_mean": 2.0,
        "elected_return_mean": 2.0,
        "best_policy": 1,
        "num_env_steps_sampled_lifetime": 700,
    }
    assert summary["env_runners"] == {
        "episode_return_mean": 5.0,
        "episode_return_min": 4.0,
        "episode_return_max": 6.0,
        "episode_len_mean": 6.0,
        "num_episodes": 6,
        "num_env_steps_sampled": 63,
    }
    nobody = summarize(returns, lengths, elected=None, env_steps=700)["ensemble"]
    assert math.isnan(nobody["elected_return_mean"])


def test_before_the_first_evaluation_there_are_the_same_keys_without_numbers():
    nothing = flat(no_evaluation_yet(3))
    summary = flat(summarize(np.zeros((3, 1)), np.ones((3, 1)), elected=0, env_steps=1))
    assert set(summary) < set(nothing)
    assert all(math.isnan(value) for value in nothing.values())


@pytest.mark.parametrize(
    ("after", "above"),
    [([5.0, 4.0, 3.0], 0.5), ([4.0, 4.0, 4.0], 0.0), ([5.0, 4.0, 4.5], 1.0)],
)
def test_assessment_of_a_phase(after, above):
    """Member 1 taught; who is above it afterwards? Equal is not above."""
    assert assessment(1, [1.0, 4.0, 2.0], after) == {
        "return_before": {0: 1.0, 1: 4.0, 2: 2.0},
        "return_after": dict(enumerate(after)),
        "students_above_teacher": above,
        "teacher_was_best": 1.0,
        "election_regret": 0.0,
    }


def test_assessment_of_an_election_that_was_wrong():
    """Before the phase the members had 1, 4 and 2; member 2 was elected, and gave 4 - 2 away."""
    report = assessment(2, [1.0, 4.0, 2.0], [1.0, 4.0, 2.0])
    assert (report["teacher_was_best"], report["election_regret"]) == (0.0, 2.0)


def test_assessment_of_a_lone_member():
    assert math.isnan(assessment(0, [1.0], [2.0])["students_above_teacher"])


# ---------------------------------------------------------------- episodes


def play_by_hand(algo, env: gym.Env, member: str, seeds: list[int]) -> tuple[list, list]:
    """Returns and lengths of episodes in a plain environment, with RLlib's inference forward."""
    module = learner_of(algo).module[member]
    returns, lengths = [], []
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        total, length, done = 0.0, 0, False
        while not done:
            batch = {"obs": torch.as_tensor(observation, dtype=torch.float32)[None]}
            action = module.forward_inference(batch)["actions"][0].numpy()
            # From [-1, 1] to the bounds, as the textbook has it.
            low, high = env.action_space.low, env.action_space.high
            observation, reward, terminated, truncated, _ = env.step(
                low + (action + 1.0) * (high - low) / 2.0
            )
            total, length, done = total + float(reward), length + 1, terminated or truncated
        returns.append(total)
        lengths.append(length)
    return returns, lengths


@pytest.mark.parametrize(
    ("env", "episodes"), [(envs.DriftEnv, 7), ("Pendulum-v1", 3), ("Reacher-v5", 2)]
)
def test_equals_a_plain_loop_over_episodes(build, env, episodes):
    algo = build(small_config(env))
    algo.train()
    played = algo.evaluate_members(episodes, seed=11)
    plain = gym.make(env) if isinstance(env, str) else env()
    assert list(played) == list(MEMBERS)
    for member in MEMBERS:
        returns, lengths = play_by_hand(algo, plain, member, evaluation_seeds([11], episodes))
        assert np.array_equal(played[member]["lengths"], lengths)
        assert played[member]["returns"] == pytest.approx(returns, rel=1e-4)
    assert len({tuple(played[member]["returns"]) for member in MEMBERS}) == 3


def test_episodes_end_where_they_should(build):
    """Terminating, truncating and single-step episodes, each counted for itself."""
    for lengths, ends in [([4], ["terminates"]), ([9], ["truncates"]), ([1], ["terminates"])]:
        env_config = {"lengths": lengths, "ends": ends}
        algo = build(small_config(envs.CountingEnv, env_config=env_config))
        played = algo.evaluate_members(3, seed=0)
        for member in MEMBERS:
            assert played[member]["lengths"].tolist() == lengths * 3
            expected = sum(range(1, lengths[0] + 1)) * envs.UNIT
            assert played[member]["returns"].tolist() == [expected] * 3


def test_episodes_of_different_lengths(build):
    algo = build(small_config(envs.DriftEnv, env_config={"gain": 0.1}))
    algo.train()
    lengths = np.stack([m["lengths"] for m in algo.evaluate_members(30, seed=3).values()])
    assert lengths.shape == (3, 30)
    assert len(np.unique(lengths)) > 3


def test_results_of_evaluate(build):
    algo = build(small_config(envs.DriftEnv).evaluation(evaluation_duration=6))
    algo.train()
    played = algo.evaluate_members()
    results = algo.evaluate()
    means = {member: played[member]["returns"].mean() for member in MEMBERS}
    ensemble = results["ensemble"]
    assert ensemble["return_mean"] == means
    assert ensemble["best_return_mean"] == max(means.values())
    assert ensemble["worst_return_mean"] == min(means.values())
    assert ensemble["mean_return_mean"] == pytest.approx(np.mean(list(means.values())))
    best = max(means, key=means.get)
    assert f"policy_{ensemble['best_policy']}" == best
    elected = ensemble["elected_return_mean"]
    assert elected == means[algo.elected_policy_id]
    runners = results["env_runners"]
    assert runners["episode_return_mean"] == means[best]
    assert runners["episode_return_min"] == played[best]["returns"].min()
    assert runners["episode_return_max"] == played[best]["returns"].max()
    assert runners["episode_len_mean"] == played[best]["lengths"].mean()
    assert runners["num_episodes"] == 18


def test_every_member_plays_exactly_the_duration(build):
    algo = build(
        small_config(envs.DriftEnv).evaluation(evaluation_interval=1, evaluation_duration=7)
    )
    result = algo.train()["evaluation"]
    assert result["env_runners"]["num_episodes"] == 21
    played = algo.evaluate_members()
    assert all(len(member["returns"]) == 7 for member in played.values())
    assert all(len(algo.evaluate_members(n)["policy_1"]["returns"]) == n for n in (1, 10, 2))


def test_repeated_evaluation_gives_the_same_numbers(build):
    algo = build(small_config("Pendulum-v1", steps_per_iteration=200))
    algo.train()
    first, second = algo.evaluate(), algo.evaluate()
    assert first == second
    algo.train()
    third = algo.evaluate()
    assert third["ensemble"]["return_mean"] != first["ensemble"]["return_mean"]


def test_seed_of_the_episodes(build):
    """Explicit seeds give the same episodes at any time; else they change with training."""
    algo = build(small_config(envs.DriftEnv))
    starts = []
    for seed in (5, 5, 6, None, None):
        envs.DriftEnv.first_observations.clear()
        algo.evaluate_members(3, seed=seed)
        starts.append(list(envs.DriftEnv.first_observations))
    assert starts[0] == starts[1] != starts[2]
    assert starts[3] == starts[4]
    # Every member starts from the same states.
    assert starts[0][:3] == starts[0][3:6] == starts[0][6:]
    assert len(set(starts[0])) == 3
    algo.train()
    envs.DriftEnv.first_observations.clear()
    algo.evaluate_members(3)
    assert envs.DriftEnv.first_observations != starts[3]


def test_without_a_seed_evaluations_differ(build):
    algo = build(small_config(envs.DriftEnv, seed=None))
    assert algo.evaluate() != algo.evaluate()


@pytest.mark.parametrize("interval", [None, 100])
def test_training_is_not_disturbed_by_evaluation(build, interval):
    """With and without an evaluation env runner of its own."""
    runs = []
    for evaluate in (False, True):
        algo = build(small_config("Pendulum-v1").evaluation(evaluation_interval=interval))
        for _ in range(3):
            result = algo.train()
            if evaluate:
                algo.evaluate()
        runs.append((weights_of(algo), rows_of(algo), result["ensemble"]["return_mean"]))
    assert all(same(runs[0][0], runs[1][0]).values())
    for name, values in runs[0][1].items():
        assert np.array_equal(values, runs[1][1][name]), name
    assert repr(runs[0][2]) == repr(runs[1][2])


def test_evaluation_goes_by_iterations_and_its_result_stays(build):
    config = small_config(envs.DriftEnv).evaluation(evaluation_interval=2)
    algo = build(config)
    results = [algo.train()["evaluation"]["ensemble"] for _ in range(5)]
    steps = [result["num_env_steps_sampled_lifetime"] for result in results]
    assert np.isnan(steps[0])
    assert steps[1:] == [200, 200, 400, 400]
    assert results[1]["return_mean"] == results[2]["return_mean"] != results[3]["return_mean"]


def test_results_of_one_iteration_do_not_change_later(build):
    """Who keeps results must not see them altered by the next iteration."""
    algo = build(small_config(envs.DriftEnv).evaluation(evaluation_interval=2))
    results = [algo.train() for _ in range(3)]
    results[1]["evaluation"]["mark"] = "written by the user"
    assert "mark" not in results[2]["evaluation"]
    assert "mark" not in algo.train()["evaluation"]


@pytest.mark.parametrize("broken", ["reward", "observation"])
def test_broken_environment_stops_the_evaluation(build, broken):
    """A return that is not a number must not pass for the best one."""
    config = small_config(envs.CountingEnv, env_config={"broken": broken, "broken_at": 3})
    algo = build(config)
    with pytest.raises((ValueError, RuntimeError), match=f"(?i)non-finite {broken}.*policy_0"):
        algo.evaluate()


def test_real_task(build):
    algo = build(
        small_config("HalfCheetah-v5", random_steps=60).evaluation(
            evaluation_interval=1, evaluation_duration=1
        )
    )
    result = algo.train()["evaluation"]
    assert result["env_runners"]["episode_len_mean"] == 1000
    assert result["env_runners"]["num_env_steps_sampled"] == 3000
    returns = result["ensemble"]["return_mean"]
    assert len(set(returns.values())) == 3
    assert np.isfinite(list(returns.values())).all()
