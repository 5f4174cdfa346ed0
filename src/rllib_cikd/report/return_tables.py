"""The report's tables of returns: every task, all tasks together, every seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rllib_cikd.common.text import format_duration
from rllib_cikd.report.markdown import NONE, digits_for, interval, number, table
from rllib_cikd.report.statistics import (
    Interval,
    area_under_curve,
    interquartile_mean,
    mean_interval,
    normalise,
    probability_of_improvement,
    steps_to_reach,
)
from rllib_cikd.report.study_data import Curves, StudyData, last_common_step

#: Columns of every table, in this order, and their headings.
_SUMMARIES = {"mean": "mean member", "elected": "elected member", "best": "best", "worst": "worst"}
_HEADER = ["variant", *_SUMMARIES.values()]
# In place of the figures that a lone agent would repeat.
_SAME = "="


def task_section(data: StudyData, task: str, variants: Sequence[str], baseline: str) -> list[str]:
    """Markdown blocks: final return, best return, area under the curve, steps to the baseline.

    Nothing is compared with the baseline where there is no other variant.
    """
    every = data.curves_of(variants, task)
    digits = digits_for(max(float(np.abs(curves.returns["mean"]).max()) for curves in every))

    def rows(figure: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> list[list[str]]:
        def cell(curves: Curves, summary: str) -> str:
            steps, returns = curves.known(summary)
            return interval(mean_interval(figure(steps, returns)), digits) if steps.size else NONE

        return [_row(curves, cell) for curves in every]

    def reached(curves: Curves, summary: str) -> str:
        steps, returns = curves.known(summary)
        if not steps.size:
            return NONE
        step = steps_to_reach(steps, returns.mean(axis=0), threshold)
        return "not reached" if step is None else f"{step:,}"

    finals = [
        [
            *row,
            f"{curves.steps[-1]:,}",
            f"{len(curves.seeds)}",
            format_duration(float(np.median(curves.wall_seconds[:, -1]))),
        ]
        for row, curves in zip(rows(lambda _, returns: returns[:, -1]), every, strict=True)
    ]
    blocks = [
        "Final return, at the last step which all seeds have:",
        table([*_HEADER, "at step", "seeds", "median wall time"], finals),
        "Best return over training:",
        table(_HEADER, rows(lambda _, returns: returns.max(axis=1))),
        "Area under the curve, divided by its range of steps: the mean return over training:",
        table(_HEADER, rows(area_under_curve)),
    ]
    if [curves.variant for curves in every] == [baseline]:
        return blocks
    if (baseline, task) not in data.curves:
        return [*blocks, f"Steps to the baseline's return: {baseline} has no run on this task."]
    lone = data.curves[baseline, task]
    end = last_common_step(every) or int(lone.steps[-1])
    threshold = float(lone.at("mean", end).mean())
    return [
        *blocks,
        f"Steps to reach {number(threshold, digits)}, the return of {baseline} at step {end:,}:",
        table(_HEADER, [_row(curves, reached) for curves in every]),
    ]


def _row(curves: Curves, cell: Callable[[Curves, str], str]) -> list[str]:
    """A variant's name and a cell for each summary."""
    if curves.num_members == 1:
        return [curves.variant, cell(curves, "mean"), *[_SAME] * 3]
    return [curves.variant, *(cell(curves, summary) for summary in _SUMMARIES)]


def all_tasks_section(data: StudyData, variants: Sequence[str], baseline: str) -> list[str]:
    """Markdown blocks: normalised final returns, improvement on the baseline, what is left out.

    Final is the last step which all variants have on a task.
    """
    ends = {task: last_common_step(data.curves_of(variants, task)) for task in data.tasks}
    scales = {
        task: _scale(data.curves[baseline, task], last)
        for task, last in ends.items()
        if last is not None and (baseline, task) in data.curves
    }
    scales = {task: (start, end) for task, (start, end) in scales.items() if end > start}
    blocks = []
    if unusable := [task for task in data.tasks if task not in scales]:
        blocks.append(
            f"Left out, for {baseline} does not improve on them (or has no run, or shares no step "
            f"with all others), which leaves nothing to normalise by: {', '.join(unusable)}."
        )
    if len(scales) < 2:
        return [*blocks, "Fewer than two tasks are left: no figure over all tasks."]
    reasons = {variant: _unfit(data, variant, [*scales]) for variant in variants}
    fit = {
        variant: [data.curves[variant, task] for task in scales]
        for variant in variants
        if not reasons[variant]
    }
    if left_out := [f"{variant} ({reason})" for variant, reason in reasons.items() if reason]:
        blocks.append(f"Variants left out: {'; '.join(left_out)}.")
    if not fit:
        return blocks

    def final(curves: Curves, summary: str) -> np.ndarray:
        step = ends[curves.task]
        assert step is not None
        return curves.at(summary, step)

    def score(every: Sequence[Curves], summary: str) -> Interval:
        scores = [normalise(final(c, summary), *scales[c.task]) for c in every]
        return interquartile_mean(np.stack(scores, axis=1))

    def improvement(every: Sequence[Curves], summary: str) -> Interval:
        others = [final(data.curves[baseline, c.task], "mean") for c in every]
        return probability_of_improvement([final(c, summary) for c in every], others)

    def row(every: Sequence[Curves], statistic: Callable) -> list[str]:
        """Of one variant, whose curves `every` are, one for each task."""

        def cell(_: Curves, summary: str) -> str:
            known = not any(np.isnan(final(curves, summary)).any() for curves in every)
            return interval(statistic(every, summary), 2) if known else NONE

        return _row(max(every, key=lambda curves: curves.num_members), cell)

    scores = [
        [*row(every, score), f"{len(every[0].seeds)} × {len(every)}"] for every in fit.values()
    ]
    improvements = [row(fit[v], improvement) for v in fit if v != baseline]
    tables = [table([*_HEADER, "seeds × tasks"], scores)]
    if improvements:
        tables += [
            f"Probability of improvement: how likely a run's final return is above that of a run "
            f"of {baseline} (its mean member), averaged over these tasks; 0.5 is no difference:",
            table(_HEADER, improvements),
        ]
    return [*tables, *blocks]


def _scale(baseline: Curves, last: int) -> tuple[float, float]:
    """The baseline's mean return at its first evaluation, and at step `last`."""
    return float(baseline.returns["mean"][:, 0].mean()), float(baseline.at("mean", last).mean())


def _unfit(data: StudyData, variant: str, tasks: Sequence[str]) -> str:
    if missing := [task for task in tasks if (variant, task) not in data.curves]:
        return f"no run on {', '.join(missing)}"
    seeds = {task: len(data.curves[variant, task].seeds) for task in tasks}
    if len(set(seeds.values())) > 1:
        return "unequal numbers of seeds: " + ", ".join(f"{t} {n}" for t, n in seeds.items())
    return ""


def seeds_table(data: StudyData, variants: Sequence[str]) -> str:
    """Every seed's final returns, at the last step which all seeds of the variant have."""
    rows = [
        _seed_row(curves, i)
        for task in data.tasks
        for curves in data.curves_of(variants, task)
        for i in range(len(curves.seeds))
    ]
    header = ["task", "variant", "seed", "at step", *_HEADER[1:], "run's last evaluation"]
    return table(header, rows, words=2)


def _seed_row(curves: Curves, i: int) -> list[str]:
    digits = digits_for(float(np.abs(curves.returns["mean"]).max()))
    variant, *finals = _row(curves, lambda c, who: number(c.returns[who][i, -1], digits))
    seed, step, last = curves.seeds[i], curves.steps[-1], curves.last_steps[i]
    return [curves.task, variant, f"{seed}", f"{step:,}", *finals, f"{last:,}"]
