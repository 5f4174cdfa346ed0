"""`statistics.csv`: a report's means and intervals, for tables and figures of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rllib_cikd.common.files import write_whole
from rllib_cikd.common.result_keys import SUMMARIES
from rllib_cikd.report.differences import paired_differences
from rllib_cikd.report.statistics import area_under_curve, mean_interval
from rllib_cikd.report.study_data import Curves, StudyData

_COLUMNS = [
    *("task", "variant", "member", "statistic", "step"),
    *("mean", "interval_low", "interval_high", "seeds"),
]


def write_statistics(path: Path, data: StudyData, variants: Sequence[str], baseline: str) -> None:
    """Writes a row for each task, variant, member and statistic.

    Members are "mean", "elected", "best" and "worst" (a lone agent has "mean" only); statistics:
    "final_return"; "mean_return", the area under the curve over its range of steps; and
    "minus_baseline", the final return less that of the baseline's mean member, over pairs of the
    same seed. Intervals are 95 % bootstrap intervals over seeds, empty for one seed.
    """
    rows = [row for task in data.tasks for row in _rows_of_task(data, task, variants, baseline)]
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    write_whole(path, frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def _rows_of_task(
    data: StudyData, task: str, variants: Sequence[str], baseline: str
) -> Iterator[dict[str, Any]]:
    lone = data.curves.get((baseline, task))
    for curves in data.curves_of(variants, task):
        for member in SUMMARIES if curves.num_members > 1 else ("mean",):
            steps, returns = curves.known(member)
            if steps.size:
                end = int(steps[-1])
                yield _row(curves, member, "final_return", end, returns[:, -1])
                area = area_under_curve(steps, returns)
                yield _row(curves, member, "mean_return", end, area)
        if lone is None or lone is curves:
            continue
        found = paired_differences(curves, lone)
        for member, values in found.values.items() if found is not None else ():
            if (member == "mean" or curves.num_members > 1) and not np.isnan(values).any():
                assert found is not None
                yield _row(curves, member, "minus_baseline", found.step, values)


def _row(
    curves: Curves, member: str, statistic: str, step: int, values: np.ndarray
) -> dict[str, Any]:
    found = mean_interval(values)
    return {
        "task": curves.task,
        "variant": curves.variant,
        "member": member,
        "statistic": statistic,
        "step": step,
        "mean": float(found.mean),
        "interval_low": float(found.low),
        "interval_high": float(found.high),
        "seeds": len(values),
    }
