"""How a study's figures look: colours, marks, panels and what fits into one, legends, files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

# Okabe and Ito's colours, told apart by colour-blind readers. Their yellow is too pale for lines.
COLOURS = (
    "#000000",
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#999999",
)
# Marks and hatches tell apart in print what colours tell on a screen.
MARKERS = ("o", "s", "^", "D", "v", "X", "P", "<", ">", "p", "h", "*")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "ooo", "---", "+++", "||", "**", "OO", "//..")

_LOOK: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    # The same figure gives the same file.
    "svg.hashsalt": "rllib-cikd",
}
_PANEL_WIDTH = 3.2  # inches
# More variants in one panel cannot be followed; the rest go to further figures.
_VARIANTS_IN_A_PANEL = 4


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def hatched(index: int) -> dict[str, Any]:
    """A pale face under a black hatch, which shows in print as well."""
    return {
        "facecolor": tuple(0.5 + part / 2 for part in to_rgb(colour(index))),
        "hatch": HATCHES[index % len(HATCHES)],
        "edgecolor": "black",
        "linewidth": 0.6,
    }


def groups_of_variants(variants: Sequence[str], references: Sequence[str]) -> list[list[str]]:
    """Splits `variants` into groups that one panel can hold, each with the references in front.

    A variant's place in its group gives its colour and mark: those of references never change.
    """
    others = [variant for variant in variants if variant not in references]
    if len(variants) <= _VARIANTS_IN_A_PANEL:
        return [[*references, *others]]
    room = _VARIANTS_IN_A_PANEL - len(references)
    groups = np.array_split(np.array(others, dtype=object), -(-len(others) // room))
    return [[*references, *group] for group in groups]


def columns_for(number: int) -> int:
    """How many panels stand side by side, of so many that belong together: at most three."""
    return 2 if number == 4 else min(3, number)


def panels(titles: Sequence[str], columns: int, height: float = 2.4) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each title, row by row; `height` of one in inches."""
    rows = math.ceil(len(titles) / columns)
    width = max(5.0, _PANEL_WIDTH * columns)
    with mpl.rc_context(_LOOK):
        figure = Figure(figsize=(width, height * rows + 0.7), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, title in zip(grid, titles, strict=False):
            axes.set_title(title)
        for axes in grid[len(titles) :]:
            axes.remove()
    return figure, list(grid[: len(titles)])


def label_axes(grid: Sequence[Axes], horizontal: str, vertical: str) -> None:
    """Names the axes at the grid's left edge, and under the lowest panel of each column."""
    lowest = {}
    for axes in grid:
        column = axes.get_subplotspec().colspan.start  # type: ignore[union-attr]
        lowest[column] = axes
        if column == 0:
            axes.set_ylabel(vertical)
    for axes in lowest.values():
        axes.set_xlabel(horizontal)


def count_steps(grid: Sequence[Axes]) -> None:
    """Horizontal axes in environment steps: 250k, 1M."""
    for axes in grid:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """One legend for all panels, under them, in as many columns as fit."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = int(figure.get_figwidth() / (0.065 * longest + 0.6))
    with mpl.rc_context(_LOOK):
        figure.legend(
            handles=list(handles),
            loc="outside lower center",
            ncols=max(1, min(columns, len(handles))),
            handlelength=2.8,
        )


def save(figure: Figure, folder: Path, name: str) -> None:
    """Writes `name`.png, `name`.svg and `name`.pdf."""
    with mpl.rc_context(_LOOK):
        figure.savefig(folder / f"{name}.png", dpi=150)
        figure.set_layout_engine("none")  # it is laid out now; that takes longer than drawing
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
