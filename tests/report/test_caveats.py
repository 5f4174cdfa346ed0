"""What a report warns of."""

from __future__ import annotations

from pathlib import Path

from report_examples import EVALUATIONS, evaluation_rows, write_csv

from rllib_cikd.report.caveats import caveats
from rllib_cikd.report.study_data import StudyData, read_study_data


def notes(data: StudyData) -> list[str]:
    return "".join(caveats(data, data.variants)).removeprefix("- ").split("\n- ")


def test_few_seeds_and_late_elections(data: StudyData):
    few, late = notes(data)
    assert few.startswith("**Fewer than 5 seeds**: all variants.")
    assert "Elected member** not known at the first evaluations (at most 1)" in late
    assert late.endswith("had finished an episode: cikd. Its area is over the rest.")


def test_short_runs_and_unequal_lengths(tmp_path: Path):
    rows = []
    for variant, task, seed, steps in (
        ("a", "T", 0, [10, 20, 30]),
        ("a", "T", 1, [10, 20]),
        ("a", "U", 0, [10]),
        ("b", "T", 0, [10, 20, 30]),
    ):
        returns = [0.0] * len(steps)
        rows += evaluation_rows((variant, task, seed), steps, [returns], returns)
    write_csv(tmp_path / "evaluations.csv", EVALUATIONS, rows)
    short, unequal, one, few = notes(read_study_data(tmp_path))
    assert short == (
        "**Short runs**, a on T: seed 1 at 20; the longest ends at 30. Its statistics stop at 20."
    )
    assert unequal.startswith("**Unequal lengths** on T: do not compare")
    assert "(20: a; 30: b)" in unequal
    assert one == "**One seed**, so no interval: a on U; b."
    assert few.startswith("**Fewer than 5 seeds**: a on T.")


def test_five_whole_runs_need_no_word(tmp_path: Path):
    rows = [evaluation_rows(("a", "T", seed), [10], [[1.0]], [1.0]) for seed in range(5)]
    write_csv(tmp_path / "evaluations.csv", EVALUATIONS, [row for run in rows for row in run])
    assert caveats(read_study_data(tmp_path), ["a"]) == []


def test_a_run_that_has_just_begun_cuts_nothing_short(tmp_path: Path):
    rows = []
    for seed, steps in ((0, [10, 20, 30]), (1, [10, 20]), (2, [10])):
        rows += evaluation_rows(("a", "T", seed), steps, [[1.0] * len(steps)], [1.0] * len(steps))
    write_csv(tmp_path / "evaluations.csv", EVALUATIONS, rows)
    data = read_study_data(tmp_path)
    curves = data.curves["a", "T"]
    assert (curves.seeds, [*curves.steps]) == ([0, 1], [10, 20])
    left_out, short, _ = notes(data)
    assert left_out == (
        "**Left out**, a on T: seed 2 at 10; not half as far as the longest run, which ends at 30."
    )
    assert "seed 1 at 20; the longest ends at 30" in short
