"""Who acts in an episode, with which actions, and what of it is in the buffer."""

from __future__ import annotations

import itertools
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

#: Learning starts only after the end of these runs.
NEVER = 5_000


def act_constantly(algo: CIKD, actions: Sequence[float]) -> None:
    """Makes member k always play `actions[k]`, in [-1, 1], with no noise."""
    (stack,) = learner_of(algo).stacks
    with torch.no_grad():
        stack.policy.weights[-1].zero_()
        stack.policy.biases[-1][:, 0, 0] = torch.atanh(torch.tensor(actions))
        stack.policy.biases[-1][..., 1] = -20.0
    algo._sync_weights()


def episode_recorder() -> tuple[list[tuple[int, int]], Callable]:
    """A list, and an `on_episode_end` that adds to it (member, length) of each episode.

    A closure, because RLlib deep-copies the config, and with it any object in it.
    """
    episodes = []

    def on_episode_end(episode, prev_episode_chunks=(), **kwargs):
        chunks = [*prev_episode_chunks, episode]
        members = {chunk.module_for("agent_0") for chunk in chunks}
        assert len(members) == 1, "another member went on with the episode"
        episodes.append((MEMBERS.index(members.pop()), sum(len(chunk) for chunk in chunks)))

    return episodes, on_episode_end


# ---------------------------------------------------------------------- Random actions


@pytest.mark.parametrize(("fragment", "num_envs"), [(50, 1), (10, 3), (64, 1)])
def test_random_actions_first_then_the_policies(build, fragment, num_envs):
    config = small_config(
        envs.CountingEnv,
        random_steps=600,
        num_steps_sampled_before_learning_starts=NEVER,
        fragment=fragment,
        num_envs=num_envs,
    )
    algo = build(config)
    act_constantly(algo, [0.75] * 3)
    train(algo, 700)
    actions = rows_of(algo)["actions"][:, 0]
    by_policy = np.isclose(actions, 0.75, rtol=0, atol=1e-6)
    switch = int(np.argmax(by_policy))
    # Actions are decided upon by fragment: the one in which `random_steps` are reached is random.
    assert 600 <= switch < 600 + fragment * num_envs
    assert by_policy[switch:].all()
    uniform = stats.uniform(-1.0, 2.0)
    assert stats.kstest(actions[:switch], uniform.cdf).pvalue > 0.001
    received = np.array([step[2] for log in envs.CountingEnv.log.values() for step in log])
    assert received.min() == pytest.approx(-1.0, abs=0.1)
    assert received.max() == pytest.approx(3.0, abs=0.1)


def test_random_steps_zero_means_none(build):
    algo = build(
        small_config(
            envs.CountingEnv, random_steps=0, num_steps_sampled_before_learning_starts=NEVER
        )
    )
    act_constantly(algo, [0.75] * 3)
    algo.train()
    assert rows_of(algo)["actions"] == pytest.approx(np.full((100, 1), 0.75), abs=1e-6)


# ---------------------------------------------------------------------- Who acts


@pytest.mark.parametrize(("fragment", "num_envs"), [(7, 1), (13, 3)])
def test_selection_is_uniform_over_episodes(build, fragment, num_envs):
    """Whatever their lengths are, and wherever fragments cut them."""
    episodes, on_episode_end = episode_recorder()
    config = small_config(
        envs.CountingEnv,
        steps_per_iteration=1000,
        env_config={"lengths": [1, 5, 2, 4, 3]},
        fragment=fragment,
        num_envs=num_envs,
        random_steps=NEVER,
    ).callbacks(on_episode_end=on_episode_end)
    result = build(config).train()
    acted = [member for member, _ in episodes]
    counts = Counter(acted)
    assert len(acted) >= 320
    assert stats.chisquare([counts[k] for k in range(3)]).pvalue > 0.001
    # Independent of the episode before, and of the length.
    pairs = Counter(itertools.pairwise(acted))
    table = np.array([[pairs[i, j] for j in range(3)] for i in range(3)])
    assert stats.chi2_contingency(table).pvalue > 0.001
    lengths = Counter(episodes)
    table = np.array([[lengths[m, length] for length in range(1, 6)] for m in range(3)])
    assert stats.chi2_contingency(table).pvalue > 0.001
    assert result["ensemble"]["episodes_lifetime"] == {MEMBERS[k]: counts[k] for k in range(3)}


def test_sequence_of_members_does_not_depend_on_the_fragments(build):
    sequences = []
    for fragment in (3, 50):
        episodes, on_episode_end = episode_recorder()
        config = small_config(envs.CountingEnv, fragment=fragment, random_steps=NEVER).callbacks(
            on_episode_end=on_episode_end
        )
        train(build(config), 200)
        sequences.append([member for member, _ in episodes][:35])
    assert sequences[0] == sequences[1]


def test_the_assigned_member_is_the_one_whose_network_acts(build):
    """Each member plays another constant action: the buffer shows who really acted."""
    episodes, on_episode_end = episode_recorder()
    config = small_config(
        envs.CountingEnv,
        random_steps=0,
        num_steps_sampled_before_learning_starts=NEVER,
        env_config={"lengths": [4, 9]},
        fragment=7,
    ).callbacks(on_episode_end=on_episode_end)
    algo = build(config)
    act_constantly(algo, [-0.5, 0.0, 0.5])
    train(algo, 200)
    acted = np.round(rows_of(algo)["actions"][:, 0] * 2 + 1).astype(int)
    start = 0
    for member, length in episodes:
        assert (acted[start : start + length] == member).all()
        start += length
    assert len(episodes) > 20


@pytest.mark.parametrize("rule", ["uniform", "round", "softmax", "epsilon_greedy"])
def test_policy_selection(build, rule):
    """With R_k of 1, 3 and 2 before a fragment of 300 episodes, by hand: standardised by their
    spread √(2/3), -1.22, 1.22 and 0; and ε = 1 - 0.9 · 450,000 / 500,000 = 0.19."""
    episodes, on_episode_end = episode_recorder()
    config = small_config(
        envs.CountingEnv,
        fragment=300,
        policy_selection=rule,
        num_steps_sampled_before_learning_starts=NEVER,
        env_config={"lengths": [1]},
    ).callbacks(on_episode_end=on_episode_end)
    algo = build(config)
    algo.history.env_steps = 450_000
    algo.history.record_episodes([FinishedEpisode(k, r) for k, r in enumerate([1.0, 3.0, 2.0])])
    algo.training_step()
    counts = Counter(member for member, _ in episodes)
    softmax = np.exp(np.array([-1.0, 1.0, 0.0]) / np.sqrt(2 / 3))
    expected = {
        "uniform": np.full(3, 1 / 3),
        "round": np.full(3, 1 / 3),
        "softmax": softmax / softmax.sum(),
        "epsilon_greedy": np.array([0.19 / 3, 0.81 + 0.19 / 3, 0.19 / 3]),
    }[rule]
    observed = np.array([counts[k] for k in range(3)])
    assert observed.sum() == 300
    if rule == "round":
        assert observed.max() - observed.min() <= 1  # the first one was drawn before
        return
    assert stats.chisquare(observed, expected * 300).pvalue > 0.001


# ---------------------------------------------------------------------- The buffer


@pytest.mark.parametrize(("fragment", "num_envs"), [(1, 1), (7, 3), (64, 1), (33, 2)])
def test_buffer_holds_each_transition_once_and_in_order(build, fragment, num_envs):
    lengths, ends = [1, 6, 9, 2], ["truncates", "terminates", "truncates", "terminates"]
    config = small_config(
        envs.CountingEnv,
        env_config={"lengths": lengths, "ends": ends},
        fragment=fragment,
        num_envs=num_envs,
        random_steps=NEVER,
    )
    algo = build(config)
    train(algo, 230)
    rows = rows_of(algo)
    logs = [log for _, log in sorted(envs.CountingEnv.log.items()) if log]
    assert len(logs) == num_envs
    assert len(rows["rewards"]) == sum(len(log) for log in logs) == algo.history.env_steps
    instances = rows["obs"][:, 1] / envs.UNIT
    for instance, log in zip(sorted(set(instances)), logs, strict=True):
        own = {name: values[instances == instance] for name, values in rows.items()}
        steps = np.array(log)
        episode, step, action, terminated = steps[:, 0], steps[:, 1], steps[:, 2], steps[:, 3]
        assert np.array_equal(own["obs"][:, 2] / envs.UNIT, episode)
        assert np.array_equal(own["obs"][:, 3] / envs.UNIT, step - 1)
        assert np.array_equal(own["next_obs"][:, 2] / envs.UNIT, episode)
        assert np.array_equal(own["next_obs"][:, 3] / envs.UNIT, step)
        assert np.array_equal(own["rewards"] / envs.UNIT, episode + step)
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
    steps = np.sort(buffer.get_state()["rows"][:, 3] / envs.UNIT)
    assert np.array_equal(steps, np.arange(algo.history.env_steps - 80, algo.history.env_steps))
