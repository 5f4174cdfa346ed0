"""The two kinds of raw CSV: their columns, and how they are written and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rllib_cikd.common.errors import CommandError, did_you_mean
from rllib_cikd.common.files import write_whole
from rllib_cikd.common.result_keys import DISTANCES, PHASE_RETURNS, SUMMARIES

#: What names a run.
RUN = ["variant", "task", "seed"]
#: What a phase is judged by, of each member.
PHASE_MEASURES = (*DISTANCES, *PHASE_RETURNS)
_MEMBER = r"policy_\d+"
_REMEDY = "Write the file anew with `rllib study run`, or take it out of the folder"


@dataclass(frozen=True)
class Layout:
    """One kind of CSV.

    Attributes:
        columns: In this order, with their types. Text and `int` are never empty.
        key: What tells rows apart.
        member: Pattern of the `member` column.
        optional: Columns that a file may lack.
        filled: Further columns that are never empty.
    """

    columns: Mapping[str, Any]
    key: Sequence[str]
    member: str
    optional: Sequence[str] = ()
    filled: Sequence[str] = ()


#: `NAME.evaluations.csv`: one row for each evaluation and member, and for each of `SUMMARIES`.
#: Teacher: of the last phase. KL: to it, after that phase.
#: Updates: gradient steps of each member so far.
EVALUATIONS = Layout(
    columns={
        **{"variant": str, "task": str, "seed": int, "member": str, "step": int},
        **{"return": float, "wall_seconds": float, "teacher": "Int64", "kl": float},
        "updates": "Int64",
    },
    key=[*RUN, "member", "step"],
    member="|".join([_MEMBER, *SUMMARIES]),
    optional=["teacher", "kl", "updates"],
    filled=["wall_seconds"],
)
#: `NAME.phases.csv`: one row for each phase of knowledge sharing and member.
PHASES = Layout(
    columns={
        **{"variant": str, "task": str, "seed": int, "phase": int, "step": int, "teacher": int},
        **{"member": str, **dict.fromkeys(PHASE_MEASURES, float), "seconds": float},
    },
    key=[*RUN, "phase", "member"],
    member=_MEMBER,
)


def write_rows(
    path: Path, rows: Sequence[Mapping[str, Any]] | pd.DataFrame, layout: Layout
) -> None:
    """Writes the layout's columns of rows; None and NaN become empty cells."""
    frame = pd.DataFrame(rows, columns=[*layout.columns], dtype=object)
    write_whole(path, frame.to_csv(index=False, lineterminator="\n"))


def read_rows(paths: Sequence[Path], layout: Layout) -> pd.DataFrame:
    """Returns the rows of all files, each row once, with the layout's columns and `file`.

    Of rows with the same key only one is kept: a trial's own file may stand beside a
    concatenation of many. Empty cells are NaN.

    Raises:
        CommandError: If a file is damaged, lacks a column, or two rows with the same key differ.
    """
    empty = pd.DataFrame({c: pd.Series(dtype=kind) for c, kind in layout.columns.items()})
    rows = pd.concat([empty.assign(file=""), *(_read(path, layout) for path in paths)])
    if not rows.duplicated(layout.key).any():
        return rows.reset_index(drop=True)
    groups = rows.groupby(layout.key, sort=False)
    # Empty cells agree with any: an older file may lack a column that a newer one has.
    for column in set(layout.columns) - set(layout.key):
        differ = groups[column].nunique() > 1
        if differ.any():
            key = differ.idxmax()
            files = " and ".join(dict.fromkeys(groups.get_group(key)["file"]))
            row = ", ".join(f"{k} {v}" for k, v in zip(layout.key, key, strict=True))
            raise CommandError(f"{files}: `{column}` differs for {row}. Keep only one of the rows.")
    return groups.first().reset_index()[rows.columns]


def _read(path: Path, layout: Layout) -> pd.DataFrame:
    try:
        frame = pd.read_csv(
            path,
            index_col=False,
            dtype=dict(layout.columns),
            float_precision="round_trip",
            keep_default_na=False,  # "None" may be a variant's name
            na_values=[""],
        )
    except (ValueError, OSError) as error:
        raise CommandError(f"{path}: cannot be read as a CSV ({error}). {_REMEDY}.") from error
    for column, kind in layout.columns.items():
        if column not in frame and column in layout.optional:
            frame[column] = pd.Series(dtype=kind)
        elif column not in frame:
            raise CommandError(
                f"{path}: column {column!r} is missing.{did_you_mean(column, frame.columns)} "
                f"The columns are {', '.join(layout.columns)}. {_REMEDY}."
            )
        elif (kind is str or column in layout.filled) and frame[column].isna().any():
            raise CommandError(f"{path}: column {column!r} has an empty cell. {_REMEDY}.")
        elif kind is float and np.isinf(frame[column]).any():
            raise CommandError(f"{path}: column {column!r} has an infinite number. {_REMEDY}.")
    unknown = frame.loc[~frame["member"].str.fullmatch(layout.member), "member"]
    if not unknown.empty:
        raise CommandError(
            f"{path}: member {unknown.iloc[0]!r} is none of {layout.member}. {_REMEDY}."
        )
    return frame[[*layout.columns]].assign(file=str(path))
