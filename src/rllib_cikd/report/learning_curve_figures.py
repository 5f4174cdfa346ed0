"""Learning curves of a study: the paper's Figures 2, 3a, 3b, 4, 5d, 6, 7 and 8, and others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rllib_cikd.report import figure_style as style
from rllib_cikd.report.statistics import mean_interval
from rllib_cikd.report.study_data import Curves, StudyData


@dataclass(frozen=True)
class Line:
    """How the curve of one summary of the members looks; `band`: with interval and marks."""

    summary: str
    style: Any
    band: bool = True


#: What a figure of learning curves shows of an ensemble; of a lone agent, the first.
BEST_AND_WORST = (Line("best", "-"), Line("worst", "--"))
# Two bands and sets of marks that lie on each other would hide the lines.
MEAN_AND_ELECTED = (Line("mean", "-"), Line("elected", ":", band=False))


@dataclass(frozen=True)
class Axis:
    """What a curve is drawn against.

    Attributes:
        label: With its unit.
        values: Of each evaluation, `[T]`; NaN where not known. Mean over seeds.
    """

    label: str
    values: Callable[[Curves], np.ndarray]


ENV_STEPS = Axis("environment steps", lambda curves: curves.steps)
GRADIENT_STEPS = Axis("gradient steps of each member", lambda c: c.updates.mean(axis=0))
WALL_TIME = Axis("wall time, hours", lambda c: c.wall_seconds.mean(axis=0) / 3600)

_MARKS_ON_A_LINE = 8
_GREY = "#444444"


def learning_curves(
    data: StudyData,
    variants: Sequence[str],
    lines: Sequence[Line],
    references: Sequence[str],
    against: Axis = ENV_STEPS,
) -> list[Figure]:
    """Evaluation returns, a panel for each task; mean over seeds, with 95% intervals.

    Args:
        data: What to draw.
        variants: Which ones.
        lines: Those of an ensemble; a lone agent has the first of them.
        references: Those of `variants` that every figure shows, where it takes several.
        against: The horizontal axis. Curves for which it is not known are left out.
    """
    known = [c for c in data.curves.values() if not np.isnan(against.values(c)).any()]
    variants, references = (
        [variant for variant in names if any(c.variant == variant for c in known)]
        for names in (variants, references)
    )
    groups = style.groups_of_variants(variants, references) if variants else []
    return [_learning_curves(data.tasks, known, group, lines, against) for group in groups]


def _learning_curves(
    tasks: Sequence[str],
    known: Sequence[Curves],
    variants: Sequence[str],
    lines: Sequence[Line],
    against: Axis,
) -> Figure:
    drawn = [c for variant in variants for c in known if c.variant == variant]
    tasks = [task for task in tasks if any(curves.task == task for curves in drawn)]
    figure, grid = style.panels(tasks, style.columns_for(len(tasks)))
    for axes, task in zip(grid, tasks, strict=True):
        for curves in drawn:
            if curves.task == task:
                _draw(axes, curves, variants.index(curves.variant), lines, against)
        axes.margins(x=0.02)
    if against is not WALL_TIME:
        style.count_steps(grid)
    style.label_axes(grid, against.label, "evaluation return")
    style.legend_below(figure, _legend(variants, drawn, lines))
    return figure


def _draw(axes: Axes, curves: Curves, index: int, lines: Sequence[Line], against: Axis) -> None:
    for line in lines[:1] if curves.num_members == 1 else lines:
        steps, returns = curves.known(line.summary)
        if not steps.size:
            continue
        places = against.values(curves)[np.isin(curves.steps, steps)]
        interval = mean_interval(returns)
        every = max(1, len(steps) // _MARKS_ON_A_LINE)
        axes.plot(
            places,
            interval.mean,
            linestyle=line.style,
            color=style.colour(index),
            marker=style.marker(index) if line.band else "",
            # Marks of different variants at different steps, lest they cover each other.
            markevery=(index % every, every),
            markersize=3.5,
            linewidth=1.3 if line.band else 1.7,
            label=f"{curves.variant}, {line.summary}",
        )
        if line.band and len(curves.seeds) > 1:
            low, high, colour = interval.low, interval.high, style.colour(index)
            axes.fill_between(places, low, high, color=colour, alpha=0.13, linewidth=0)


def _legend(
    variants: Sequence[str], drawn: Sequence[Curves], lines: Sequence[Line]
) -> list[Artist]:
    """One entry for each variant, line style and the band."""
    lone = {curves.variant for curves in drawn if curves.num_members == 1}
    handles: list[Artist] = []
    for index, variant in enumerate(variants):
        label = f"{variant} (one agent)" if variant in lone else variant
        look: dict[str, Any] = {"color": style.colour(index), "marker": style.marker(index)}
        handles.append(Line2D([], [], markersize=4, label=label, **look))
    if any(curves.num_members > 1 for curves in drawn):
        for line in lines:
            label = f"{line.summary} member"
            handles.append(Line2D([], [], color=_GREY, linestyle=line.style, label=label))
    seeds = sorted({len(curves.seeds) for curves in drawn if len(curves.seeds) > 1})
    if seeds:
        many = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        band = f"95% bootstrap interval over {many} seeds"
        handles.append(Patch(facecolor=_GREY, alpha=0.2, label=band))
    return handles
