"""Who teaches, who is best, and who surpasses the teacher: the paper's Figures 5a-5c and 9."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from rllib_cikd.report import drawing
from rllib_cikd.report.curves import Study
from rllib_cikd.report.distillation import PAPER_ABOVE, PAPER_ABOVE_LATE, THIRDS, count_above
from rllib_cikd.report.learning_curves import pages
from rllib_cikd.report.statistics import best_seed, proportions

_ROWS_OF_PANELS = 4
_EVEN: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 0.9}


@dataclass(frozen=True)
class Holders:
    """Who of several candidates holds a place over time; one panel.

    Attributes:
        variant, task: Whose they are.
        candidates: Their names, `[size]`.
        runs: Names of the runs; `[""]` if there is just one series.
        steps, holders: For each run, when `[n]`, and the index of who holds the place then.
    """

    variant: str
    task: str
    candidates: list[str]
    runs: list[str]
    steps: list[np.ndarray]
    holders: list[np.ndarray]

    @property
    def one_series(self) -> bool:
        return self.runs == [""]


def teachers(study: Study, variants: Sequence[str]) -> list[Holders]:
    """The teacher of every phase, a panel for each variant and task that has phases."""
    return [
        Holders(
            variant=variant,
            task=task,
            candidates=[f"member {k}" for k in range(max(run.num_members for run in runs))],
            runs=[f"{run.seed}" for run in runs],
            steps=[run.steps for run in runs],
            holders=[run.teachers for run in runs],
        )
        for variant in variants
        for task in study.tasks
        if (runs := study.phases.get((variant, task)))
    ]


def best_seeds(study: Study, variants: Sequence[str]) -> list[Holders]:
    """The best of the independent runs at every evaluation, of variants with one member."""
    return [
        Holders(
            variant=variant,
            task=task,
            candidates=[f"{seed}" for seed in curves.seeds],
            runs=[""],
            steps=[curves.steps],
            holders=[best_seed(curves.returns["mean"])],
        )
        for variant in variants
        for task in study.tasks
        if (curves := study.curves.get((variant, task)))
        and curves.num_members == 1
        and len(curves.seeds) > 1
    ]


def timelines(places: Sequence[Holders]) -> list[Figure]:
    """A mark for every time and holder; each run has a lane for each candidate."""
    return [_timelines(*page) for page in _pages(places)]


def bars(places: Sequence[Holders]) -> list[Figure]:
    """How often each candidate held the place: stacked for each run, or side by side."""
    return [_bars(*page) for page in _pages(places)]


def _pages(places: Sequence[Holders]) -> list[tuple[list[Holders], int]]:
    """The panels of each figure, and their number of columns; a variant's stay together."""
    blocks = [list(block) for _, block in itertools.groupby(places, key=lambda p: p.variant)]
    if not blocks:
        return []
    largest = max(len(block) for block in blocks)
    columns = drawing.columns_for(len(places) if largest == 1 else largest)
    together = max(1, _ROWS_OF_PANELS * columns // largest)
    return [
        (list(itertools.chain(*blocks[i : i + together])), columns)
        for i in range(0, len(blocks), together)
    ]


def _titles(places: Sequence[Holders]) -> list[str]:
    return [f"{place.variant}, {place.task}" for place in places]


def _timelines(places: Sequence[Holders], columns: int) -> Figure:
    lanes = max(len(place.runs) * len(place.candidates) for place in places)
    figure, grid = drawing.panels(_titles(places), columns, 0.8 + 0.11 * lanes)
    for axes, place in zip(grid, places, strict=True):
        _draw_lanes(axes, place)
    drawing.count_steps(grid)
    drawing.label_axes(grid, "environment steps", "best seed" if places[0].one_series else "seed")
    if not places[0].one_series:
        names = max((place.candidates for place in places), key=len)
        labels = names.copy()
        labels[0] += " (top lane)"
        labels[-1] += " (bottom lane)"
        drawing.legend_below(figure, [_mark(k, label) for k, label in enumerate(labels)])
    return figure


def _draw_lanes(axes: Axes, place: Holders) -> None:
    size = len(place.candidates)
    for row, (steps, holders) in enumerate(zip(place.steps, place.holders, strict=True)):
        for k in range(size):
            axes.plot(
                steps[holders == k],
                np.full((holders == k).sum(), _lane(row, k, size)),
                drawing.marker(k),
                color=drawing.colour(k),
                markersize=3,
                markeredgewidth=0,
                label=f"{place.runs[row]} {place.candidates[k]}",
            )
    if place.one_series:
        axes.set_yticks([_lane(0, k, size) for k in range(size)], place.candidates)
    else:
        axes.set_yticks(range(len(place.runs)), place.runs)
        for row in range(1, len(place.runs)):
            axes.axhline(row - 0.5, color="#bbbbbb", linewidth=0.6)
    axes.set_ylim(len(place.runs) - 0.5, -0.5)
    axes.margins(x=0.02)


def _lane(row: int, candidate: int, size: int) -> float:
    """Height of a candidate's lane; every run is one unit high, the first on top."""
    return row - 0.5 + (candidate + 0.5) / size


def _mark(index: int, label: str) -> Line2D:
    look: dict[str, Any] = {"color": drawing.colour(index), "marker": drawing.marker(index)}
    return Line2D([], [], linestyle="", markersize=4.5, label=label, **look)


def _bars(places: Sequence[Holders], columns: int) -> Figure:
    figure, grid = drawing.panels(_titles(places), columns)
    for axes, place in zip(grid, places, strict=True):
        _draw_bars(axes, place)
    if places[0].one_series:
        drawing.label_axes(grid, "seed", "share of evaluations")
        drawing.legend_below(figure, [Line2D([], [], label="an even share", **_EVEN)])
    else:
        drawing.label_axes(grid, "seed", "share of phases")
        names = max((place.candidates for place in places), key=len)
        drawing.legend_below(figure, [_patch(k, name) for k, name in enumerate(names)])
    return figure


def _draw_bars(axes: Axes, place: Holders) -> None:
    size = len(place.candidates)
    shares = np.array([proportions(holders, size) for holders in place.holders])
    if place.one_series:
        axes.bar(place.candidates, shares[0], 0.7, **_fill(0))
        axes.axhline(1 / size, **_EVEN)
    else:
        bottoms = np.cumsum(shares, axis=1) - shares
        for k in range(size):
            axes.bar(place.runs, shares[:, k], 0.7, bottoms[:, k], **_fill(k))
        axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def students_above_teacher(
    study: Study, variants: Sequence[str], references: Sequence[str]
) -> list[Figure]:
    """Share of students above their teacher after a phase, by third of training, over all seeds.

    Returns:
        Figures with a panel for each task; none if no run evaluated its members at its phases.
    """
    counts = {
        key: count for key, runs in study.phases.items() if (count := count_above(runs))[:, 1].any()
    }
    tasks = [task for task in study.tasks if any(task == of for _, of in counts)]
    known = [variant for variant in variants if any(variant == of for of, _ in counts)]
    beside = [variant for variant in references if variant in known]
    return [_students(counts, tasks, page) for page in pages(known, beside)] if counts else []


def _students(
    counts: dict[tuple[str, str], np.ndarray], tasks: Sequence[str], variants: Sequence[str]
) -> Figure:
    figure, grid = drawing.panels(tasks, drawing.columns_for(len(tasks)))
    width = 0.8 / len(variants)
    for axes, task in zip(grid, tasks, strict=True):
        for i, variant in enumerate(variants):
            above, students = counts.get((variant, task), np.zeros((3, 2))).T
            places = np.arange(3) + (i - (len(variants) - 1) / 2) * width
            axes.bar(places, above / np.maximum(students, 1), width, **_fill(i + 1))
        axes.set_xticks(range(3), [third.removesuffix(" third") for third in THIRDS])
        axes.hlines(PAPER_ABOVE, -0.5, 2.5, color="black", linestyle="--", linewidth=0.9)
        axes.hlines(PAPER_ABOVE_LATE, 1.5, 2.5, color="black", linestyle=":", linewidth=1.5)
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    drawing.label_axes(grid, "third of training", "students above their teacher")
    overall, late = f"paper, overall: {PAPER_ABOVE:.0%}", f"paper, late: {PAPER_ABOVE_LATE:.0%}"
    paper = [
        Line2D([], [], color="black", linestyle="--", label=overall),
        Line2D([], [], color="black", linestyle=":", label=late),
    ]
    patches = [_patch(i + 1, variant) for i, variant in enumerate(variants)]
    drawing.legend_below(figure, [*patches, *paper])
    return figure


def _fill(index: int) -> dict[str, Any]:
    """A pale face under a black hatch, which shows in print as well."""
    return {
        "facecolor": drawing.tint(index),
        "hatch": drawing.hatch(index),
        "edgecolor": "black",
        "linewidth": 0.6,
    }


def _patch(index: int, label: str) -> Patch:
    return Patch(label=label, **_fill(index))
