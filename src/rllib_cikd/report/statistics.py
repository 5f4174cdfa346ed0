"""Statistics of curves, as pure functions of arrays.

Shapes: S seeds, T evaluations, P phases, K members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import integrate, stats

_CONFIDENCE = 0.95
# Every interval draws from a generator of its own: none depends on what was computed before it.
_SEED = 0
_STRATIFIED_RESAMPLES = 2_000


@dataclass(frozen=True)
class Interval:
    """An average with its 95% interval; `low` and `high` are NaN where one seed gives none."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def mean_interval(values: np.ndarray) -> Interval:
    """Means over seeds with BCa bootstrap intervals (`scipy.stats.bootstrap`).

    Args:
        values: `[S, ...]`, no NaN. One seed has no interval; where all seeds agree, it is
            that one value.

    Returns:
        Arrays `[...]`.
    """
    mean = np.asarray(values.mean(axis=0))
    if len(values) == 1:
        none = np.full_like(mean, np.nan)
        return Interval(mean, none, none)
    columns = values.reshape(len(values), -1)
    low, high = mean.ravel().copy(), mean.ravel().copy()
    # BCa's acceleration divides by the spread; that of rounding errors alone is none.
    varied = np.ptp(columns, axis=0) > 1e-9 * np.abs(columns).max(axis=0)
    if varied.any():
        interval = stats.bootstrap(
            (columns[:, varied],),
            np.mean,
            axis=0,
            confidence_level=_CONFIDENCE,
            method="BCa",
            batch=250,
            rng=np.random.default_rng(_SEED),
        ).confidence_interval
        low[varied], high[varied] = interval
    return Interval(mean, low.reshape(mean.shape), high.reshape(mean.shape))


def interquartile_mean(scores: np.ndarray) -> Interval:
    """The mean of the middle half of all scores, with a stratified bootstrap interval.

    R. Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice*
    (2021): the seeds of each task are resampled by themselves, the interval is the percentiles'.
    Statistic and interval are those of their `rliable`.

    Args:
        scores: `[S, tasks]`. One seed has no interval.
    """

    def middle(*tasks: np.ndarray, axis: int = -1) -> np.ndarray:
        return stats.trim_mean(np.concatenate(tasks, axis=axis), 0.25, axis=axis)

    return _stratified_interval(middle, scores.T)


def probability_of_improvement(
    returns: Sequence[np.ndarray], others: Sequence[np.ndarray]
) -> Interval:
    """How likely a run is above another method's run on the same task, averaged over tasks.

    The Mann-Whitney statistic over the number of pairs: ties count half. Source and interval as
    of `interquartile_mean`; the runs of both methods are resampled.

    Args:
        returns: `[S]` of each task.
        others: The other method's, of the same tasks; S may differ. One seed has no interval.
    """

    def above(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        pairs = zip(samples[: len(returns)], samples[len(returns) :], strict=True)
        # [..., S, 1] against [..., 1, S]
        differences = (ours[..., :, None] - theirs[..., None, :] for ours, theirs in pairs)
        of_tasks = [(1 + np.sign(d)).mean(axis=(-2, -1)) / 2 for d in differences]
        return np.mean(of_tasks, axis=0)

    return _stratified_interval(above, [*returns, *others])


def _stratified_interval(
    statistic: Callable[..., np.ndarray], samples: Sequence[np.ndarray]
) -> Interval:
    """Of a statistic of several samples, each of which is resampled by itself."""
    value = np.asarray(statistic(*samples))
    if min(len(sample) for sample in samples) == 1:
        return Interval(value, np.array(np.nan), np.array(np.nan))
    low, high = stats.bootstrap(
        tuple(samples),
        statistic,
        vectorized=True,
        n_resamples=_STRATIFIED_RESAMPLES,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return Interval(value, np.asarray(low), np.asarray(high))


def normalise(returns: np.ndarray, start: float, end: float) -> np.ndarray:
    """Scores: 0 at the baseline's `start`, 1 at its `end`; that must be above the start."""
    return (returns - start) / (end - start)


def area_under_curve(steps: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """The mean return over `steps` `[T]` by the trapezoidal rule, `[S]` of `[S, T]`."""
    if len(steps) == 1:
        return returns[:, 0]
    return integrate.trapezoid(returns, steps, axis=1) / (steps[-1] - steps[0])


def steps_to_reach(steps: np.ndarray, curve: np.ndarray, threshold: float) -> int | None:
    """The first of `steps` `[T]` at which `curve` `[T]` is at `threshold` or above."""
    reached = np.flatnonzero(curve >= threshold)
    return int(steps[reached[0]]) if reached.size else None


def shares(indices: pd.Series, size: int) -> np.ndarray:
    """How often each of 0 … `size` - 1 is among `indices`, as shares `[size]`."""
    return np.bincount(indices, minlength=size) / len(indices)


def best_seed(returns: np.ndarray) -> np.ndarray:
    """The row of `[S, T]` with the highest return at each evaluation, `[T]`; ties: the first."""
    return returns.argmax(axis=0)


def above_teacher(phases: pd.DataFrame) -> pd.Series:
    """Whether each student's return after a phase exceeds its teacher's: 1 or 0.

    Args:
        phases: With `variant`, `task`, `seed`, `phase`, `index` (of the member), `teacher` and
            `return_after`.

    Returns:
        NaN of teachers, and where either return was not measured.
    """
    phase = ["variant", "task", "seed", "phase"]
    taught = phases[phases["index"] == phases["teacher"]].set_index(phase)["return_after"]
    teachers_return = phases.join(taught.rename("of_teacher"), on=phase)["of_teacher"]
    ours = phases["return_after"]
    measured = ours.notna() & teachers_return.notna() & (phases["index"] != phases["teacher"])
    return (ours > teachers_return).astype(float).where(measured)


def training_third(steps: np.ndarray, last_step: int) -> np.ndarray:
    """0, 1 or 2 for each of `steps` in 1 … `last_step`; boundaries are of the earlier third."""
    return (3 * steps - 1) // last_step
