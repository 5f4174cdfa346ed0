"""What becomes of the single members: their returns, and their distance to the teacher."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rllib_cikd.report import figure_style as style
from rllib_cikd.report.study_data import StudyData

_PANELS_IN_A_FIGURE = 12


def member_curves(data: StudyData, variants: Sequence[str]) -> list[Figure]:
    """Evaluation returns of every member, a panel for each run of an ensemble."""
    rows = data.evaluation_rows[data.evaluation_rows["member"].str.startswith("policy_")]
    runs = {
        f"{variant}, {task}, seed {seed}": of_run
        for variant, task in itertools.product(variants, data.tasks)
        if (variant, task) in data.curves and data.curves[variant, task].num_members > 1
        for seed, of_run in rows[(rows["variant"] == variant) & (rows["task"] == task)].groupby(
            "seed"
        )
    }
    return [_member_curves(part) for part in _parts(runs)]


def _member_curves(runs: dict[str, pd.DataFrame]) -> Figure:
    figure, grid = style.panels([*runs], style.columns_for(len(runs)))
    size = 0
    for axes, of_run in zip(grid, runs.values(), strict=True):
        table = of_run.pivot(index="step", columns="member", values="return").sort_index()
        members = sorted(table.columns, key=_index)
        size = max(size, len(members))
        for k, member in enumerate(members):
            axes.plot(table.index, table[member], label=member, **_look(k, len(table)))
        axes.margins(x=0.02)
    style.count_steps(grid)
    style.label_axes(grid, "environment steps", "evaluation return")
    style.legend_below(
        figure, [Line2D([], [], label=f"member {k}", **_look(k, 1)) for k in range(size)]
    )
    return figure


def _look(index: int, points: int) -> dict[str, Any]:
    return {
        "color": style.colour(index),
        "marker": style.marker(index),
        "markersize": 3,
        "markevery": max(1, points // 10),
        "linewidth": 1.1,
    }


def _index(member: str) -> int:
    return int(member.removeprefix("policy_"))


def distances(data: StudyData, variants: Sequence[str]) -> list[Figure]:
    """KL(teacher ‖ student) just before and after every phase, a panel for each variant and task.

    A phase's mark is the median over its students and over seeds.
    """
    panels = {}
    for variant, task in itertools.product(variants, data.tasks):
        phases = data.phases.get((variant, task))
        if phases is not None and (known := phases.dropna(subset=["kl_before", "kl_after"])).size:
            columns = ["step", "kl_before", "kl_after"]
            panels[f"{variant}, {task}"] = known.groupby("phase")[columns].median()
    return [_distances(part) for part in _parts(panels)]


def _distances(panels: dict[str, pd.DataFrame]) -> Figure:
    figure, grid = style.panels([*panels], style.columns_for(len(panels)))
    for axes, medians in zip(grid, panels.values(), strict=True):
        axes.vlines(
            medians["step"],
            medians["kl_after"],
            medians["kl_before"],
            color="#bbbbbb",
            linewidth=0.8,
        )
        for name, look in _MOMENTS.items():
            axes.plot(medians["step"], medians[f"kl_{name}"], label=name, **look)
        if (medians[["kl_before", "kl_after"]] > 0).all(axis=None):
            axes.set_yscale("log")
        axes.margins(x=0.04)
    style.count_steps(grid)
    style.label_axes(grid, "environment steps", "KL(teacher ‖ student)")
    style.legend_below(
        figure,
        [Line2D([], [], label=f"{name} the phase", **look) for name, look in _MOMENTS.items()],
    )
    return figure


_MOMENTS: dict[str, dict[str, Any]] = {
    "before": {"linestyle": "", "markersize": 4, "color": style.colour(2), "marker": "v"},
    "after": {"linestyle": "", "markersize": 4, "color": style.colour(1), "marker": "o"},
}


def _parts(panels: dict[str, pd.DataFrame]) -> list[dict[str, pd.DataFrame]]:
    """As many as one figure holds, each."""
    items = [*panels.items()]
    return [
        dict(items[i : i + _PANELS_IN_A_FIGURE]) for i in range(0, len(items), _PANELS_IN_A_FIGURE)
    ]
