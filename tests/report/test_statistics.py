"""The report's statistics against scipy's, rliable's and hand-worked numbers."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rllib_cikd.report import statistics


def test_mean_and_interval_are_scipys_and_the_same_every_time():
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    expected = stats.bootstrap(
        (values,), np.mean, method="BCa", confidence_level=0.95, rng=np.random.default_rng(0)
    ).confidence_interval
    for _ in range(2):
        interval = statistics.mean_interval(values)
        assert interval.mean == pytest.approx(31 / 5)
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_intervals_of_a_curve_are_those_of_its_steps():
    curve = np.array([[1.0, 5.0, 7.0], [2.0, 5.0, 9.0], [4.0, 5.0, 3.0]])  # [S, T]
    together = statistics.mean_interval(curve)
    for t in (0, 2):
        alone = stats.bootstrap(
            (curve[:, t],), np.mean, method="BCa", rng=np.random.default_rng(0)
        ).confidence_interval
        assert (together.low[t], together.high[t]) == pytest.approx((alone.low, alone.high))
    assert together.low[1] == together.high[1] == 5


def test_one_seed_and_equal_seeds_need_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = statistics.mean_interval(np.array([3.0]))
        equal = statistics.mean_interval(np.array([0.1, 0.1, 0.1]))
        nearly = statistics.mean_interval(np.array([1e6, 1e6 + 1e-9]))
    assert one.mean == 3
    assert np.isnan([one.low, one.high]).all()
    assert (equal.low, equal.high) == pytest.approx((0.1, 0.1))
    assert nearly.low == nearly.high == pytest.approx(1e6)


def test_area_under_curve_by_hand():
    # (0+10)/2 * 10 + (10+40)/2 * 30 = 50 + 750 = 800, over 40 steps.
    area = statistics.area_under_curve(np.array([10, 20, 50]), np.array([[0.0, 10.0, 40.0]]))
    assert area == pytest.approx([20.0])
    assert statistics.area_under_curve(np.array([10]), np.array([[7.0]])) == [7.0]


def test_steps_to_reach():
    steps, curve = np.array([10, 20, 30, 40]), np.array([1.0, 5.0, 3.0, 6.0])
    assert statistics.steps_to_reach(steps, curve, 4.9) == 20
    assert statistics.steps_to_reach(steps, curve, 5.0) == 20
    assert statistics.steps_to_reach(steps, curve, 5.1) == 40
    assert statistics.steps_to_reach(steps, curve, 6.1) is None


def test_shares_and_best_seed():
    assert statistics.shares(np.array([2, 0, 2, 2]), 5).tolist() == [0.25, 0, 0.75, 0, 0]
    returns = np.array([[1.0, 9.0, 3.0], [2.0, 8.0, 3.0]])
    assert statistics.best_seed(returns).tolist() == [1, 0, 0]


def test_students_above_their_teacher():
    nan = np.nan
    # Three phases of three members, whose teachers are 0, 2 and 1; returns row by row.
    phases = pd.DataFrame(
        {"variant": "a", "task": "T", "seed": 0, "phase": np.repeat([1, 2, 3], 3)}
    )
    phases["index"], phases["teacher"] = np.tile([0, 1, 2], 3), np.repeat([0, 2, 1], 3)
    phases["return_after"] = [5.0, 6.0, 4.0, 9.0, 7.0, 7.0, 1.0, nan, 1.0]
    above = statistics.above_teacher(phases)
    np.testing.assert_array_equal(above, [nan, 1, 0, 1, 0, nan, nan, nan, nan])
    # The same seed and phase of another variant has a teacher of its own.
    other = phases.assign(variant="b", return_after=phases["return_after"] + 100)
    both = pd.concat([phases, other], ignore_index=True)
    np.testing.assert_array_equal(statistics.above_teacher(both), [*above, *above])


def test_boundaries_of_thirds_belong_to_the_earlier_one():
    thirds = statistics.training_third(np.array([1, 30, 31, 60, 61, 90]), 90)
    assert thirds.tolist() == [0, 0, 1, 1, 2, 2]


SCORES = np.array([[0.0, 1.0], [0.2, 0.9], [0.6, 0.7], [0.5, 5.0]])  # [S, tasks]


def test_interquartile_mean_by_hand():
    # Sorted: 0, .2 | .5, .6, .7, .9 | 1, 5; the middle half's mean is 2.7 / 4.
    interval = statistics.interquartile_mean(SCORES)
    assert interval.mean == pytest.approx(0.675)
    assert interval.mean == pytest.approx(stats.trim_mean(SCORES, 0.25, axis=None))


def test_interquartile_means_interval_resamples_each_task_by_itself():
    rng = np.random.default_rng(123)
    drawn = [
        stats.trim_mean(
            np.stack([rng.choice(task, len(task)) for task in SCORES.T]), 0.25, axis=None
        )
        for _ in range(4_000)
    ]
    interval = statistics.interquartile_mean(SCORES)
    # The quantiles of 2,000 resamples have a standard error of about 0.01 here.
    assert (interval.low, interval.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), 0.08)
    state = np.random.get_state()[1].copy()
    again = statistics.interquartile_mean(SCORES)
    assert (interval.low, interval.high) == (again.low, again.high)
    assert (np.random.get_state()[1] == state).all()


def rliable_modules():
    try:
        from rliable import library, metrics
    except (ImportError, TypeError) as error:  # arch 7 with pandas 3: a TypeError
        pytest.skip(f"rliable cannot be imported: {error}")
    return library, metrics


def test_interquartile_mean_is_rliables():
    library, metrics = rliable_modules()
    state = np.random.get_state()
    np.random.seed(0)  # the generator that rliable draws from, whatever its `random_state`
    try:
        means, intervals = library.get_interval_estimates(
            {"a": SCORES}, lambda scores: np.array([metrics.aggregate_iqm(scores)]), reps=4_000
        )
    finally:
        np.random.set_state(state)
    ours = statistics.interquartile_mean(SCORES)
    assert ours.mean == pytest.approx(means["a"][0])
    assert (ours.low, ours.high) == pytest.approx(intervals["a"].ravel(), 0.08)


OTHERS = np.array([[0.1, 1.0], [0.3, 0.8], [0.2, 2.0]])  # [S, tasks]


def test_probability_of_improvement_by_hand():
    # Task 1: 0 is above none of .1, .3, .2; .2 above one, equal to one; .6 and .5 above all: 7.5 of
    # 12 pairs. Task 2: 1 above one, equal to one; .9 above one; .7 none; 5 above all: 5.5 of 12.
    interval = statistics.probability_of_improvement([*SCORES.T], [*OTHERS.T])
    assert interval.mean == pytest.approx((7.5 / 12 + 5.5 / 12) / 2)
    ranks = [
        stats.mannwhitneyu(ours, theirs).statistic / 12
        for ours, theirs in zip(SCORES.T, OTHERS.T, strict=True)
    ]
    assert interval.mean == pytest.approx(np.mean(ranks))
    back = statistics.probability_of_improvement([*OTHERS.T], [*SCORES.T])
    assert back.mean == pytest.approx(1 - interval.mean)


def test_probability_of_improvement_is_rliables():
    library, metrics = rliable_modules()
    state = np.random.get_state()
    np.random.seed(0)
    try:
        means, intervals = library.get_interval_estimates(
            {"a,b": (SCORES, OTHERS)},
            lambda ours, theirs: np.array([metrics.probability_of_improvement(ours, theirs)]),
            reps=400,
        )
    finally:
        np.random.set_state(state)
    interval = statistics.probability_of_improvement([*SCORES.T], [*OTHERS.T])
    assert interval.mean == pytest.approx(means["a,b"][0])
    # The quantiles of 400 resamples have a standard error of about 0.02 here.
    assert (interval.low, interval.high) == pytest.approx(intervals["a,b"].ravel(), abs=0.06)


def test_probability_of_improvement_of_one_seed_has_no_interval():
    one = statistics.probability_of_improvement([np.array([3.0])], [np.array([1.0, 4.0])])
    assert one.mean == 0.5
    assert np.isnan([one.low, one.high]).all()
