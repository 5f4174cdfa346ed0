"""Learning curves of a study: the paper's Figures 2, 3a, 3b, 4, 5d, 6, 7 and 8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rllib_cikd.report import drawing
from rllib_cikd.report.curves import Curves, Study
from rllib_cikd.report.statistics import mean_interval


@dataclass(frozen=True)
class Stroke:
    """How the curve of one summary of the members looks; `band`: with interval and marks."""

    summary: str
    style: Any
    band: bool = True


#: What a figure of learning curves shows of an ensemble; of a lone agent, the first.
BEST_AND_WORST = (Stroke("best", "-"), Stroke("worst", "--"))
# Two bands and sets of marks that lie on each other would hide the lines.
MEAN_AND_ELECTED = (Stroke("mean", "-"), Stroke("elected", ":", band=False))

# More variants in one panel cannot be followed; the rest go to further figures.
_VARIANTS_IN_A_PANEL = 4
_MARKS_ON_A_LINE = 8


def learning_curves(
    study: Study, variants: Sequence[str], strokes: Sequence[Stroke], references: Sequence[str]
) -> list[Figure]:
    """Return against steps, a panel for each task; mean over seeds, with 95% intervals.

    Args:
        study: What to draw.
        variants: Which ones.
        strokes: The lines of an ensemble; a lone agent has the first of them.
        references: Those of `variants` that every figure shows, where it takes several.
    """
    return [_learning_curves(study, page, strokes) for page in pages(variants, references)]


def pages(variants: Sequence[str], references: Sequence[str]) -> list[list[str]]:
    """Splits `variants` into groups that one panel can hold, each with the references in front.

    A variant's place in its group gives its colour and mark: those of references never change.
    """
    others = [variant for variant in variants if variant not in references]
    if len(variants) <= _VARIANTS_IN_A_PANEL:
        return [[*references, *others]]
    room = _VARIANTS_IN_A_PANEL - len(references)
    groups = np.array_split(np.array(others, dtype=object), -(-len(others) // room))
    return [[*references, *group] for group in groups]


def _learning_curves(study: Study, variants: Sequence[str], strokes: Sequence[Stroke]) -> Figure:
    tasks = [task for task in study.tasks if any((v, task) in study.curves for v in variants)]
    figure, grid = drawing.panels(tasks, drawing.columns_for(len(tasks)))
    drawn = []
    for axes, task in zip(grid, tasks, strict=True):
        for index, variant in enumerate(variants):
            if (variant, task) in study.curves:
                drawn.append(study.curves[variant, task])
                _draw(axes, drawn[-1], index, strokes)
        axes.margins(x=0.02)
    drawing.count_steps(grid)
    drawing.label_axes(grid, "environment steps", "evaluation return")
    drawing.legend_below(figure, _legend(variants, drawn, strokes))
    return figure


def _draw(axes: Axes, curves: Curves, index: int, strokes: Sequence[Stroke]) -> None:
    for stroke in strokes[:1] if curves.num_members == 1 else strokes:
        steps, returns = curves.complete(stroke.summary)
        if not steps.size:
            continue
        interval = mean_interval(returns)
        every = max(1, len(steps) // _MARKS_ON_A_LINE)
        axes.plot(
            steps,
            interval.mean,
            linestyle=stroke.style,
            color=drawing.colour(index),
            marker=drawing.marker(index) if stroke.band else "",
            # Marks of different variants at different steps, lest they cover each other.
            markevery=(index % every, every),
            markersize=3.5,
            linewidth=1.3 if stroke.band else 1.7,
            label=f"{curves.variant}, {stroke.summary}",
        )
        if stroke.band and len(curves.seeds) > 1:
            axes.fill_between(
                steps,
                interval.low,
                interval.high,
                color=drawing.colour(index),
                alpha=0.13,
                linewidth=0,
            )


def _legend(
    variants: Sequence[str],
    drawn: Sequence[Curves],
    strokes: Sequence[Stroke],
) -> list[Artist]:
    """One entry for each variant, line style and the band."""
    lone = {curves.variant for curves in drawn if curves.num_members == 1}
    handles: list[Artist] = [
        Line2D(
            [],
            [],
            color=drawing.colour(index),
            marker=drawing.marker(index),
            markersize=4,
            label=f"{variant} (one agent)" if variant in lone else variant,
        )
        for index, variant in enumerate(variants)
    ]
    if any(curves.num_members > 1 for curves in drawn):
        handles += [
            Line2D([], [], color="#444444", linestyle=s.style, label=f"{s.summary} member")
            for s in strokes
        ]
    seeds = sorted({len(curves.seeds) for curves in drawn if len(curves.seeds) > 1})
    if seeds:
        many = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        band = f"95% bootstrap interval over {many} seeds"
        handles.append(Patch(facecolor="#444444", alpha=0.2, label=band))
    return handles
