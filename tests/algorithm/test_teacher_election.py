"""R_k and the election of the teacher, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rllib_cikd.algorithm.teacher_election import TEACHER_ELECTIONS, ReturnWindows, elect_teacher

NAN = math.nan


def test_return_is_the_mean_of_the_last_m_episodes():
    """M = 3. Member 0: 1, 2, 6 -> 3, then 10 -> (2 + 6 + 10) / 3 = 6. Member 1: 4, -5 -> -0.5."""
    windows = ReturnWindows(3, 3)
    for episode_return in (1.0, 2.0, 6.0):
        windows.record(0, episode_return)
    windows.record(1, 4.0)
    windows.record(1, -5.0)
    assert windows.means() == pytest.approx([3.0, -0.5, NAN], nan_ok=True)
    windows.record(0, 10.0)
    assert windows.means() == pytest.approx([6.0, -0.5, NAN], nan_ok=True)


def test_window_of_one_is_the_last_episode():
    windows = ReturnWindows(1, 1)
    windows.record(0, 7.0)
    windows.record(0, -2.0)
    assert windows.means() == [-2.0]


def test_old_episodes_no_longer_count():
    """M = 2, horizon 100. After 250 steps those that ended at 150 and before are out."""
    windows = ReturnWindows(3, 2, return_horizon=100)
    for member, episode_return, step in ((0, 1.0, 150), (0, 3.0, 151), (1, 5.0, 150)):
        windows.record(member, episode_return, step)
    assert windows.means(249) == pytest.approx([2.0, 5.0, NAN], nan_ok=True)
    assert windows.means(250) == pytest.approx([3.0, NAN, NAN], nan_ok=True)
    restored = ReturnWindows(3, 2, return_horizon=100)
    restored.set_state(windows.get_state())
    assert restored.means(250) == pytest.approx([3.0, NAN, NAN], nan_ok=True)
    assert all(math.isnan(value) for value in restored.means(251))
    windows.record(0, 9.0, 250)  # of the last two, one is too old by then
    assert windows.means(251) == pytest.approx([9.0, NAN, NAN], nan_ok=True)


def test_no_member_has_a_return_before_its_first_episode():
    assert all(math.isnan(value) for value in ReturnWindows(4, 5).means())


def test_a_restored_window_goes_on():
    """M = 2: [1, 3] is restored, 5 drops the 1: (3 + 5) / 2 = 4. Neither what the other windows
    held before nor what the first recorded since is part of it."""
    windows = ReturnWindows(2, 2)
    windows.record(0, 1.0)
    windows.record(0, 3.0)
    restored = ReturnWindows(2, 2)
    restored.record(0, 99.0)
    restored.record(1, 99.0)
    state = windows.get_state()
    windows.record(0, 50.0)
    restored.set_state(state)
    assert restored.means() == pytest.approx([2.0, NAN], nan_ok=True)
    restored.record(0, 5.0)
    assert restored.means() == pytest.approx([4.0, NAN], nan_ok=True)
    assert windows.means() == pytest.approx([26.5, NAN], nan_ok=True)


@pytest.mark.parametrize(
    ("returns", "best", "worst"),
    [
        ([1.0, 3.0, 2.0], 1, 0),
        ([-1.0, -3.0, -2.0], 0, 1),  # a task of negative returns: 0 is no special value
        ([2.0, 5.0, 5.0, 2.0], 1, 0),  # the lowest index wins a tie
        ([NAN, 1.0, 2.0], 2, 1),  # no episode, no R_k: neither best nor worst
        ([1.0, NAN, -1.0, NAN], 0, 2),
        ([NAN, NAN, -7.0], 2, 2),
        ([math.inf, 1.0, -math.inf], 0, 2),
        ([4.0], 0, 0),
        ([NAN, NAN], None, None),
        ([], None, None),
    ],
)
def test_best_and_worst(returns, best, worst):
    assert elect_teacher(returns) == best  # the default rule
    assert elect_teacher(returns, "best") == best
    assert elect_teacher(returns, "worst") == worst


def test_random_teacher_is_uniform_over_the_candidates():
    """3000 draws among members 0, 2 and 3: χ² below its 99.9 % quantile, 13.8 for 2 degrees."""
    rng = np.random.default_rng(0)
    returns = [100.0, NAN, -5.0, 0.0, NAN]
    elected = [elect_teacher(returns, "random", rng) for _ in range(3000)]
    counts = np.bincount(elected, minlength=5)
    assert counts[1] == counts[4] == 0
    assert sum((counts[[0, 2, 3]] - 1000) ** 2 / 1000) < 13.8


def test_random_teacher_follows_its_generator():
    draws = [
        [elect_teacher([1.0, 2.0, 3.0], "random", rng) for _ in range(50)]
        for rng in (np.random.default_rng(seed) for seed in (1, 1, 2))
    ]
    assert draws[0] == draws[1] != draws[2]
    assert elect_teacher([NAN, 2.0], "random") == 1  # one candidate needs no generator


def test_without_a_candidate_nobody_is_elected_by_any_rule():
    for rule in TEACHER_ELECTIONS:
        assert elect_teacher([NAN, NAN, NAN], rule, np.random.default_rng(0)) is None


@pytest.mark.parametrize("rule", TEACHER_ELECTIONS)
def test_the_elected_index_is_a_plain_int(rule):
    """It goes into results and checkpoints."""
    teacher = elect_teacher(list(np.array([1.0, 2.0])), rule, np.random.default_rng(0))
    assert type(teacher) is int
