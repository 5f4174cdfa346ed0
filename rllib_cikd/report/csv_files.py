"""Reads a study's CSVs cell by cell, so that a bad one is named by file, line and column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rllib_cikd.common.errors import CommandError, did_you_mean

#: What names a run, in every kind of CSV.
RUN = ["variant", "task", "seed"]

_HOW = "write the file anew with `rllib study run`, or take it out of the folder"


@dataclass(frozen=True)
class Layout:
    """The columns of one kind of CSV.

    Attributes:
        key: Columns that tell rows apart; none of them may be empty.
        values: Number columns beside the key.
        optional: Those of `values` that a file may lack.
        whole: Columns, of both kinds, that hold whole numbers; the key's others are text.
    """

    key: tuple[str, ...]
    values: tuple[str, ...]
    optional: tuple[str, ...]
    whole: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        return [*self.key, *self.values]


def read_rows(paths: Sequence[Path], layout: Layout) -> pd.DataFrame:
    """Returns the rows of all files, each row once, with `layout`'s columns, `file` and `line`.

    Of rows with the same key only one is kept: a trial's own file may stand beside a
    concatenation of many. Empty cells of `values` are NaN.

    Raises:
        CommandError: If a file is no CSV, lacks a column, has a cell that is no number or an
            empty key, or if rows with the same key differ.
    """
    if not paths:
        return pd.DataFrame(columns=[*layout.columns, "file", "line"])
    frame = pd.concat([_read_text(path, layout) for path in paths], ignore_index=True)
    for column in layout.key:
        refuse_rows(frame, frame[column] == "", column, "must not be empty")
    for column in dict.fromkeys((*layout.whole, *layout.values)):
        frame[column] = _numbers(frame, column, column in layout.whole)
    return _merge(frame, layout)


def _read_text(path: Path, layout: Layout) -> pd.DataFrame:
    """The file's cells as they are written, without its blank lines."""
    try:
        text = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except (ValueError, OSError) as error:
        raise CommandError(f"{path}: cannot be read as a CSV ({error}); {_HOW}.") from error
    for column in layout.columns:
        if column in text:
            continue
        if column not in layout.optional:
            raise CommandError(
                f"{path}: column {column!r} is missing.{did_you_mean(column, text.columns)} "
                f"The columns are {', '.join(layout.columns)}; {_HOW}."
            )
        text[column] = ""
    text = text.fillna("")  # of lines with fewer cells than the header
    frame = pd.DataFrame({column: text[column].str.strip() for column in layout.columns})
    frame["file"], frame["line"] = str(path), frame.index + 2
    return frame[(frame[layout.columns] != "").any(axis=1)]


def _numbers(frame: pd.DataFrame, column: str, whole: bool) -> pd.Series:
    empty = frame[column].str.lower().isin(["", "nan"])
    rough = pd.to_numeric(frame[column].where(~empty, "0"), errors="coerce")
    refuse_rows(frame, ~np.isfinite(rough), column, "must be a finite number")
    # Not `rough` itself: pandas' parser may miss the last bit of what was written.
    cells = frame[column].where(~empty, "nan")
    numbers = pd.Series([float(cell) for cell in cells], index=frame.index, dtype=float)
    if not whole:
        return numbers
    refuse_rows(frame, ~empty & (numbers % 1 != 0), column, "must be a whole number")
    return numbers.astype("Int64") if empty.any() else numbers.astype("int64")


def refuse_rows(frame: pd.DataFrame, bad: pd.Series, column: str, rule: str) -> None:
    """Raises a CommandError about the first row of `frame` that is `bad` in `column`, if any."""
    if bad.any():
        row = frame[bad].iloc[0]
        cell = "empty" if pd.isna(row[column]) or row[column] == "" else repr(row[column])
        raise CommandError(
            f"{row['file']}, line {row['line']}: `{column}` is {cell}; it {rule}. "
            f"Correct it, {_HOW}."
        )


def _merge(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    key = list(layout.key)
    repeated = frame[frame.duplicated(key, keep=False)]
    if repeated.empty:
        return frame
    # Empty cells agree with any: an older file may lack a column that a newer one has.
    groups = repeated.groupby(key, sort=False)
    for column in layout.values:
        varied = groups[column].transform("nunique") > 1
        if varied.any():
            first = repeated[varied].iloc[0]
            same = (repeated[key] == first[key]).all(axis=1) & (repeated[column] != first[column])
            second = repeated[same & repeated[column].notna()].iloc[0]
            what = ", ".join(f"{name} {first[name]}" for name in key)
            raise CommandError(
                f"{second['file']}, line {second['line']}: `{column}` is {second[column]}, but "
                f"{first[column]} in {first['file']}, line {first['line']}, for the same row "
                f"({what}). Keep only one of the two."
            )
    return frame.groupby(key, sort=False, as_index=False).first()
