"""Raw CSVs become learning curves and phases of each variant and task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_examples import (
    CIKD,
    EVALUATIONS,
    LONE,
    evaluation_rows,
    write_csv,
)

from rllib_cikd.common.errors import CommandError
from rllib_cikd.report.caveats import caveats
from rllib_cikd.report.raw_csv import EVALUATIONS as LAYOUT
from rllib_cikd.report.raw_csv import read_rows
from rllib_cikd.report.study_data import StudyData, learning_curves, read_study_data

ROWS = LONE[0]


def test_curves_are_seed_by_step(data: StudyData):
    curves = data.curves["cikd", "T-v0"]
    assert (curves.seeds, curves.num_members) == ([0, 1], 2)
    assert curves.steps.tolist() == [10, 20, 30]
    assert curves.returns["mean"].tolist() == [[5, 40, 30], [0, 20, 40]]
    assert curves.returns["worst"].tolist() == [[0, 30, 20], [0, 10, 20]]
    assert curves.wall_seconds.tolist() == [[100, 200, 300], [100, 200, 300]]
    assert np.isnan(curves.updates).all()  # the files have no such column
    steps, elected = curves.known("elected")
    assert steps.tolist() == [20, 30]
    assert elected.tolist() == [[50, 20], [10, 60]]


def test_phases_tell_who_was_above_its_teacher(data: StudyData):
    phases = data.phases["cikd", "T-v0"]
    first = phases[phases["seed"] == 0]
    assert first["step"].tolist() == [10, 10, 20, 20, 30, 30]
    assert first["teacher"].tolist() == [1, 1, 1, 1, 0, 0]
    assert first["index"].tolist() == [0, 1] * 3
    assert first["third"].tolist() == [0, 0, 1, 1, 2, 2]
    nan = np.nan
    np.testing.assert_array_equal(first["kl_before"], [8, nan, 9, nan, nan, 10])
    # 4 under 5; 6 over 5; 5 equals 5.
    np.testing.assert_array_equal(first["above"], [0, nan, 1, nan, nan, 0])


def test_thirds_are_those_of_the_runs_whole_length(folder: Path):
    """Also after its last phase."""
    longer = evaluation_rows(("cikd", "T-v0", 0), [90], [[0], [0]], [0])
    write_csv(folder / "evaluations.csv", EVALUATIONS, longer)
    phases = read_study_data(folder).phases["cikd", "T-v0"]
    assert phases.groupby("seed")["third"].max().to_dict() == {0: 0, 1: 2}


def test_statistics_use_the_steps_which_all_seeds_have(tmp_path: Path):
    long = evaluation_rows(("a", "T", 0), [10, 20, 30, 40], [[1, 2, 3, 4]], [1, 2, 3, 4])
    short = evaluation_rows(("a", "T", 1), [10, 30], [[5, 7]], [5, 7])
    write_csv(tmp_path / "evaluations.csv", EVALUATIONS, long + short)
    curves = read_study_data(tmp_path).curves["a", "T"]
    assert curves.steps.tolist() == [10, 30]
    assert curves.returns["mean"].tolist() == [[1, 3], [5, 7]]
    assert curves.wall_seconds.tolist() == [[100, 300], [100, 200]]
    assert curves.short_runs == {1: 30}


def test_gradient_steps_are_read_where_they_are_told(tmp_path: Path):
    rows = [[*row, 7 * row[4]] for row in LONE[0]] + [[*row, ""] for row in LONE[1]]
    write_csv(tmp_path / "evaluations.csv", [*EVALUATIONS, "updates"], rows)
    updates = read_study_data(tmp_path).curves["vanilla-sac", "T-v0"].updates
    np.testing.assert_array_equal(updates, [[70, 140, 210], [np.nan] * 3])


def test_committed_results_without_the_newer_columns_are_read():
    path = Path(__file__).parents[2] / "docs" / "results" / "halfcheetah-50k.csv"
    curves = learning_curves(read_rows([path], LAYOUT))["cikd", "HalfCheetah-v5"]
    # docs/lab/experiments.md, step 50,000
    assert curves.returns["best"][:, -1] == pytest.approx([3445, 3513], abs=0.5)
    assert curves.returns["elected"][:, -1] == pytest.approx([3445, 3375], abs=0.5)


def seed_1(steps: list[int], *members: list[float]) -> list[list[object]]:
    return [*ROWS, *evaluation_rows(("vanilla-sac", "T-v0", 1), steps, members, members[0])]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([r for r in ROWS if r[3] != "worst"], r"seed 0: the evaluation at step 10 .* of worst"),
        (ROWS[:-2], r"evaluations\.csv: .*at step 30 lacks the return of mean.*delete that"),
        ([r for r in ROWS if r[3] != "policy_0"], r"step 10 lacks the return of policy_0"),
        ([[*r[:5], "" if r[4] == 20 else r[5], *r[6:]] for r in ROWS], r"step 20 lacks the return"),
        (seed_1([15], [1]), r"no evaluation step is common.*0: 10, …; seed 1: 15, ….*interval"),
        (seed_1([20], [1], [2]), r"number of members \(seed 0: 1, seed 1: 2\).*variant names"),
        ([], r"1 \*evaluations\.csv, all empty"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, rows: list, words: str):
    write_csv(tmp_path / "evaluations.csv", EVALUATIONS, rows)
    with pytest.raises(CommandError, match=words):
        read_study_data(tmp_path)


def test_nothing_to_read_is_an_error(tmp_path: Path):
    with pytest.raises(CommandError, match="no such folder"):
        read_study_data(tmp_path / "nowhere")
    write_csv(tmp_path / "results.csv", EVALUATIONS, CIKD[0])
    with pytest.raises(CommandError, match=r"no evaluations \(\*evaluations\.csv\) below it"):
        read_study_data(tmp_path)


def test_curves_of_seeds_without_common_steps_are_interpolated(tmp_path: Path):
    """By hand: seed 0 rises by 1 a step from 0 at step 100, seed 1 by 2. The grid has multiples of
    100 from 200 to 400, where both runs are."""
    rows = []
    for seed, steps in ((0, [100, 209, 310, 420]), (1, [110, 205, 330, 430])):
        returns = [(seed + 1.0) * (step - 100) for step in steps]
        rows += evaluation_rows(("a", "T", seed), steps, [returns], ["", *returns[1:]])
    write_csv(tmp_path / "evaluations.csv", EVALUATIONS, rows)
    data = read_study_data(tmp_path)
    curves = data.curves["a", "T"]
    assert curves.interpolated
    assert curves.steps.tolist() == [200, 300, 400]
    assert curves.returns["mean"] == pytest.approx(np.array([[100, 200, 300], [200, 400, 600]]))
    elected = curves.returns["elected"]
    assert np.isnan(elected[:, 0]).all()  # between an evaluation without and one with
    assert elected[:, 1:] == pytest.approx(curves.returns["mean"][:, 1:])
    # 100 s an evaluation: step 200 is 100 of the 109 steps behind the first one.
    assert curves.wall_seconds[0, 0] == pytest.approx(100 + 100 * 100 / 109)
    assert curves.last_steps.tolist() == [420, 430]
    (note,) = [line for line in caveats(data, ["a"])[0].splitlines() if "Interpolated" in line]
    assert note.endswith("which the seeds had at different steps: all variants.")
