"""What the raw CSVs of a study hold: learning curves and phases of each variant and task.

Shapes: S seeds, T evaluations.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rllib_cikd.common.errors import CommandError
from rllib_cikd.common.result_keys import SUMMARIES
from rllib_cikd.report.raw_csv import EVALUATIONS, PHASES, RUN, read_rows
from rllib_cikd.report.statistics import above_teacher, training_third

#: A run is left out if it is shorter than this share of the longest one of its variant and task.
_SHORT = 0.5


@dataclass(frozen=True)
class Curves:
    """Evaluations of one variant on one task, at the steps which all of its seeds have.

    Runs that are not half as far as the longest one are left out: one that has just begun, or
    failed early, would cut short what all others have. Where the seeds have hardly a step in
    common, such as runs with iterations of whole episodes, curves are interpolated.

    Attributes:
        seeds: `[S]`, ascending.
        steps: `[T]`, ascending, in environment steps.
        returns: `[S, T]` of each of `SUMMARIES`; "elected" is NaN where no member had an R_k.
        num_members: K.
        wall_seconds: `[S, T]`, training and evaluation so far.
        updates: `[S, T]`, gradient steps of each member so far; NaN in older files.
        last_steps: `[S]`, the last evaluation of each seed, common or not.
        left_out: The last step of each seed that was left out.
        interpolated: Whether figures between evaluations are taken for those at `steps`.
    """

    variant: str
    task: str
    seeds: list[int]
    steps: np.ndarray
    returns: dict[str, np.ndarray]
    num_members: int
    wall_seconds: np.ndarray
    updates: np.ndarray
    last_steps: np.ndarray
    left_out: dict[int, int]
    interpolated: bool = False

    def at(self, summary: str, step: int) -> np.ndarray:
        """The returns `[S]` at one of `steps`."""
        return self.returns[summary][:, int(np.flatnonzero(self.steps == step)[0])]

    def known(self, summary: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps `[t]` at which every seed has a figure, and the figures `[S, t]`; t may be 0."""
        known = ~np.isnan(self.returns[summary]).any(axis=0)
        return self.steps[known], self.returns[summary][:, known]

    @property
    def short_runs(self) -> dict[int, int]:
        """Seed and last step of each run that ends before the longest one of them."""
        lasts = dict(zip(self.seeds, self.last_steps.tolist(), strict=True))
        return {seed: last for seed, last in lasts.items() if last < max(lasts.values())}


@dataclass(frozen=True)
class StudyData:
    """All that a folder holds; see `read_study_data`.

    Attributes:
        evaluation_rows, phase_rows: Of all files, each row once.
        curves: By variant and task; both in the order in which they are found.
        phases: By variant and task, rows of seeds and phases in ascending order. Beside the
            columns of the CSV: `index` of the member; `above`, which is 1 if a student's return
            after the phase exceeds its teacher's, 0 if not, NaN of the teacher or if not measured;
            `third` of the run's steps, 0 to 2.
    """

    evaluation_rows: pd.DataFrame
    phase_rows: pd.DataFrame
    curves: dict[tuple[str, str], Curves]
    phases: dict[tuple[str, str], pd.DataFrame]

    @property
    def variants(self) -> list[str]:
        return list(dict.fromkeys(variant for variant, _ in self.curves))

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(task for _, task in self.curves))

    def curves_of(self, variants: Sequence[str], task: str) -> list[Curves]:
        """Of those variants that have a run on the task."""
        return [self.curves[v, task] for v in variants if (v, task) in self.curves]


def last_common_step(every: Sequence[Curves]) -> int | None:
    """The last step at which all of these curves have a point; None if there is none."""
    common = functools.reduce(np.intersect1d, [curves.steps for curves in every])
    return int(common[-1]) if common.size else None


def read_study_data(folder: Path, without: Sequence[Path] = ()) -> StudyData:
    """Reads every `*evaluations.csv` and `*phases.csv` below `folder`.

    Args:
        folder: Where to look, at any depth.
        without: Folders whose files are left alone, as far as they are below it.

    Raises:
        CommandError: If nothing is found, or a file or its numbers cannot be used.
    """
    if not folder.is_dir():
        raise CommandError(f"{folder}: no such folder; give a run's or a study's.")
    left_out = [path.resolve() for path in without if folder.resolve() in path.resolve().parents]

    def find(pattern: str) -> list[Path]:
        paths = [path for path in sorted(folder.rglob(pattern)) if path.is_file()]
        return [path for path in paths if not {*path.resolve().parents} & {*left_out}]

    files = find("*evaluations.csv")
    evaluations = read_rows(files, EVALUATIONS)
    phases = read_rows(find("*phases.csv"), PHASES)
    if evaluations.empty:
        found = f"{len(files)} *evaluations.csv, all empty" if files else "no"
        raise CommandError(
            f"{folder}: {found} evaluations (*evaluations.csv) below it, nor results of "
            "a run; give the folder of a run or a study, once it has been evaluated."
        )
    ends = pd.concat([evaluations, phases]).groupby(RUN)["step"].max()
    return StudyData(evaluations, phases, learning_curves(evaluations), _phases(phases, ends))


def learning_curves(rows: pd.DataFrame) -> dict[tuple[str, str], Curves]:
    """Curves by variant and task, from rows of `EVALUATIONS`.

    Raises:
        CommandError: If an evaluation lacks a member, or the runs of one variant and task
            differ in their number of members or share no step.
    """
    groups = rows.groupby(["variant", "task"], sort=False)
    return {(variant, task): _curves(variant, task, group) for (variant, task), group in groups}


def _curves(variant: str, task: str, rows: pd.DataFrame) -> Curves:
    ends = rows.groupby("seed")["step"].max()
    left_out = ends[ends < _SHORT * ends.max()]
    rows = rows[~rows["seed"].isin(left_out.index)]
    seeds = rows.groupby("seed")
    sizes = seeds["member"].agg(lambda members: len(set(members) - set(SUMMARIES)))
    if sizes.nunique() > 1:
        text = ", ".join(f"seed {seed}: {size}" for seed, size in sizes.items())
        raise CommandError(
            f"{variant} on {task}: the seeds differ in their number of members ({text}). "
            "Give runs with different settings different variant names."
        )
    members = [f"policy_{k}" for k in range(max(1, sizes.max()))]
    table = rows.pivot(index=["seed", "step"], columns="member", values="return")
    table = table.reindex(columns=[*members, *SUMMARIES])
    gaps = table.drop(columns="elected").isna().stack()
    if gaps.any():
        seed, step, member = gaps.idxmax()
        raise CommandError(
            f"{seeds.get_group(seed)['file'].iloc[0]}: {variant} on {task}, seed {seed}: the "
            f"evaluation at step {step} lacks the return of {member}. Write the file anew with "
            "`rllib study run`, or delete that evaluation."
        )
    totals = rows.groupby(["seed", "step"])[["wall_seconds", "updates"]].max().astype(float)
    table = table.join(totals)
    steps = _common_steps(table)
    interpolated = 2 * len(steps) < table.groupby("seed").size().median()
    if interpolated:
        steps = _grid(table)
        table = _interpolated(table, steps)
    if not len(steps):
        firsts = "; ".join(f"seed {seed}: {step}, …" for seed, step in seeds["step"].min().items())
        raise CommandError(
            f"{variant} on {task}: no evaluation step is common to all seeds ({firsts}). Run them "
            "with the same evaluation_interval, or take one of them out of the folder."
        )
    columns = {
        name: table[name].unstack("step")[steps].to_numpy(float, na_value=np.nan)
        for name in (*SUMMARIES, "wall_seconds", "updates")
    }
    return Curves(
        variant,
        task,
        seeds=sizes.index.tolist(),
        steps=steps,
        returns={who: columns[who] for who in SUMMARIES},
        num_members=len(members),
        wall_seconds=columns["wall_seconds"],
        updates=columns["updates"],
        last_steps=seeds["step"].max().to_numpy(),
        left_out=left_out.to_dict(),
        interpolated=interpolated,
    )


def _common_steps(table: pd.DataFrame) -> np.ndarray:
    return table["mean"].unstack("step").dropna(axis="columns").columns.to_numpy()


def _grid(table: pd.DataFrame) -> np.ndarray:
    """Multiples of a round number of steps, about as far apart as evaluations, within all runs."""
    steps = table.reset_index().groupby("seed")["step"]
    distance = float(steps.diff().median())
    first, last = steps.min().max(), steps.max().min()
    if np.isnan(distance) or last < first:
        return np.array([], int)
    digit = 10 ** int(np.log10(distance))
    spacing = int(distance // digit) * digit
    return np.arange(-(-first // spacing), last // spacing + 1) * spacing


def _interpolated(table: pd.DataFrame, steps: np.ndarray) -> pd.DataFrame:
    """Linearly between evaluations; NaN beside a NaN."""
    frames = {}
    for seed, rows in table.groupby("seed"):
        known = rows.index.get_level_values("step")
        columns = {name: np.interp(steps, known, rows[name]) for name in table}
        frames[seed] = pd.DataFrame(columns, index=pd.Index(steps, name="step"))
    return pd.concat(frames, names=["seed"])


def _phases(rows: pd.DataFrame, ends: pd.Series) -> dict[tuple[str, str], pd.DataFrame]:
    """See `StudyData.phases`; `ends`: each run's last step."""
    rows = rows.sort_values([*RUN, "phase"], kind="stable")
    rows["index"] = rows["member"].str.removeprefix("policy_").astype(int)
    rows["above"] = above_teacher(rows)
    rows["third"] = training_third(rows["step"], rows.join(ends.rename("end"), on=RUN)["end"])
    return dict(iter(rows.groupby(["variant", "task"])))  # type: ignore[arg-type]
