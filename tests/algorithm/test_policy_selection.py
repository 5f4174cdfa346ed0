"""Who acts in the next episode: probabilities by hand."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest
from scipy import stats

from rllib_cikd.algorithm.policy_selection import (
    POLICY_SELECTIONS,
    next_in_round,
    selection_probabilities,
)

NAN = math.nan
RETURNS = (
    [1.0, 2.0, 3.0],
    [5.0, 5.0, 5.0],
    [NAN, NAN, NAN],
    [NAN, -4.0, 7.0],
    [NAN, 3.0, NAN],
    [-1e6, 1e6, 0.0],
    [2.0],
    [NAN],
)


@pytest.mark.parametrize("rule", POLICY_SELECTIONS)
@pytest.mark.parametrize("returns", RETURNS, ids=str)
@pytest.mark.parametrize("env_steps", [0, 250_000, 10_000_000])
def test_probabilities_are_probabilities(rule, returns, env_steps):
    p = selection_probabilities(rule, returns, env_steps)
    assert p.shape == (len(returns),)
    assert (p > 0).all()  # nobody is ever shut out
    assert p.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("returns", RETURNS, ids=str)
def test_uniform_looks_at_no_return(returns):
    n = len(returns)
    np.testing.assert_array_equal(selection_probabilities("uniform", returns), [1 / n] * n)


@pytest.mark.parametrize("rule", POLICY_SELECTIONS)
def test_uniform_while_no_member_has_a_return(rule):
    p = selection_probabilities(rule, [NAN, NAN, NAN, NAN], env_steps=10**7)
    np.testing.assert_allclose(p, [0.25] * 4)


# ---------------------------------------------------------------- softmax


def test_softmax_by_hand():
    """Mean 3, deviations -2, 0, 2, their root mean square √(8/3): scores -1.2247, 0, 1.2247.

    e^-1.22474 = 0.29383, 1, e^1.22474 = 3.40330, sum 4.69713: 0.06256, 0.21290, 0.72455.
    """
    p = selection_probabilities("softmax", [1.0, 3.0, 5.0])
    np.testing.assert_allclose(p, [0.06256, 0.21290, 0.72455], atol=1e-5)


def test_softmax_knows_no_unit():
    """Returns in the thousands and in the hundredths select alike."""
    p = selection_probabilities("softmax", [1.0, 2.0, 5.0])
    for scale, offset in ((1e4, -3e4), (1e-2, 7.0)):
        other = selection_probabilities("softmax", [scale * r + offset for r in (1.0, 2.0, 5.0)])
        np.testing.assert_allclose(other, p, rtol=1e-9)


def test_softmax_counts_an_unknown_member_as_average():
    """Known: 1 and 5, scores -1 and 1; unknown: 0. e^-1 + 1 + e = 4.08616."""
    p = selection_probabilities("softmax", [1.0, NAN, 5.0])
    np.testing.assert_allclose(p, np.exp([-1, 0, 1]) / 4.0861613, rtol=1e-6)


@pytest.mark.parametrize("value", [5.0, 0.1, -1234.567])
def test_softmax_of_equals_is_uniform(value):
    """Also where the mean of equal numbers is not that number: 0.1 + 0.1 + 0.1 > 0.3."""
    np.testing.assert_allclose(selection_probabilities("softmax", [value] * 3), [1 / 3] * 3)
    p = selection_probabilities("softmax", [value] * 3 + [NAN])
    np.testing.assert_allclose(p, [0.25] * 4, rtol=1e-6)


# ---------------------------------------------------------------- ε-greedy


@pytest.mark.parametrize(
    ("env_steps", "epsilon"),
    [(0, 1.0), (125_000, 0.775), (250_000, 0.55), (500_000, 0.1), (600_000, 0.1)],
)
def test_epsilon_greedy_by_hand(env_steps, epsilon):
    """ε falls from 1 to 0.1 over 500,000 steps: 1 - 0.9 t / 500,000. With ε anyone of three."""
    p = selection_probabilities("epsilon_greedy", [1.0, 3.0, 2.0], env_steps)
    np.testing.assert_allclose(p, [epsilon / 3, 1 - epsilon + epsilon / 3, epsilon / 3])


def test_epsilon_greedy_never_takes_an_unknown_member_for_the_best():
    """ε = 0.1 and four members: 0.1 / 4 = 0.025 each, and 0.9 more for member 2."""
    p = selection_probabilities("epsilon_greedy", [NAN, -9.0, -3.0, NAN], env_steps=10**6)
    np.testing.assert_allclose(p, [0.025, 0.025, 0.925, 0.025])


def test_epsilon_greedy_gives_a_tie_to_the_lowest_index():
    p = selection_probabilities("epsilon_greedy", [1.0, 4.0, 4.0], env_steps=10**6)
    np.testing.assert_allclose(p, [0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3])


def test_in_a_round_every_member_acts_once():
    rng, left = np.random.default_rng(0), []
    members = [next_in_round(left, 3, rng) for _ in range(3 * 600)]
    rounds = [tuple(members[i : i + 3]) for i in range(0, len(members), 3)]
    assert {tuple(sorted(one)) for one in rounds} == {(0, 1, 2)}
    counts = collections.Counter(rounds)
    assert len(counts) == 6  # every order
    assert stats.chisquare([*counts.values()]).pvalue > 0.001
    assert type(members[0]) is int
