"""The distillation phases of a study's runs, as arrays.

Shapes: P phases, K members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rllib_cikd.report.csv_files import RUN, Layout, read_rows, refuse_rows
from rllib_cikd.study.raw_figures import PHASE_FIGURES

_PHASES = Layout(
    key=(*RUN, "phase", "member"),
    values=("step", "teacher", *PHASE_FIGURES, "seconds"),
    optional=(),
    whole=("seed", "phase", "step", "teacher"),
)


@dataclass(frozen=True)
class Phases:
    """Distillation phases of one run. NaN: the teacher's own, or not measured.

    Attributes:
        steps: `[P]`, ascending, in environment steps.
        teachers: `[P]`, the member that taught.
        figures: `[P, K]` of kl_, critic_loss_ and return_ before and after.
        last_step: The run's last phase or evaluation.
    """

    variant: str
    task: str
    seed: int
    steps: np.ndarray
    teachers: np.ndarray
    figures: dict[str, np.ndarray]
    last_step: int

    @property
    def num_members(self) -> int:
        return self.figures["kl_before"].shape[1]


def read_phases(paths: Sequence[Path]) -> pd.DataFrame:
    """The rows of phase CSVs; see `read_rows`."""
    return read_rows(paths, _PHASES)


def distillation_phases(
    rows: pd.DataFrame, ends: dict[tuple[str, str, int], int]
) -> dict[tuple[str, str], list[Phases]]:
    """Phases by variant and task, from rows of `read_phases`.

    Args:
        rows: One for each phase and member.
        ends: The last evaluation step of each (variant, task, seed).

    Raises:
        CommandError: If a member is not a policy_k, or a step or teacher is empty or negative.
    """
    if rows.empty:
        return {}
    policy = rows["member"].str.fullmatch(r"policy_\d+")
    refuse_rows(rows, ~policy, "member", "must be policy_k")
    for column in ("step", "teacher"):
        bad = rows[column].isna() | (rows[column] < 0).fillna(False)
        refuse_rows(rows, bad.astype(bool), column, "must be 0 or more")
    phases: dict[tuple[str, str], list[Phases]] = {}
    for (variant, task, seed), run in rows.groupby(RUN, sort=False):
        last = max(int(run["step"].max()), ends.get((variant, task, seed), 0))
        phases.setdefault((variant, task), []).append(_phases(variant, task, seed, run, last))
    return {key: sorted(runs, key=lambda run: run.seed) for key, runs in phases.items()}


def _phases(variant: str, task: str, seed: int, run: pd.DataFrame, last_step: int) -> Phases:
    of_phase = run.groupby("phase")[["step", "teacher"]].first()
    indices = run["member"].str.removeprefix("policy_").astype(int)
    size = 1 + max(int(indices.max()), int(run["teacher"].max()))
    tables = {
        name: run.assign(index=indices).pivot(index="phase", columns="index", values=name)
        for name in PHASE_FIGURES
    }
    return Phases(
        variant,
        task,
        int(seed),
        steps=of_phase["step"].to_numpy(dtype=int),
        teachers=of_phase["teacher"].to_numpy(dtype=int),
        figures={
            name: table.reindex(columns=range(size)).to_numpy(dtype=float)
            for name, table in tables.items()
        },
        last_step=last_step,
    )
