"""R_k, who teaches, and when phases of knowledge sharing happen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import envs
import numpy as np
import pytest
import torch
from helpers import MEMBERS, learner_of, rows_of, small_config, train
from scipy import stats

from rllib_cikd import CIKD
from rllib_cikd.algorithm.history import FinishedEpisode

# ---------------------------------------------------------------------- Election


def return_recorder() -> tuple[list[tuple[int, float]], Callable]:
    """A list, and an `on_episode_end` that adds to it (member, return) of each episode."""
    episodes = []

    def on_episode_end(episode, prev_episode_chunks=(), **kwargs):
        chunks = [*prev_episode_chunks, episode]
        returns = sum(chunk.agent_episodes["agent_0"].get_return() for chunk in chunks)
        episodes.append((int(episode.module_for("agent_0").removeprefix("policy_")), returns))

    return episodes, on_episode_end


@pytest.mark.parametrize("num_envs", [1, 2])
def test_returns_and_election_equal_a_computation_by_hand(build, num_envs):
    episodes, on_episode_end = return_recorder()

    members = [f"policy_{k}" for k in range(4)]
    config = small_config(
        envs.DriftEnv,
        steps_per_iteration=20 * num_envs,
        fragment=20,
        num_envs=num_envs,
        distillation_interval=20 * num_envs,
        return_window=4,
        random_steps=0,
        num_steps_sampled_before_learning_starts=60,
        ensemble_size=4,
    ).callbacks(on_episode_end=on_episode_end)
    algo = build(config)
    times: Counter[int] = Counter()
    for _ in range(20):
        phases_before = algo.history.num_phases
        result = algo.train()["ensemble"]
        by_member = [[r for m, r in episodes if m == k] for k in range(4)]
        r_k = [np.mean(returns[-4:]) if returns else np.nan for returns in by_member]
        for k, member in enumerate(members):
            assert result["return_mean"][member] == pytest.approx(r_k[k], nan_ok=True)
            assert result["episodes_lifetime"][member] == len(by_member[k])
        if result["num_distillations_lifetime"] > phases_before:
            assert result["num_distillations_lifetime"] == phases_before + 1
            assert result["teacher"] == np.nanargmax(r_k)
            times[result["teacher"]] += 1
        assert algo.elected_policy_id == members[np.nanargmax(r_k)]
    assert sum(times.values()) >= 15
    assert result["times_teacher"] == {member: times[k] for k, member in enumerate(members)}
    assert len(times) > 1


def test_old_episodes_no_longer_count(build):
    """Episodes of 10 steps in fragments of 20, three members in rounds, a horizon of 60: those that
    count ended in the last three fragments, two of each member."""
    episodes, on_episode_end = return_recorder()

    config = small_config(
        envs.DriftEnv,
        env_config={"time_limit": 10, "gain": 0.01},
        steps_per_iteration=20,
        fragment=20,
        policy_selection="round",
        return_horizon=60,
        return_window=5,
        random_steps=0,
    ).callbacks(on_episode_end=on_episode_end)
    algo = build(config)
    for _ in range(9):
        result = algo.train()["ensemble"]
        for k in range(3):
            by_member = [r for m, r in episodes[-6:] if m == k]
            r_k = np.mean(by_member) if by_member else np.nan
            assert result["return_mean"][f"policy_{k}"] == pytest.approx(r_k, nan_ok=True)
    assert [sum(m == k for m, _ in episodes[-6:]) for k in range(3)] == [2, 2, 2]


@pytest.mark.parametrize("num_env_runners", [0, 1])
def test_election_by_evaluation_episodes(build, monkeypatch, num_env_runners):
    """Two deterministic episodes of each of three members before each phase: their means elect, and
    they are stored, counted and followed by updates as any others."""
    config = small_config(
        envs.DriftEnv,
        env_config={"time_limit": 30, "gain": 0.5},
        steps_per_iteration=40,
        fragment=40,
        teacher_election="evaluation",
        election_episodes=2,
        distillation_interval=100,
        random_steps=0,
        num_steps_sampled_before_learning_starts=50,
    ).env_runners(num_env_runners=num_env_runners)
    algo = build(config)
    elections = []

    def played(*args, **kwargs):
        result = play(*args, **kwargs)
        for chunk in result.chunks:
            module = learner_of(algo).module[f"policy_{chunk.member}"]
            obs = torch.from_numpy(chunk.observations[:-1])
            with torch.no_grad():
                actions = module.deterministic_actions(obs).numpy()
            assert chunk.actions == pytest.approx(actions, abs=1e-5)
        elections.append(result)
        return result

    play = algo._play_evaluation
    monkeypatch.setattr(algo, "_play_evaluation", played)
    assert algo.elected_policy_id is None
    steps = 0
    for _ in range(8):
        num = len(elections)
        algo.training_step()
        steps += 40
        if len(elections) == num:  # episodes of training count for no R_k
            assert (algo.elected_policy_id is None) == (num == 0)
            continue
        (election,) = elections[num:]
        assert [chunk.member for chunk in election.chunks].count(2) == 2
        steps += int(election.lengths.sum())
        means = election.returns.mean(axis=1)
        assert algo.history.return_means() == pytest.approx(means)
        assert algo.history.teacher == means.argmax()
        rows = rows_of(algo)
        newest = np.concatenate([chunk.observations[:-1] for chunk in election.chunks])
        assert np.array_equal(rows["obs"][-len(newest) :], newest)
        rewards = [float(chunk.rewards.sum()) for chunk in election.chunks if chunk.member == 1]
        assert sorted(rewards) == pytest.approx(sorted(election.returns[1]))
    assert len(elections) == algo.history.num_phases >= 3
    assert algo.history.env_steps == algo.history.stored == steps == len(rows_of(algo)["obs"])
    assert algo.history.num_updates == steps - 50


def test_an_election_longer_than_the_interval_brings_no_further_phase(build):
    """Episodes of 30 steps, three members, phases every 20 steps: one for each fragment of 20."""
    config = small_config(
        envs.CountingEnv,
        env_config={"lengths": [30]},
        fragment=20,
        steps_per_iteration=20,
        teacher_election="evaluation",
        distillation_interval=20,
        random_steps=0,
        num_steps_sampled_before_learning_starts=10,
    )
    algo = build(config)
    for number in range(1, 4):
        algo.training_step()
        assert algo.history.num_phases == number
        assert algo.history.env_steps == number * (20 + 3 * 30)


def test_episodes_of_the_warm_up_count_for_no_r_k(build):
    """Episodes of 10 steps; actions are random until step 50, and the fragment there ends at 60."""
    config = small_config(
        envs.CountingEnv,
        env_config={"lengths": [10]},
        fragment=20,
        steps_per_iteration=20,
        random_steps=50,
        distillation_interval=10_000,
    )
    algo = build(config)
    train(algo, 60)
    assert sum(algo.history.episodes) == 6
    assert algo.elected_policy_id is None
    result = train(algo, 80)["ensemble"]
    assert sum(algo.history.episodes) == 8
    # Episode e has the return sum(step + e); numbers 6 and 7 are the first that count.
    counted = {(sum(range(1, 11)) + 10 * e) * envs.UNIT for e in (6, 7)}
    known = {value for value in result["return_mean"].values() if not np.isnan(value)}
    assert known == counted or known == {np.mean(list(counted))}  # of two members, or of one


def build_with_returns(build, returns: Sequence[float], **training) -> CIKD:
    """An algorithm with these R_k, which stay: its one episode never ends."""
    algo = build(small_config(envs.CountingEnv, env_config={"lengths": [10_000]}, **training))
    algo.history.record_episodes(
        [FinishedEpisode(k, r) for k, r in enumerate(returns) if not math.isnan(r)]
    )
    return algo


@pytest.mark.parametrize("rule", ["best", "random", "worst"])
def test_teacher_election(build, rule):
    algo = build_with_returns(
        build,
        [1.0, 3.0, -2.0],
        fragment=10,
        teacher_election=rule,
        distillation_interval=10,
        distillation_updates=1,
        training_intensity=0.8,
    )
    result = train(algo, 400)["ensemble"]
    teachers = [result["times_teacher"][member] for member in MEMBERS]
    assert sum(teachers) == result["num_distillations_lifetime"] == 35
    if rule == "random":
        assert stats.chisquare(teachers).pvalue > 0.001
    else:
        assert teachers == ([0, 35, 0] if rule == "best" else [0, 0, 35])


def test_member_without_an_episode_is_no_candidate(build):
    algo = build_with_returns(build, [math.nan, -5.0, -7.0])
    result = train(algo, 300)["ensemble"]
    assert result["times_teacher"] == {"policy_0": 0, "policy_1": 3, "policy_2": 0}


def test_phase_without_any_candidate_is_skipped_and_counted(build):
    result = train(build_with_returns(build, []), 300)["ensemble"]
    assert result["num_distillations_lifetime"] == 0
    assert result["num_skipped_phases_lifetime"] == 3
    assert math.isnan(result["teacher"])


# ---------------------------------------------------------------------- When


@pytest.mark.parametrize(
    ("fragment", "num_envs", "interval"),
    [(50, 1, 100), (64, 1, 10), (7, 3, 30), (1, 1, 33)],
)
def test_one_phase_per_crossing(build, fragment, num_envs, interval):
    """No phase before learning has started; several for several crossings in one fragment."""
    config = small_config(
        envs.CountingEnv,
        fragment=fragment,
        distillation_interval=interval,
        random_steps=0,
        num_steps_sampled_before_learning_starts=130,
        distillation_updates=1,
        num_envs=num_envs,
    )
    algo = build(config)
    phases = 0
    while algo.history.env_steps < 230:
        before = algo.history.env_steps
        algo.training_step()
        after = algo.history.env_steps
        if after > 130:
            phases += sum(t % interval == 0 for t in range(before + 1, after + 1))
        assert algo.history.num_phases == phases
    assert phases > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"ensemble_size": 1, "knowledge_sharing": "distillation"},
        {"ensemble_size": 1, "knowledge_sharing": "hard_copy"},
        {"knowledge_sharing": "none"},
    ],
)
def test_without_students_or_knowledge_sharing_there_is_no_phase(build, settings):
    result = train(build(small_config(envs.DriftEnv, **settings)), 300)
    assert result["ensemble"]["num_distillations_lifetime"] == 0
    assert result["ensemble"]["num_skipped_phases_lifetime"] == 0
    assert result["learners"]["policy_0"]["qf_loss"] > 0
