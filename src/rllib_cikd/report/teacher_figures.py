"""Who teaches, who is best, and who surpasses the teacher: the paper's Figures 5a-5c and 9."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from rllib_cikd.report import figure_style as style
from rllib_cikd.report.distillation_tables import (
    PAPER_ABOVE,
    PAPER_ABOVE_LATE,
    THIRDS,
    count_above,
    ensemble_size,
    teachers,
)
from rllib_cikd.report.statistics import best_seed, shares
from rllib_cikd.report.study_data import StudyData

_ROWS_OF_PANELS = 4
_DASHED: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 0.9}


@dataclass(frozen=True)
class Timeline:
    """Which of several candidates is chosen over time, as teacher or best; one panel.

    Attributes:
        variant, task: Whose they are.
        candidates: Their names.
        runs: By name of the run, the index of the chosen candidate, by environment step. Where
            candidates are runs themselves, there is one of name "".
    """

    variant: str
    task: str
    candidates: list[str]
    runs: dict[str, pd.Series]

    @property
    def of_seeds(self) -> bool:
        return [*self.runs] == [""]


def teacher_timelines(data: StudyData, variants: Sequence[str]) -> list[Timeline]:
    """The teacher of every phase, a panel for each variant and task that has phases."""
    timelines = []
    for key in itertools.product(variants, data.tasks):
        if key in data.phases:
            phases = data.phases[key]
            runs = {
                f"{seed}": run.set_index("step")["teacher"]
                for seed, run in teachers(phases).groupby("seed")
            }
            members = [f"member {k}" for k in range(ensemble_size(phases))]
            timelines.append(Timeline(*key, members, runs))
    return timelines


def best_seed_timelines(data: StudyData, variants: Sequence[str]) -> list[Timeline]:
    """The best of the independent runs at every evaluation, of variants with one member."""
    return [
        Timeline(
            variant,
            task,
            [f"{seed}" for seed in curves.seeds],
            {"": pd.Series(best_seed(curves.returns["mean"]), curves.steps)},
        )
        for variant in variants
        for task in data.tasks
        for curves in data.curves_of([variant], task)
        if curves.num_members == 1 and len(curves.seeds) > 1
    ]


def draw_timelines(timelines: Sequence[Timeline]) -> list[Figure]:
    """A mark for every time and choice; each run has a lane for each candidate."""
    return [_timelines(*page) for page in _pages(timelines)]


def draw_shares(timelines: Sequence[Timeline]) -> list[Figure]:
    """How often each candidate was chosen: stacked for each run, or side by side."""
    return [_shares(*page) for page in _pages(timelines)]


def _pages(timelines: Sequence[Timeline]) -> list[tuple[list[Timeline], int]]:
    """The panels of each figure, and their number of columns; a variant's stay together."""
    blocks = [list(block) for _, block in itertools.groupby(timelines, key=lambda t: t.variant)]
    if not blocks:
        return []
    largest = max(len(block) for block in blocks)
    columns = style.columns_for(len(timelines) if largest == 1 else largest)
    together = max(1, _ROWS_OF_PANELS * columns // largest)
    return [
        (list(itertools.chain(*blocks[i : i + together])), columns)
        for i in range(0, len(blocks), together)
    ]


def _panels(timelines: Sequence[Timeline], *layout: Any) -> tuple[Figure, list[Axes], list[str]]:
    """A figure, a panel for each timeline, and the names of the most candidates in one."""
    figure, grid = style.panels([f"{t.variant}, {t.task}" for t in timelines], *layout)
    return figure, grid, max((t.candidates for t in timelines), key=len)


def _timelines(timelines: Sequence[Timeline], columns: int) -> Figure:
    lanes = max(len(t.runs) * len(t.candidates) for t in timelines)
    figure, grid, names = _panels(timelines, columns, 0.8 + 0.11 * lanes)
    for axes, timeline in zip(grid, timelines, strict=True):
        _draw_lanes(axes, timeline)
    style.count_steps(grid)
    if timelines[0].of_seeds:
        style.label_axes(grid, "environment steps", "best seed")
        return figure
    style.label_axes(grid, "environment steps", "seed")
    labels = names.copy()
    labels[0] += " (top lane)"
    labels[-1] += " (bottom lane)"
    marks = [
        Line2D([], [], linestyle="", markersize=4.5, label=label, **_mark(k))
        for k, label in enumerate(labels)
    ]
    style.legend_below(figure, marks)
    return figure


def _draw_lanes(axes: Axes, timeline: Timeline) -> None:
    size = len(timeline.candidates)
    # Every run is one unit high, the first on top; its candidates share that.
    lanes = (np.arange(size) + 0.5) / size - 0.5
    for row, (run, chosen) in enumerate(timeline.runs.items()):
        for k, candidate in enumerate(timeline.candidates):
            steps = chosen.index[chosen == k]
            heights = np.full(len(steps), row + lanes[k])
            label = f"{run} {candidate}"
            look: dict[str, Any] = {"linestyle": "", "markersize": 3, "markeredgewidth": 0}
            axes.plot(steps, heights, label=label, **look, **_mark(k))
    if timeline.of_seeds:
        axes.set_yticks(lanes, timeline.candidates)
    else:
        axes.set_yticks(range(len(timeline.runs)), [*timeline.runs])
        for row in range(1, len(timeline.runs)):
            axes.axhline(row - 0.5, color="#bbbbbb", linewidth=0.6)
    axes.set_ylim(len(timeline.runs) - 0.5, -0.5)
    axes.margins(x=0.02)


def _mark(index: int) -> dict[str, Any]:
    return {"color": style.colour(index), "marker": style.marker(index)}


def _shares(timelines: Sequence[Timeline], columns: int) -> Figure:
    figure, grid, names = _panels(timelines, columns)
    for axes, timeline in zip(grid, timelines, strict=True):
        _draw_shares(axes, timeline)
    if timelines[0].of_seeds:
        style.label_axes(grid, "seed", "share of evaluations")
        style.legend_below(figure, [Line2D([], [], label="an even share", **_DASHED)])
    else:
        style.label_axes(grid, "seed", "share of phases")
        style.legend_below(figure, [_patch(k, name) for k, name in enumerate(names)])
    return figure


def _draw_shares(axes: Axes, timeline: Timeline) -> None:
    size = len(timeline.candidates)
    heights = np.array([shares(chosen, size) for chosen in timeline.runs.values()])
    if timeline.of_seeds:
        axes.bar(timeline.candidates, heights[0], 0.7, **style.hatched(0))
        axes.axhline(1 / size, **_DASHED)
    else:
        bottoms = np.cumsum(heights, axis=1) - heights
        for k in range(size):
            axes.bar([*timeline.runs], heights[:, k], 0.7, bottoms[:, k], **style.hatched(k))
        axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def students_above_teacher(
    data: StudyData, variants: Sequence[str], references: Sequence[str]
) -> list[Figure]:
    """Share of students above their teacher after a phase, by third of training, over all seeds.

    Returns:
        Figures with a panel for each task; none if no run evaluated its members at its phases.
    """
    counts = {key: count_above(phases) for key, phases in data.phases.items()}
    counts = {key: count for key, count in counts.items() if count[:, 1].any()}
    if not counts:
        return []
    tasks = [task for task in data.tasks if any(task == of for _, of in counts)]
    known = [variant for variant in variants if any(variant == of for of, _ in counts)]
    groups = style.groups_of_variants(known, [v for v in references if v in known])
    return [_students(counts, tasks, group) for group in groups]


def _students(
    counts: dict[tuple[str, str], np.ndarray], tasks: Sequence[str], variants: Sequence[str]
) -> Figure:
    figure, grid = style.panels(tasks, style.columns_for(len(tasks)))
    width = 0.8 / len(variants)
    dotted = _DASHED | {"linestyle": ":", "linewidth": 1.5}
    for axes, task in zip(grid, tasks, strict=True):
        for i, variant in enumerate(variants):
            above, students = counts.get((variant, task), np.zeros((3, 2))).T
            places = np.arange(3) + (i - (len(variants) - 1) / 2) * width
            axes.bar(places, above / np.maximum(students, 1), width, **style.hatched(i + 1))
        axes.set_xticks(range(3), [third.removesuffix(" third") for third in THIRDS])
        axes.hlines(PAPER_ABOVE, -0.5, 2.5, **_DASHED)
        axes.hlines(PAPER_ABOVE_LATE, 1.5, 2.5, **dotted)
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    style.label_axes(grid, "third of training", "students above their teacher")
    handles = [
        *(_patch(i + 1, variant) for i, variant in enumerate(variants)),
        Line2D([], [], color="black", linestyle="--", label=f"paper, overall: {PAPER_ABOVE:.0%}"),
        Line2D([], [], color="black", linestyle=":", label=f"paper, late: {PAPER_ABOVE_LATE:.0%}"),
    ]
    style.legend_below(figure, handles)
    return figure


def _patch(index: int, label: str) -> Patch:
    return Patch(label=label, **style.hatched(index))
