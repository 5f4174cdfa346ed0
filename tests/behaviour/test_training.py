"""Training, Algorithm 1: who acts, what is stored, when updates and phases happen."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable

import envs
import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers import flat, learner_of, rows_of, same, small_config, weights_of
from ray.rllib.core.rl_module import MultiRLModuleSpec, RLModuleSpec
from ray.tune.registry import register_env
from scipy import stats

from rllib_cikd import CIKD, CIKDConfig
from rllib_cikd.algorithm.sac_update import SACUpdate
from rllib_cikd.rllib.learner import CIKDTorchLearner
from rllib_cikd.rllib.transitions import EpisodeReader

UNIT = envs.UNIT


def train(algo: CIKD, steps: int) -> dict:
    """Trains until at least `steps` environment steps are done; returns the last result."""
    result = {}
    while algo.history.env_steps < steps:
        result = algo.train()
    return result


@pytest.fixture
def gradient_steps(monkeypatch) -> list[int]:
    """One entry per call of `SACUpdate.step`: the number of transitions in the buffer then."""
    calls = []
    update, step = CIKDTorchLearner.update, SACUpdate.step
    stored = [0]

    def counting_update(self, *args, transitions, **kwargs):
        stored[0] += len(transitions["rewards"])
        return update(self, *args, transitions=transitions, **kwargs)

    def counting_step(self, *args, **kwargs):
        calls.append(stored[0])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(CIKDTorchLearner, "update", counting_update)
    monkeypatch.setattr(SACUpdate, "step", counting_step)
    return calls


@pytest.fixture
def phases(monkeypatch) -> list[tuple[int, int]]:
    """One entry per phase of knowledge sharing: (environment steps so far, teacher)."""
    calls = []
    share = CIKD._share_knowledge

    def counting_share(self, teacher):
        calls.append((self.history.env_steps, teacher))
        return share(self, teacher)

    monkeypatch.setattr(CIKD, "_share_knowledge", counting_share)
    return calls


# ---------------------------------------------------------------------- Environments


def users_env(algo: CIKD) -> gym.Env:
    """The first environment that the user asked for, without any dress."""
    return algo.env_runner.env.unwrapped.envs[0].unwrapped.env.unwrapped


def test_gymnasium_id_with_env_config(build):
    algo = build(small_config("Pendulum-v1", env_config={"g": 0.0}))
    train(algo, 100)
    assert users_env(algo).g == 0.0


def test_registered_name_gets_env_context(build):

    def create(context):
        env = envs.DriftEnv(context)
        env.context = context
        return env

    register_env("drift", create)
    algo = build(small_config("drift", env_config={"time_limit": 7}))
    result = train(algo, 100)
    assert result["env_runners"]["episode_len_max"] <= 7
    assert users_env(algo).context == {"time_limit": 7}
    assert users_env(algo).context.worker_index == 0


def test_env_class(build):
    algo = build(small_config(envs.DriftEnv, env_config={"time_limit": 6}))
    result = train(algo, 100)
    assert result["env_runners"]["episode_len_max"] <= 6


def test_real_task(build, gradient_steps):
    algo = build(small_config("HalfCheetah-v5", random_steps=40, fragment=20))
    before = weights_of(algo)
    train(algo, 100)
    assert len(gradient_steps) == 60
    assert not any(same(before, weights_of(algo)).values())


# ---------------------------------------------------------------------- Results

MEMBERS = ("policy_0", "policy_1", "policy_2")
RESULT_KEYS = {
    "num_env_steps_sampled_lifetime",
    "timesteps_total",
    "ensemble/teacher",
    "ensemble/num_distillations_lifetime",
    "ensemble/distillation/time_s",
    *(f"ensemble/{name}/{m}" for name in ("return_mean", "times_teacher") for m in MEMBERS),
    *(f"ensemble/episodes_lifetime/{m}" for m in MEMBERS),
    *(
        f"ensemble/distillation/{name}_{when}/{m}"
        for name in ("kl", "critic_loss")
        for when in ("before", "after")
        for m in MEMBERS
    ),
    *(
        f"learners/{m}/{name}"
        for name in ("qf_loss", "policy_loss", "alpha_value", "qf_mean", "logps")
        for m in MEMBERS
    ),
}
EVALUATION_KEYS = {
    *(f"evaluation/ensemble/return_mean/{m}" for m in MEMBERS),
    *(f"evaluation/ensemble/{who}_return_mean" for who in ("best", "worst", "mean", "elected")),
    "evaluation/ensemble/best_policy",
    "evaluation/env_runners/episode_return_mean",
}
ASSESSMENT_KEYS = {
    "ensemble/distillation/students_above_teacher",
    *(f"ensemble/distillation/return_{when}/{m}" for when in ("before", "after") for m in MEMBERS),
}
#: Part of results whose keys must not change, because Tune's CSV fixes its columns at once.
OURS = ("ensemble/", "evaluation/", "learners/")


@pytest.mark.parametrize("assess", [False, True])
def test_every_result_key_is_there_from_the_first_iteration_on(build, assess):
    config = small_config(
        envs.DriftEnv,
        steps_per_iteration=50,
        random_steps=120,
        assess_distillation=assess,
    ).evaluation(evaluation_interval=3, evaluation_duration=2)
    algo = build(config)
    results = [flat(algo.train()) for _ in range(7)]
    expected = RESULT_KEYS | EVALUATION_KEYS | (ASSESSMENT_KEYS if assess else set())
    for i, result in enumerate(results, start=1):
        missing = sorted(expected - set(result))
        assert not missing, f"iteration {i} misses {missing}"
    first = {key for key in results[0] if key.startswith(OURS)}
    for i, result in enumerate(results, start=1):
        assert {key for key in result if key.startswith(OURS)} == first, f"iteration {i}"
    # In the end there are numbers behind them, save for the teacher's distance to itself.
    last = results[-1]
    teacher = f"policy_{last['ensemble/teacher']}"
    unknown = {key for key in expected if math.isnan(last[key])}
    assert unknown == {
        f"ensemble/distillation/{name}_{when}/{teacher}"
        for name in ("kl", "critic_loss")
        for when in ("before", "after")
    }


def test_results_without_knowledge_sharing_have_no_distillation(build):
    algo = build(small_config(envs.DriftEnv, knowledge_sharing="none"))
    result = flat(train(algo, 300))
    assert not [key for key in result if key.startswith("ensemble/distillation/")]
    assert result["ensemble/num_distillations_lifetime"] == 0


def test_counters_of_the_result(build):
    algo = build(small_config(envs.CountingEnv, env_config={"lengths": [7, 3]}))
    result = train(algo, 300)
    assert result["num_env_steps_sampled_lifetime"] == 300
    assert result["timesteps_total"] == 300
    assert result["training_iteration"] == 3
    assert sum(result["ensemble"]["episodes_lifetime"].values()) == 60
    trained = result["learners"]["__all_modules__"]["num_env_steps_trained_lifetime"]
    assert trained == 250 * 8


def test_an_iteration_is_a_number_of_steps_whatever_time_they_take(build):
    algo = build(small_config(envs.DriftEnv, steps_per_iteration=150))
    steps = [algo.train()["num_env_steps_sampled_lifetime"] for _ in range(3)]
    assert steps == [150, 300, 450]


# ---------------------------------------------------------------------- Gradient steps


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("fragment", [1, 7, 50, 64])
def test_one_gradient_step_per_env_step_after_learning_starts(
    build, gradient_steps, fragment, num_envs
):
    config = small_config(
        envs.CountingEnv,
        fragment=fragment,
        random_steps=20,
        num_steps_sampled_before_learning_starts=70,
        knowledge_sharing="none",
        num_envs=num_envs,
    )
    algo = build(config)
    result = train(algo, 200)
    steps = result["num_env_steps_sampled_lifetime"]
    assert len(gradient_steps) == steps - 70
    # The n-th gradient step never comes before the n-th step after the start, and at most a
    # fragment after it.
    for n, stored in enumerate(gradient_steps, start=1):
        assert n + 70 <= stored < n + 70 + fragment * num_envs + num_envs


@pytest.mark.parametrize(("intensity", "per_step"), [(4, 0.5), (8, 1.0), (20, 2.5), (3, 0.375)])
def test_training_intensity(build, gradient_steps, intensity, per_step):
    algo = build(
        small_config(
            envs.CountingEnv,
            training_intensity=intensity,
            fragment=7,
            knowledge_sharing="none",
        )
    )
    result = train(algo, 200)
    steps = result["num_env_steps_sampled_lifetime"]
    assert len(gradient_steps) == int((steps - 50) * per_step)


@pytest.mark.parametrize("intensity", [3, 8])
def test_statistics_are_numbers_in_each_iteration_with_gradient_steps(build, intensity):
    """Also if the last fragment of the iteration had no gradient step."""
    algo = build(
        small_config(
            envs.DriftEnv,
            fragment=1,
            steps_per_iteration=20,
            random_steps=20,
            training_intensity=intensity,
        )
    )
    algo.train()
    for _ in range(4):
        statistics = algo.train()["learners"]["policy_0"]
        assert not [name for name, value in statistics.items() if math.isnan(value)]


def test_every_gradient_step_moves_every_member(build, monkeypatch):
    """And with minibatches and noise of its own."""
    seen = []
    step = SACUpdate.step

    def recording_step(self, batch, noise):
        seen.append((batch.obs.clone(), noise.clone()))
        return step(self, batch, noise)

    monkeypatch.setattr(SACUpdate, "step", recording_step)
    algo = build(small_config(envs.DriftEnv, random_steps=50, knowledge_sharing="none"))
    before = weights_of(algo)
    algo.train()
    after = weights_of(algo)
    assert not any(same(before, after).values())
    assert len(seen) == 50
    for obs, noise in seen:
        assert obs.shape == (3, 8, 2)
        assert noise.shape == (3, 2, 8, 2)
        assert not torch.equal(obs[0], obs[1])
        assert not torch.equal(noise[0], noise[1])


def test_no_learning_before_its_start(build, gradient_steps):
    algo = build(small_config(envs.DriftEnv, random_steps=400, distillation_interval=50))
    before = weights_of(algo)
    result = train(algo, 400)
    assert gradient_steps == []
    assert all(same(before, weights_of(algo)).values())
    assert result["ensemble"]["num_distillations_lifetime"] == 0


# ---------------------------------------------------------------------- Who acts


def act_at_the_upper_bound(algo: CIKD) -> None:
    """Makes every member's exploration recognisable: tanh(5), with no noise."""
    stack = learner_of(algo).stacks[0]
    with torch.no_grad():
        stack.policy.weights[-1].zero_()
        stack.policy.biases[-1][..., 0] = 5.0
        stack.policy.biases[-1][..., 1] = -20.0
    algo._sync_weights()


@pytest.mark.parametrize(("fragment", "num_envs"), [(50, 1), (10, 1), (10, 3), (64, 1)])
def test_random_actions_first_then_the_policies(build, fragment, num_envs):
    config = small_config(
        envs.CountingEnv,
        random_steps=600,
        num_steps_sampled_before_learning_starts=5000,
        fragment=fragment,
        num_envs=num_envs,
    )
    algo = build(config)
    act_at_the_upper_bound(algo)
    train(algo, 700)
    actions = rows_of(algo)["actions"][:, 0]
    by_policy = actions == np.float32(np.tanh(np.float32(5.0)))
    switch = int(np.argmax(by_policy))
    # Actions are decided upon by fragment: the one in which `random_steps` are reached is random.
    assert 600 <= switch < 600 + fragment * num_envs
    assert by_policy[switch:].all()
    uniform = stats.uniform(-1.0, 2.0)
    assert stats.kstest(actions[:switch], uniform.cdf).pvalue > 0.001
    received = np.array([step[2] for log in envs.CountingEnv.log.values() for step in log])
    assert (received.min(), received.max()) == (pytest.approx(-1, abs=0.1), pytest.approx(3, 1e-3))


def test_random_steps_zero_means_none(build):
    algo = build(
        small_config(
            envs.CountingEnv, random_steps=0, num_steps_sampled_before_learning_starts=5000
        )
    )
    act_at_the_upper_bound(algo)
    algo.train()
    assert (rows_of(algo)["actions"] == np.float32(np.tanh(np.float32(5.0)))).all()


def episode_recorder() -> tuple[list[tuple[int, float, int]], Callable]:
    """A list, and an `on_episode_end` that adds to it (member, return, length) of each episode.

    A closure, because RLlib deep-copies the config, and with it any object in it.
    """
    episodes = []

    def on_episode_end(episode, prev_episode_chunks=(), **kwargs):
        chunks = [*prev_episode_chunks, episode]
        members = {chunk.module_for("agent_0") for chunk in chunks}
        assert len(members) == 1, "another member went on with the episode"
        returns = sum(chunk.agent_episodes["agent_0"].get_return() for chunk in chunks)
        length = sum(len(chunk) for chunk in chunks)
        episodes.append((int(members.pop().removeprefix("policy_")), returns, length))

    return episodes, on_episode_end


@pytest.mark.parametrize(("fragment", "num_envs"), [(7, 1), (50, 1), (13, 3)])
def test_selection_is_uniform_over_episodes(build, fragment, num_envs):
    """Whatever their lengths are, and wherever fragments cut them."""
    episodes, on_episode_end = episode_recorder()
    config = small_config(
        envs.CountingEnv,
        steps_per_iteration=1500,
        env_config={"lengths": [1, 5, 2, 4, 3]},
        fragment=fragment,
        num_envs=num_envs,
        random_steps=5000,
    ).callbacks(on_episode_end=on_episode_end)
    result = build(config).train()
    members = Counter(member for member, _, _ in episodes)
    assert sum(members.values()) >= 450
    assert stats.chisquare([members[k] for k in range(3)]).pvalue > 0.001
    # Independent of the episode before, and of the length.
    pairs = Counter(
        zip(
            [m for m, _, _ in episodes],
            [m for m, _, _ in episodes[1:]],
            strict=False,
        )
    )
    table = np.array([[pairs[i, j] for j in range(3)] for i in range(3)])
    assert stats.chi2_contingency(table).pvalue > 0.001
    lengths = Counter((m, length) for m, _, length in episodes)
    table = np.array([[lengths[m, length] for length in range(1, 6)] for m in range(3)])
    assert stats.chi2_contingency(table).pvalue > 0.001
    assert result["ensemble"]["episodes_lifetime"] == {f"policy_{k}": members[k] for k in range(3)}


def test_sequence_of_members_does_not_depend_on_the_fragments(build):
    sequences = []
    for fragment in (3, 10, 50):
        episodes, on_episode_end = episode_recorder()
        config = small_config(envs.CountingEnv, fragment=fragment, random_steps=5000).callbacks(
            on_episode_end=on_episode_end
        )
        train(build(config), 200)
        sequences.append([member for member, _, _ in episodes][:35])
    assert sequences[0] == sequences[1] == sequences[2]


def test_the_assigned_member_is_the_one_whose_network_acts(build):
    """Each member plays another constant action: the buffer shows who really acted."""
    episodes, on_episode_end = episode_recorder()
    config = small_config(
        envs.CountingEnv,
        random_steps=0,
        num_steps_sampled_before_learning_starts=5000,
        env_config={"lengths": [4, 9]},
        fragment=7,
    ).callbacks(on_episode_end=on_episode_end)
    algo = build(config)
    stack = learner_of(algo).stacks[0]
    with torch.no_grad():
        stack.policy.weights[-1].zero_()
        stack.policy.biases[-1][:, 0, 0] = torch.atanh(torch.tensor([-0.5, 0.0, 0.5]))
        stack.policy.biases[-1][..., 1] = -20.0
    algo._sync_weights()
    train(algo, 200)
    acted = np.round(rows_of(algo)["actions"][:, 0] * 2 + 1).astype(int)
    start = 0
    for member, _, length in episodes:
        assert (acted[start : start + length] == member).all()
        start += length
    assert len(episodes) > 20


@pytest.mark.parametrize("rule", ["uniform", "softmax", "epsilon_greedy"])
def test_policy_selection(build, monkeypatch, rule):
    """With fixed R_k, how often members act differs between the rules as it should."""
    monkeypatch.setattr("rllib_cikd.algorithm.policy_selection.EPSILON_START", 0.3)
    monkeypatch.setattr(
        "rllib_cikd.algorithm.teacher_election.ReturnWindows.means", lambda self: [1.0, 3.0, 2.0]
    )
    episodes, on_episode_end = episode_recorder()
    config = small_config(
        envs.CountingEnv,
        steps_per_iteration=600,
        policy_selection=rule,
        random_steps=5000,
        env_config={"lengths": [1]},
    ).callbacks(on_episode_end=on_episode_end)
    build(config).train()
    counts = Counter(member for member, _, _ in episodes)
    standardised = np.exp(np.array([-1.0, 1.0, 0.0]) / np.sqrt(2 / 3))
    expected = {
        "uniform": np.full(3, 1 / 3),
        "softmax": standardised / standardised.sum(),
        "epsilon_greedy": np.array([0.1, 0.8, 0.1]),
    }[rule]
    observed = np.array([counts[k] for k in range(3)])
    assert stats.chisquare(observed, expected * observed.sum()).pvalue > 0.001


# ---------------------------------------------------------------------- R_k and election


@pytest.mark.parametrize("num_envs", [1, 2])
def test_returns_and_election_equal_a_computation_by_hand(build, phases, num_envs):
    episodes, on_episode_end = episode_recorder()
    config = small_config(
        envs.DriftEnv,
        steps_per_iteration=20 * num_envs,
        fragment=20,
        num_envs=num_envs,
        distillation_interval=20 * num_envs,
        return_window=4,
        random_steps=60,
        ensemble_size=4,
    ).callbacks(on_episode_end=on_episode_end)
    algo = build(config)
    elections = 0
    for _ in range(25):
        elected_before = len(phases)
        result = algo.train()["ensemble"]
        by_member = [[r for m, r, _ in episodes if m == k] for k in range(4)]
        r_k = [np.mean(returns[-4:]) if returns else np.nan for returns in by_member]
        for k in range(4):
            assert result["return_mean"][f"policy_{k}"] == pytest.approx(r_k[k], nan_ok=True)
            assert result["episodes_lifetime"][f"policy_{k}"] == len(by_member[k])
        if len(phases) > elected_before:
            elections += 1
            assert phases[-1][1] == result["teacher"] == np.nanargmax(r_k)
        assert algo.elected_policy_id == f"policy_{np.nanargmax(r_k)}"
    assert elections >= 20
    times = Counter(teacher for _, teacher in phases)
    assert result["times_teacher"] == {f"policy_{k}": times[k] for k in range(4)}
    assert len(times) > 1


@pytest.mark.parametrize("rule", ["best", "random", "worst"])
def test_teacher_election(build, monkeypatch, phases, rule):
    monkeypatch.setattr(
        "rllib_cikd.algorithm.teacher_election.ReturnWindows.means", lambda self: [1.0, 3.0, -2.0]
    )
    algo = build(
        small_config(
            envs.DriftEnv,
            fragment=10,
            teacher_election=rule,
            distillation_interval=10,
            distillation_updates=1,
            training_intensity=0.8,
        )
    )
    train(algo, 400)
    assert len(phases) >= 30
    teachers = Counter(teacher for _, teacher in phases)
    if rule == "random":
        assert set(teachers) == {0, 1, 2}
        assert stats.chisquare(list(teachers.values())).pvalue > 0.001
    else:
        assert set(teachers) == {1 if rule == "best" else 2}


def test_member_without_an_episode_is_no_candidate(build, monkeypatch, phases):
    monkeypatch.setattr(
        "rllib_cikd.algorithm.teacher_election.ReturnWindows.means",
        lambda self: [math.nan, -5.0, -7.0],
    )
    algo = build(small_config(envs.DriftEnv))
    train(algo, 300)
    assert {teacher for _, teacher in phases} == {1}


def test_phase_without_any_candidate_is_skipped_and_counted(build, phases):
    config = small_config(envs.CountingEnv, env_config={"lengths": [1000]})
    result = train(build(config), 300)
    assert phases == []
    assert result["ensemble"]["num_distillations_lifetime"] == 0
    assert result["ensemble"]["num_skipped_phases_lifetime"] == 3
    assert math.isnan(result["ensemble"]["teacher"])


# ---------------------------------------------------------------------- Phases


@pytest.mark.parametrize(
    ("fragment", "num_envs", "interval"),
    [(50, 1, 100), (64, 1, 100), (7, 1, 30), (50, 3, 100), (64, 1, 10), (1, 1, 33)],
)
def test_one_phase_per_crossing(build, phases, fragment, num_envs, interval):
    """No phase before learning has started; several for several crossings in one fragment."""
    config = small_config(
        envs.CountingEnv,
        fragment=fragment,
        distillation_interval=interval,
        random_steps=130,
        distillation_updates=1,
        num_envs=num_envs,
    )
    algo = build(config)
    looks = [0]
    update = algo._store_and_update

    def noting_update(transitions):
        looks.append(algo.history.env_steps)
        update(transitions)

    algo._store_and_update = noting_update
    result = train(algo, 400)
    expected = [
        after
        for before, after in itertools.pairwise(looks)
        if after > 130
        for multiple in range(interval, after + 1, interval)
        if before < multiple <= after
    ]
    assert [steps for steps, _ in phases] == expected
    assert result["ensemble"]["num_distillations_lifetime"] == len(expected) > 0


@pytest.mark.parametrize("sharing", ["distillation", "hard_copy"])
def test_a_lone_member_never_distils(build, phases, sharing):
    algo = build(small_config(envs.DriftEnv, ensemble_size=1, knowledge_sharing=sharing))
    result = train(algo, 400)
    assert phases == []
    assert result["ensemble"]["num_distillations_lifetime"] == 0
    assert result["learners"]["policy_0"]["qf_loss"] > 0


def phase_of(build, monkeypatch, **training) -> dict:
    """What one phase does to an ensemble whose teacher is member 1."""
    monkeypatch.setattr(
        "rllib_cikd.algorithm.teacher_election.ReturnWindows.means", lambda self: [1.0, 3.0, 2.0]
    )
    algo = build(small_config(envs.DriftEnv, distillation_interval=150, **training))
    learner = learner_of(algo)
    seen = {}
    share = learner.share_knowledge

    def watched_share(teacher):
        seen["before"] = {name: weights_of(algo, name) for name in NETWORKS}
        seen["moments"] = learner.updates[0].optimizers["critic"].state_dict()["state"]
        seen["report"] = share(teacher)
        seen["after"] = {name: weights_of(algo, name) for name in NETWORKS}
        return seen["report"]

    learner.share_knowledge = watched_share
    steps = []
    step = SACUpdate.step
    monkeypatch.setattr(SACUpdate, "step", lambda *args: steps.append(1) or step(*args))
    seen["result"] = train(algo, 200)
    seen["gradient_steps"] = len(steps)
    seen["moved"] = {
        (name, member)
        for name in NETWORKS
        for member, unmoved in same(seen["before"][name], seen["after"][name]).items()
        if not unmoved
    }
    return seen


NETWORKS = ("policy", "qf1", "qf2", "target_qf1", "target_qf2", "log_alpha")
STUDENTS = ("policy_0", "policy_2")


def moved(*networks: str, members=STUDENTS) -> set[tuple[str, str]]:
    return {(network, member) for network in networks for member in members}


@pytest.mark.parametrize(
    ("targets", "networks"),
    [
        ("policy_and_critic", ("policy", "qf1", "qf2")),
        ("policy", ("policy",)),
        ("critic", ("qf1", "qf2")),
    ],
)
@pytest.mark.parametrize("sharing", ["distillation", "hard_copy"])
def test_what_distillation_and_hard_copy_touch(build, monkeypatch, sharing, targets, networks):
    seen = phase_of(
        build,
        monkeypatch,
        knowledge_sharing=sharing,
        distillation_targets=targets,
        distillation_updates=200,
        distillation_batch_size=64,
    )
    assert seen["moved"] == moved(*networks)
    report = seen["report"]
    assert seen["gradient_steps"] == 150
    assert set(report["kl_before"]) == {0, 2}
    for k in (0, 2):
        kl = report["kl_after"][k] / report["kl_before"][k]
        distance = report["critic_loss_after"][k] / report["critic_loss_before"][k]
        if sharing == "hard_copy":
            assert kl == (pytest.approx(0, abs=1e-6) if "policy" in networks else 1.0)
            assert distance == (pytest.approx(0, abs=1e-6) if "qf1" in networks else 1.0)
        else:
            assert kl < 0.5 if "policy" in networks else kl == 1.0
            assert distance < 0.5 if "qf1" in networks else distance == 1.0
        logged = seen["result"]["ensemble"]["distillation"]
        assert logged["kl_after"][f"policy_{k}"] == report["kl_after"][k]
    if sharing == "hard_copy":
        for network in networks:
            after = seen["after"][network]
            assert np.array_equal(after["policy_0"], seen["before"][network]["policy_1"])
            assert np.array_equal(after["policy_2"], seen["before"][network]["policy_1"])


def test_extra_updates_train_everyone_instead(build, monkeypatch):
    seen = phase_of(build, monkeypatch, knowledge_sharing="extra_updates", distillation_updates=17)
    assert seen["moved"] == moved(*NETWORKS, members=MEMBERS)
    assert seen["gradient_steps"] == 150 + 17


def test_knowledge_sharing_none(build, phases):
    train(build(small_config(envs.DriftEnv, knowledge_sharing="none")), 400)
    assert phases == []


def test_reset_students(build, monkeypatch):
    """With an almost empty distillation after it: students' networks are fresh, others stay."""
    settings = {"distillation_updates": 1, "distillation_lr": 1e-12}
    kept = phase_of(build, monkeypatch, **settings)
    reset = phase_of(build, monkeypatch, reset_students=True, **settings)
    assert reset["moved"] == moved("policy", "qf1", "qf2")
    for network in ("policy", "qf1", "qf2"):
        for k in STUDENTS:
            change = np.abs(reset["after"][network][k] - reset["before"][network][k])
            assert np.median(change) > 0.05
            change = np.abs(kept["after"][network][k] - kept["before"][network][k])
            assert change.max() < 1e-6
        assert not np.array_equal(
            reset["after"][network]["policy_0"], reset["after"][network]["policy_2"]
        )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"distillation_updates": 9}, 9),
        ({"distillation_updates": 21}, 21),
        # 150 transitions are 18 full minibatches of 8, or 4 of 32.
        ({"distillation_epochs": 1}, 18),
        ({"distillation_epochs": 3}, 54),
        ({"distillation_epochs": 3, "distillation_batch_size": 32}, 12),
    ],
)
def test_size_of_a_phase(build, monkeypatch, settings, expected):
    drawn = []
    minibatches = CIKDTorchLearner._minibatches

    def watched_minibatches(self, rows):
        for batch in minibatches(self, rows):
            drawn.append(len(batch.rewards))
            yield batch

    monkeypatch.setattr(CIKDTorchLearner, "_minibatches", watched_minibatches)
    phase_of(build, monkeypatch, **settings)
    assert drawn == [settings.get("distillation_batch_size", 8)] * expected


def test_distillation_lr(build, monkeypatch):
    after = [
        phase_of(build, monkeypatch, distillation_lr=lr)["report"]["kl_after"][0]
        for lr in (1e-9, 1e-3)
    ]
    before = phase_of(build, monkeypatch)["report"]["kl_before"][0]
    assert after[0] == pytest.approx(before, rel=1e-4)
    assert after[1] < 0.99 * before


def test_assess_distillation_plays_before_and_after(build, monkeypatch, phases):
    settings = {"distillation_updates": 300, "distillation_batch_size": 64}
    config = small_config(
        envs.DriftEnv, distillation_interval=200, assess_distillation=True, **settings
    )
    algo = build(config)
    played = []
    evaluate = algo.evaluate_members
    algo.evaluate_members = lambda: played.append(evaluate()) or played[-1]
    result = train(algo, 200)["ensemble"]
    assert len(phases) == 1
    assert len(played) == 2
    means = [{m: p[m]["returns"].mean() for m in MEMBERS} for p in played]
    assert result["distillation"]["return_before"] == means[0]
    assert result["distillation"]["return_after"] == means[1]
    teacher = f"policy_{result['teacher']}"
    assert means[0][teacher] == means[1][teacher]
    above = [means[1][m] > means[1][teacher] for m in MEMBERS if m != teacher]
    assert result["distillation"]["students_above_teacher"] == np.mean(above)


@pytest.mark.parametrize("option", [{"n_step": 3}, {"gamma": 0.9}, {"tau": 0.5}, {"actor_lr": 0.1}])
def test_sac_option_changes_the_outcome(build, option):
    plain = build(small_config(envs.DriftEnv))
    other = build(small_config(envs.DriftEnv, **option))
    train(plain, 100)
    train(other, 100)
    assert np.array_equal(rows_of(plain)["obs"], rows_of(other)["obs"])
    assert not any(same(weights_of(plain), weights_of(other)).values())


# ---------------------------------------------------------------------- The buffer


def transitions_of_the_envs(num_steps: int) -> list[tuple[int, int]]:
    return [
        (instance, step[0], step[1])
        for instance, log in sorted(envs.CountingEnv.log.items())
        for step in log
    ][:num_steps]


@pytest.mark.parametrize(
    ("fragment", "num_envs"), [(1, 1), (7, 1), (50, 1), (64, 1), (7, 3), (1, 3), (33, 2)]
)
def test_buffer_holds_each_transition_once_and_in_order(build, fragment, num_envs):
    lengths, ends = [1, 6, 9, 2], ["truncates", "terminates", "truncates", "terminates"]
    config = small_config(
        envs.CountingEnv,
        env_config={"lengths": lengths, "ends": ends},
        fragment=fragment,
        num_envs=num_envs,
        random_steps=5000,
    )
    algo = build(config)
    train(algo, 230)
    rows = rows_of(algo)
    logs = [log for _, log in sorted(envs.CountingEnv.log.items()) if log]
    assert len(logs) == num_envs
    assert len(rows["rewards"]) == sum(len(log) for log in logs) == algo.history.env_steps
    instances = rows["obs"][:, 1] / UNIT
    for instance, log in zip(sorted(set(instances)), logs, strict=True):
        own = {name: values[instances == instance] for name, values in rows.items()}
        steps = np.array(log)
        episode, step, action, terminated = steps[:, 0], steps[:, 1], steps[:, 2], steps[:, 3]
        assert np.array_equal(own["obs"][:, 2] / UNIT, episode)
        assert np.array_equal(own["obs"][:, 3] / UNIT, step - 1)
        assert np.array_equal(own["next_obs"][:, 2] / UNIT, episode)
        assert np.array_equal(own["next_obs"][:, 3] / UNIT, step)
        assert np.array_equal(own["rewards"] / UNIT, episode + step)
        assert np.array_equal(own["terminated"], terminated.astype(bool))
        # The environment got the stored action, mapped from [-1, 1] to [-1, 3].
        assert np.allclose(own["actions"][:, 0] * 2.0 + 1.0, action, atol=1e-6)
        assert np.array_equal(own["next_obs"][:, 4], np.float32(action))


def test_buffer_is_a_ring(build):
    config = small_config(
        envs.CountingEnv,
        replay_buffer_config={"capacity": 80},
        fragment=7,
        env_config={"lengths": [1000]},
    )
    algo = build(config)
    train(algo, 203)
    buffer = learner_of(algo).replay_buffer
    assert (len(buffer), buffer.num_added) == (80, algo.history.env_steps)
    steps = np.sort(buffer.get_state()["rows"][:, 3] / UNIT)
    assert np.array_equal(steps, np.arange(algo.history.env_steps - 80, algo.history.env_steps))


# ---------------------------------------------------------------------- What is not finite


@pytest.mark.parametrize("fragment", [1, 7, 50])
@pytest.mark.parametrize(
    ("broken", "words"),
    [("observation", "observation"), ("reward", "reward"), ("huge_reward", "reward")],
)
def test_broken_environment_stops_the_run(build, broken, words, fragment):
    config = small_config(
        envs.CountingEnv, env_config={"broken": broken, "broken_at": 83}, fragment=fragment
    )
    algo = build(config)
    with pytest.raises(ValueError, match=f"non-finite {words}") as error:
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


# ---------------------------------------------------------------------- Reproducibility


def run(build, env, seed, steps, **settings) -> tuple[dict, dict, dict]:
    algo = build(small_config(env, seed=seed, **settings))
    result = train(algo, steps)
    return weights_of(algo), rows_of(algo), result


@pytest.mark.parametrize("env", ["Pendulum-v1", "HalfCheetah-v5"])
def test_same_seed_same_run(build, env):
    first, second, other = (run(build, env, seed, 300) for seed in (1, 1, 2))
    assert all(same(first[0], second[0]).values())
    for name, values in first[1].items():
        assert np.array_equal(values, second[1][name]), name
    assert first[2]["ensemble"]["episodes_lifetime"] == second[2]["ensemble"]["episodes_lifetime"]
    assert not any(same(first[0], other[0]).values())
    assert not np.array_equal(first[1]["obs"][0], other[1]["obs"][0])
    assert not np.array_equal(first[1]["actions"][:50], other[1]["actions"][:50])


def test_without_a_seed_runs_differ(build):
    first, second = (run(build, "Pendulum-v1", None, 100) for _ in range(2))
    assert not any(same(first[0], second[0]).values())
    assert not np.array_equal(first[1]["obs"][0], second[1]["obs"][0])
    assert not np.array_equal(first[1]["actions"][:50], second[1]["actions"][:50])


def test_members_start_different(build):
    start = weights_of(build(small_config(ensemble_size=3)), "policy")
    assert not np.array_equal(start["policy_0"], start["policy_1"])
    assert not np.array_equal(start["policy_1"], start["policy_2"])


# ---------------------------------------------------------------------- Members that differ


def heterogeneous_config(**training) -> CIKDConfig:
    hiddens = {"policy_0": [8], "policy_1": [16, 16], "policy_2": [8]}
    return small_config(envs.DriftEnv, **training).rl_module(
        rl_module_spec=MultiRLModuleSpec(
            rl_module_specs={
                member: RLModuleSpec(model_config={"fcnet_hiddens": widths})
                for member, widths in hiddens.items()
            }
        )
    )


def test_members_of_different_shape_train_and_distil(build, tmp_path):
    algo = build(heterogeneous_config(distillation_updates=100, distillation_batch_size=64))
    before = weights_of(algo)
    result = train(algo, 300)
    after = weights_of(algo)
    assert [len(after[m]) for m in MEMBERS] == [len(before[m]) for m in MEMBERS]
    assert len(after["policy_0"]) == len(after["policy_2"]) < len(after["policy_1"])
    assert not any(same(before, after).values())
    report = result["ensemble"]["distillation"]
    students = [m for m in MEMBERS if m != f"policy_{result['ensemble']['teacher']}"]
    assert all(report["kl_after"][m] < report["kl_before"][m] for m in students)
    restored = CIKD.from_checkpoint(algo.save_to_path(str(tmp_path / "checkpoint")))
    assert all(same(after, weights_of(restored)).values())
    assert restored.train()["num_env_steps_sampled_lifetime"] == 400
    restored.stop()


def test_member_of_its_own_shape_learns_like_any_other(build):
    """The loop over unequal members makes as many gradient steps as the batched pass."""
    algo = build(heterogeneous_config(knowledge_sharing="none"))
    train(algo, 200)
    steps = {
        (i, name): {float(state["step"]) for state in optimizer.state.values()}
        for i, update in enumerate(learner_of(algo).updates)
        for name, optimizer in update.optimizers.items()
    }
    assert len(learner_of(algo).updates) == 2
    assert set(map(frozenset, steps.values())) == {frozenset({150.0})}


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


# ---------------------------------------------------------------------- Callbacks of the user


def test_callbacks_fire(build):
    calls = Counter()
    evaluations = []

    def note(name):
        return lambda **kwargs: calls.update([name])

    config = (
        small_config(envs.CountingEnv, env_config={"lengths": [10]})
        .evaluation(evaluation_interval=2)
        .callbacks(
            on_algorithm_init=note("init"),
            on_episode_start=note("episode_start"),
            on_episode_step=note("episode_step"),
            on_episode_end=note("episode_end"),
            on_sample_end=note("sample_end"),
            on_train_result=note("train_result"),
            on_evaluate_start=note("evaluate_start"),
            on_evaluate_end=lambda evaluation_metrics, **kwargs: evaluations.append(
                evaluation_metrics
            ),
        )
    )
    algo = build(config)
    results = [algo.train() for _ in range(4)]
    assert calls["init"] == 1
    # 40 episodes of training, and 3 of each member in each of two evaluations.
    assert calls["episode_end"] == 40 + 18
    assert calls["episode_start"] in (40 + 18, 41 + 18)
    assert calls["episode_step"] == 400 + 180
    assert calls["sample_end"] == 8 + 2
    assert calls["train_result"] == 4
    assert calls["evaluate_start"] == len(evaluations) == 2
    returns = evaluations[-1]["ensemble"]["return_mean"]
    assert returns == results[-1]["evaluation"]["ensemble"]["return_mean"]


# ---------------------------------------------------------------------- Lost chunks


def test_return_of_an_episode_with_a_lost_chunk_is_not_reported(build, monkeypatch):
    """A runner's sample that timed out leaves a hole: no R_k from such an episode."""
    read = EpisodeReader.read
    is_lost = iter([False, True] + [False] * 100)
    monkeypatch.setattr(
        EpisodeReader,
        "read",
        lambda self, chunks: read(self, [] if next(is_lost) else chunks),
    )
    config = small_config(
        envs.CountingEnv,
        steps_per_iteration=20,
        fragment=20,
        random_steps=5000,
        env_config={"lengths": [50]},
    )
    algo = build(config)
    for _ in range(6):
        result = algo.train()
    # Steps 21-40 of the first episode are lost; the second one is whole.
    assert sum(result["ensemble"]["episodes_lifetime"].values()) == 1
    returns = [r for r in result["ensemble"]["return_mean"].values() if not math.isnan(r)]
    assert returns == [pytest.approx(sum(1 + step for step in range(1, 51)) * UNIT)]
