"""How fast the runs were."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rllib_cikd.common.text import format_duration
from rllib_cikd.report.markdown import NONE, number, table
from rllib_cikd.report.study_data import Curves, StudyData

_TEXT = (
    "Medians over seeds. Wall time is training and evaluation up to the last step which all seeds "
    "have; runs that shared a machine slowed each other down. A phase's seconds are the median "
    "over phases and seeds."
)
_HEADER = [
    *("task", "variant", "wall time", "environment steps a second"),
    *("updates of a member a second", "seconds a phase", "share of wall time in phases"),
]


def speed_section(data: StudyData, variants: Sequence[str]) -> list[str]:
    """Markdown blocks: steps and updates a second, and the time that phases take.

    Columns that no run has a figure for are left out.
    """
    rows = [
        [task, curves.variant, *_cells(curves, data.phases.get((curves.variant, task)))]
        for task in data.tasks
        for curves in data.curves_of(variants, task)
    ]
    columns = [i for i in range(len(_HEADER)) if any(row[i] != NONE for row in rows)]
    shown = [[row[i] for i in columns] for row in (_HEADER, *rows)]
    return [_TEXT, table(shown[0], shown[1:], words=2)]


def _cells(curves: Curves, phases: pd.DataFrame | None) -> list[str]:
    end = int(curves.steps[-1])
    seconds = curves.wall_seconds[:, -1]  # [S]
    a_phase = in_phases = np.nan
    if phases is not None:
        times = phases.drop_duplicates(["seed", "phase"])
        times = times[times["step"] <= end]
        of_runs = times.groupby("seed")["seconds"].sum().reindex(curves.seeds, fill_value=0.0)
        if times["seconds"].notna().any():
            a_phase = float(times["seconds"].median())
            in_phases = float(np.median(of_runs / seconds))
    return [
        format_duration(float(np.median(seconds))),
        number(float(np.median(end / seconds)), 0),
        number(float(np.median(curves.updates[:, -1] / seconds)), 0),
        number(a_phase, 1),
        NONE if np.isnan(in_phases) else f"{in_phases:.0%}",
    ]
