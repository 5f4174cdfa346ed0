"""Learning curves of a study: the paper's Figures 2, 3a, 3b, 4, 5d, 6, 7 and 8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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

_MARKS_ON_A_LINE = 8
_GREY = "#444444"


def learning_curves(
    data: StudyData, variants: Sequence[str], lines: Sequence[Line], references: Sequence[str]
) -> list[Figure]:
    """Return against steps, a panel for each task; mean over seeds, with 95% intervals.

    Args:
        data: What to draw.
        variants: Which ones.
        lines: Those of an ensemble; a lone agent has the first of them.
        references: Those of `variants` that every figure shows, where it takes several.
    """
    groups = style.groups_of_variants(variants, references)
    return [_learning_curves(data, group, lines) for group in groups]


def _learning_curves(data: StudyData, variants: Sequence[str], lines: Sequence[Line]) -> Figure:
    tasks = [task for task in data.tasks if data.curves_of(variants, task)]
    figure, grid = style.panels(tasks, style.columns_for(len(tasks)))
    drawn = []
    for axes, task in zip(grid, tasks, strict=True):
        for curves in data.curves_of(variants, task):
            drawn.append(curves)
            _draw(axes, curves, variants.index(curves.variant), lines)
        axes.margins(x=0.02)
    style.count_steps(grid)
    style.label_axes(grid, "environment steps", "evaluation return")
    style.legend_below(figure, _legend(variants, drawn, lines))
    return figure


def _draw(axes: Axes, curves: Curves, index: int, lines: Sequence[Line]) -> None:
    for line in lines[:1] if curves.num_members == 1 else lines:
        steps, returns = curves.known(line.summary)
        if not steps.size:
            continue
        interval = mean_interval(returns)
        every = max(1, len(steps) // _MARKS_ON_A_LINE)
        axes.plot(
            steps,
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
            axes.fill_between(steps, low, high, color=colour, alpha=0.13, linewidth=0)


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
