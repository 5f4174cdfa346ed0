"""Raw CSVs: what is written is read again, and damaged files are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_examples import CIKD, EVALUATIONS, LONE, PHASES, TAUGHT, write_csv

from rllib_cikd.common.errors import CommandError
from rllib_cikd.report import raw_csv
from rllib_cikd.report.raw_csv import read_rows, write_rows

ROWS = LONE[0]


def test_the_columns_are_those_of_committed_results():
    assert [*raw_csv.EVALUATIONS.columns] == [*EVALUATIONS, "updates"]
    assert [*raw_csv.PHASES.columns] == PHASES


def test_numbers_survive_to_the_last_bit(tmp_path: Path):
    misread = 93.73711634780557  # by pandas, unless it is told to look closely
    returns = [0.1, 1 / 3, misread, -1.7976931348623157e308, 5e-324]
    rows = [
        {"variant": "None", "task": "T", "seed": 3, "member": f"policy_{k}", "step": 10**9 + k}
        | {"return": value, "wall_seconds": 1.5, "teacher": None if k else 2, "kl": None}
        for k, value in enumerate(returns)
    ]
    path = tmp_path / "new" / "a.evaluations.csv"
    write_rows(path, rows, raw_csv.EVALUATIONS)
    assert path.read_text().splitlines()[:3] == [
        "variant,task,seed,member,step,return,wall_seconds,teacher,kl,updates",
        "None,T,3,policy_0,1000000000,0.1,1.5,2,,",
        "None,T,3,policy_1,1000000001,0.3333333333333333,1.5,,,",
    ]
    read = read_rows([path], raw_csv.EVALUATIONS)
    assert read["return"].tolist() == returns
    assert read["variant"].unique() == ["None"]
    assert read["teacher"].tolist() == [2, *[pd.NA] * 4]
    again = tmp_path / "again.csv"
    write_rows(again, read, raw_csv.EVALUATIONS)
    assert again.read_bytes() == path.read_bytes()


def test_no_files_and_files_without_rows_have_typed_columns(tmp_path: Path):
    write_rows(tmp_path / "phases.csv", [], raw_csv.PHASES)
    for paths in ([], [tmp_path / "phases.csv"]):
        rows = read_rows(paths, raw_csv.PHASES)
        assert rows.empty
        assert [*rows.columns] == [*PHASES, "file"]
        assert (rows["step"].dtype, rows["kl_after"].dtype) == (np.int64, np.float64)


def test_a_row_counts_once_beside_its_concatenation(tmp_path: Path):
    rows = [row for run in (*LONE, *CIKD) for row in run]
    new = write_csv(tmp_path / "a.csv", EVALUATIONS, rows)
    older = [row[:-2] for row in rows]  # without teacher and kl
    old = write_csv(tmp_path / "b.csv", EVALUATIONS[:-2], older)
    alone = read_rows([new], raw_csv.EVALUATIONS).drop(columns="file")
    for paths in ([new, old], [old, new]):
        both = read_rows(paths, raw_csv.EVALUATIONS).drop(columns="file")
        pd.testing.assert_frame_equal(both, alone)
    assert both["teacher"].notna().sum() == 36  # 2 runs, 3 evaluations, 6 rows each


def changed(row: int, column: str, value: object) -> list[list[object]]:
    rows = [list(r) for r in ROWS]
    rows[row][EVALUATIONS.index(column)] = value
    return rows


def test_rows_that_contradict_each_other_are_refused(tmp_path: Path):
    a = write_csv(tmp_path / "a.csv", EVALUATIONS, ROWS)
    b = write_csv(tmp_path / "b.csv", EVALUATIONS, changed(7, "return", 11.5))
    words = r"a\.csv and \S*b\.csv: `return` differs for .*member worst, step 20.*Keep only one"
    with pytest.raises(CommandError, match=words):
        read_rows([a, b], raw_csv.EVALUATIONS)


@pytest.mark.parametrize(
    ("columns", "rows", "words"),
    [
        (EVALUATIONS[:-4], [], r"column 'return' is missing"),
        ([*EVALUATIONS[:5], "retrun"], [], r"'return' is missing\. Did you mean 'retrun'"),
        (EVALUATIONS, changed(3, "return", "x7"), "x7"),
        (EVALUATIONS, changed(3, "return", "inf"), "column 'return' has an infinite number"),
        (EVALUATIONS, changed(2, "seed", ""), "column 2"),
        (EVALUATIONS, changed(2, "task", ""), "column 'task' has an empty cell"),
        (EVALUATIONS, changed(2, "wall_seconds", ""), "column 'wall_seconds' has an empty cell"),
        (EVALUATIONS, changed(2, "step", "10.5"), "column 4"),
        (
            EVALUATIONS,
            changed(0, "member", "policy"),
            r"member 'policy' is none of policy_\\d\+\|b",
        ),
        (EVALUATIONS, [*ROWS[:-1], ["vanilla-sac", "T"]], "column 2"),  # cut off
    ],
)
def test_damaged_files_are_named_with_column_and_remedy(tmp_path: Path, columns, rows, words: str):
    path = write_csv(tmp_path / "evaluations.csv", columns, rows)
    with pytest.raises(CommandError, match=rf"evaluations\.csv: .*{words}.*study run"):
        read_rows([path], raw_csv.EVALUATIONS)


def test_phases_without_a_teacher_are_refused(tmp_path: Path):
    rows = [[*row[:5], "", *row[6:]] for row in TAUGHT[0]]
    path = write_csv(tmp_path / "phases.csv", PHASES, rows)
    with pytest.raises(CommandError, match=r"phases\.csv: .*column 5.*study run"):
        read_rows([path], raw_csv.PHASES)


def test_a_file_without_a_header_is_refused(tmp_path: Path):
    (tmp_path / "evaluations.csv").touch()
    with pytest.raises(CommandError, match=r"evaluations\.csv: cannot be read as a CSV"):
        read_rows([tmp_path / "evaluations.csv"], raw_csv.EVALUATIONS)
