"""The report's tables of returns: every task, all tasks together, every seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rllib_cikd.common.text import format_duration
from rllib_cikd.report.curves import SUMMARIES, Curves, Study
from rllib_cikd.report.markdown import NONE, digits_for, interval, number, table
from rllib_cikd.report.statistics import (
    area_under_curve,
    interquartile_mean,
    mean_interval,
    normalise,
    steps_to_reach,
)

_MEMBERS = ["mean member", "elected member", "best", "worst"]
# In place of the figures that a lone agent would repeat.
_SAME = "="


def task_section(study: Study, task: str, variants: Sequence[str], baseline: str) -> list[str]:
    """Markdown blocks: final return, best return, area under the curve, steps to the baseline."""
    curves = [study.curves[v, task] for v in variants if (v, task) in study.curves]
    largest = max(float(np.nanmax(np.abs(c.returns["mean"]))) for c in curves)
    digits = digits_for(largest)

    def each(figure: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> list[list[str]]:
        return [_row(c, lambda t, r: interval(mean_interval(figure(t, r)), digits)) for c in curves]

    finals = [
        [*row, f"{c.steps[-1]:,}", f"{len(c.seeds)}", format_duration(np.median(c.wall_seconds))]
        for row, c in zip(each(lambda _, returns: returns[:, -1]), curves, strict=True)
    ]
    blocks = [
        "Final return, at the last step which all seeds have:",
        table(["variant", *_MEMBERS, "at step", "seeds", "median wall time"], finals),
        "Best return over training:",
        table(["variant", *_MEMBERS], each(lambda _, returns: returns.max(axis=1))),
        "Area under the curve, divided by its range of steps: the mean return over training:",
        table(["variant", *_MEMBERS], each(area_under_curve)),
    ]
    if (baseline, task) not in study.curves:
        return [*blocks, f"Steps to the baseline's return: {baseline} has no run on this task."]
    threshold = float(study.curves[baseline, task].returns["mean"][:, -1].mean())
    reached = [_row(c, lambda t, r: _reach(t, r, threshold)) for c in curves]
    return [
        *blocks,
        f"Steps to reach {number(threshold, digits)}, the final return of {baseline}:",
        table(["variant", *_MEMBERS], reached),
    ]


def _row(curves: Curves, cell: Callable[[np.ndarray, np.ndarray], str]) -> list[str]:
    """A variant's name and, for each summary, `cell(steps [t], returns [S, t])`."""
    if curves.num_members == 1:
        return [curves.variant, cell(*curves.complete("mean")), *[_SAME] * 3]
    complete = [curves.complete(summary) for summary in SUMMARIES]
    return [curves.variant, *(cell(t, r) if t.size else NONE for t, r in complete)]


def _reach(steps: np.ndarray, returns: np.ndarray, threshold: float) -> str:
    step = steps_to_reach(steps, returns.mean(axis=0), threshold)
    return "not reached" if step is None else f"{step:,}"


def all_tasks_section(study: Study, variants: Sequence[str], baseline: str) -> list[str]:
    """Markdown blocks: interquartile means of normalised final returns, and what is left out."""
    tasks: list[str] = []
    unusable: list[str] = []
    for task in study.tasks:
        start, end = _scale(study, task, baseline)
        (tasks if end > start else unusable).append(task)
    blocks = []
    if unusable:
        blocks.append(
            f"Left out, for {baseline} does not improve on them (or has no run), which leaves "
            f"nothing to normalise by: {', '.join(unusable)}."
        )
    if len(tasks) < 2:
        return [*blocks, "Fewer than two tasks are left: no figure over all tasks."]
    rows, left_out = [], []
    for variant in variants:
        reason = _unfit(study, variant, tasks)
        if reason:
            left_out.append(f"{variant} ({reason})")
        else:
            rows.append(_scores_row(study, variant, tasks, baseline))
    if left_out:
        blocks.append(f"Variants left out: {'; '.join(left_out)}.")
    return [table(["variant", *_MEMBERS, "seeds × tasks"], rows), *blocks] if rows else blocks


def _scale(study: Study, task: str, baseline: str) -> tuple[float, float]:
    """The baseline's mean return at its first and last evaluation; NaN without one."""
    if (baseline, task) not in study.curves:
        return np.nan, np.nan
    means = study.curves[baseline, task].returns["mean"].mean(axis=0)
    return float(means[0]), float(means[-1])


def _unfit(study: Study, variant: str, tasks: Sequence[str]) -> str:
    missing = [task for task in tasks if (variant, task) not in study.curves]
    if missing:
        return f"no run on {', '.join(missing)}"
    seeds = {task: len(study.curves[variant, task].seeds) for task in tasks}
    if len(set(seeds.values())) > 1:
        return "unequal numbers of seeds: " + ", ".join(f"{t} {n}" for t, n in seeds.items())
    return ""


def _scores_row(study: Study, variant: str, tasks: Sequence[str], baseline: str) -> list[str]:
    curves = [study.curves[variant, task] for task in tasks]
    scales = [_scale(study, task, baseline) for task in tasks]
    cells = []
    for summary in SUMMARIES:
        finals = [c.returns[summary][:, -1] for c in curves]
        scores = [normalise(f, *scale) for f, scale in zip(finals, scales, strict=True)]
        matrix = np.stack(scores, axis=1)
        cells.append(NONE if np.isnan(matrix).any() else interval(interquartile_mean(matrix), 2))
    if all(c.num_members == 1 for c in curves):
        cells[1:] = [_SAME] * 3
    return [variant, *cells, f"{len(curves[0].seeds)} × {len(tasks)}"]


def seeds_table(study: Study, variants: Sequence[str]) -> str:
    """Every seed's final returns, at the last step which all seeds of the variant have."""
    rows = []
    for task in study.tasks:
        for variant in variants:
            if (variant, task) not in study.curves:
                continue
            curves = study.curves[variant, task]
            digits = digits_for(float(np.nanmax(np.abs(curves.returns["mean"]))))
            for i, seed in enumerate(curves.seeds):
                finals = [number(curves.returns[s][i, -1], digits) for s in SUMMARIES]
                if curves.num_members == 1:
                    finals[1:] = [_SAME] * 3
                last = curves.last_steps[i]
                rows.append(
                    [task, variant, f"{seed}", f"{curves.steps[-1]:,}", *finals, f"{last:,}"]
                )
    header = ["task", "variant", "seed", "at step", *_MEMBERS, "run's last evaluation"]
    return table(header, rows, words=2)
