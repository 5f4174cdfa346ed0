"""What a study's CSVs hold: the evaluation curves of every variant and task, and the phases.

Shapes: S seeds, T evaluations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rllib_cikd.common.errors import CommandError
from rllib_cikd.report.csv_files import RUN, Layout, read_rows, refuse_rows
from rllib_cikd.report.phases import Phases, distillation_phases, read_phases

#: Summaries of the members, in the order of the tables; "elected" has the highest R_k.
SUMMARIES = ("mean", "elected", "best", "worst")

_EVALUATIONS = Layout(
    key=(*RUN, "member", "step"),
    values=("return", "wall_seconds", "teacher", "kl"),
    optional=("teacher", "kl"),
    whole=("seed", "step", "teacher"),
)


@dataclass(frozen=True)
class Curves:
    """Evaluations of one variant on one task, at the steps which all of its seeds have.

    Attributes:
        seeds: `[S]`, ascending.
        steps: `[T]`, ascending, in environment steps.
        returns: `[S, T]` of each of `SUMMARIES`; "elected" is NaN where no member had an R_k.
        num_members: K.
        wall_seconds: `[S]`, training and evaluation up to the last of `steps`.
        last_steps: `[S]`, the last evaluation of each seed, common or not.
    """

    variant: str
    task: str
    seeds: list[int]
    steps: np.ndarray
    returns: dict[str, np.ndarray]
    num_members: int
    wall_seconds: np.ndarray
    last_steps: np.ndarray

    def complete(self, summary: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps `[t]` at which every seed has a figure, and the figures `[S, t]`; t may be 0."""
        known = ~np.isnan(self.returns[summary]).any(axis=0)
        return self.steps[known], self.returns[summary][:, known]

    @property
    def short_runs(self) -> dict[int, int]:
        """Seed and last step of each run that ends before the longest one of them."""
        longest = self.last_steps.max()
        return {
            seed: int(last)
            for seed, last in zip(self.seeds, self.last_steps, strict=True)
            if last < longest
        }


@dataclass(frozen=True)
class Study:
    """All that a folder holds.

    Attributes:
        evaluations, phase_rows: The rows of all files, each once.
        curves: By variant and task; variants and tasks in the order in which they are found.
        phases: By variant and task, one for each seed that had any.
    """

    evaluations: pd.DataFrame
    phase_rows: pd.DataFrame
    curves: dict[tuple[str, str], Curves]
    phases: dict[tuple[str, str], list[Phases]]

    @property
    def variants(self) -> list[str]:
        return list(dict.fromkeys(variant for variant, _ in self.curves))

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(task for _, task in self.curves))


def read_study(folder: Path, without: Sequence[Path] = ()) -> Study:
    """Reads every `*evaluations.csv` and `*phases.csv` below `folder`.

    Args:
        folder: Where to look, at any depth.
        without: Folders below it whose files are left alone.

    Raises:
        CommandError: If nothing is found, or a file or its figures cannot be used.
    """
    if not folder.is_dir():
        raise CommandError(f"{folder}: no such folder; give one that `rllib study run` wrote.")
    evaluation_files = _find(folder, "*evaluations.csv", without)
    evaluations = read_evaluations(evaluation_files)
    if evaluations.empty:
        found = f"{len(evaluation_files)} *evaluations.csv, all empty" if evaluation_files else "no"
        raise CommandError(
            f"{folder}: {found} evaluations (*evaluations.csv) below it; give a folder that "
            "`rllib study run` wrote, once a run has been evaluated."
        )
    phase_rows = read_phases(_find(folder, "*phases.csv", without))
    curves = evaluation_curves(evaluations)
    ends = evaluations.groupby(RUN)["step"].max().to_dict()
    return Study(
        evaluations.drop(columns=["file", "line"]),
        phase_rows.drop(columns=["file", "line"]),
        curves,
        distillation_phases(phase_rows, ends),
    )


def _find(folder: Path, pattern: str, without: Sequence[Path]) -> list[Path]:
    shut = [path.resolve() for path in without]
    return [
        path
        for path in sorted(folder.rglob(pattern))
        if path.is_file() and not any(path.resolve().is_relative_to(s) for s in shut)
    ]


def read_evaluations(paths: Sequence[Path]) -> pd.DataFrame:
    """The rows of evaluation CSVs; see `read_rows`."""
    return read_rows(paths, _EVALUATIONS)


def evaluation_curves(rows: pd.DataFrame) -> dict[tuple[str, str], Curves]:
    """Curves by variant and task, from rows of `read_evaluations`.

    Raises:
        CommandError: If an evaluation lacks a member, or the runs of one variant and task
            differ in their number of members or share no step.
    """
    policy = rows["member"].str.fullmatch(r"policy_\d+")
    names = ", ".join(SUMMARIES)
    refuse_rows(
        rows, ~(policy | rows["member"].isin(SUMMARIES)), "member", f"must be policy_k or {names}"
    )
    refuse_rows(
        rows, rows["return"].isna() & (rows["member"] != "elected"), "return", "must be a number"
    )
    refuse_rows(rows, rows["wall_seconds"].isna(), "wall_seconds", "must be a number")
    return {
        (variant, task): _curves(variant, task, group)
        for (variant, task), group in rows.groupby(["variant", "task"], sort=False)
    }


def _curves(variant: str, task: str, rows: pd.DataFrame) -> Curves:
    what = f"{variant} on {task}"
    runs = {int(seed): run for seed, run in rows.groupby("seed")}
    members = {
        seed: sorted(m for m in run["member"].unique() if m.startswith("policy_"))
        for seed, run in runs.items()
    }
    sizes = {seed: len(names) for seed, names in members.items()}
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"seed {seed}: {size}" for seed, size in sizes.items())
        raise CommandError(
            f"{what}: the seeds differ in their number of members ({text}). "
            "Give runs with different settings different variant names."
        )
    returns = {seed: _returns(f"{what}, seed {seed}", run) for seed, run in runs.items()}
    steps = sorted(set.intersection(*(set(table.index) for table in returns.values())))
    if not steps:
        firsts = "; ".join(f"seed {s}: {t.index[0]}, …" for s, t in returns.items())
        raise CommandError(
            f"{what}: no evaluation step is common to all seeds ({firsts}). Run them with the "
            "same evaluation_interval, or take one of them out of the folder."
        )
    seconds = [run[run["step"] == steps[-1]]["wall_seconds"].max() for run in runs.values()]
    return Curves(
        variant,
        task,
        seeds=list(runs),
        steps=np.array(steps),
        returns={
            who: np.array([table.loc[steps, who] for table in returns.values()], dtype=float)
            for who in SUMMARIES
        },
        num_members=max(sizes.values()),
        wall_seconds=np.array(seconds),
        last_steps=np.array([table.index[-1] for table in returns.values()]),
    )


def _returns(what: str, run: pd.DataFrame) -> pd.DataFrame:
    """Returns of one run, a row for each step (ascending), a column for each member."""
    table = run.pivot(index="step", columns="member", values="return").sort_index()
    if "elected" not in table:
        table["elected"] = np.nan
    lines = run.pivot(index="step", columns="member", values="line").sort_index()
    for member in ("policy_0", "best", "worst", "mean"):
        if member not in lines:
            raise CommandError(
                f"{run['file'].iloc[0]}: {what}: no rows for member {member!r}; the evaluations "
                "of a run have each policy_k, best, worst, mean and elected."
            )
    gaps = lines.drop(columns="elected", errors="ignore").isna()
    if gaps.any(axis=None):
        step, member = gaps.stack()[lambda gap: gap].index[0]
        raise CommandError(
            f"{run['file'].iloc[0]}: {what}: the evaluation at step {step} lacks member "
            f"{member!r}; write the file anew with `rllib study run`, or delete that evaluation."
        )
    return table
