"""Differences to the baseline, run against run of the same seed."""

from __future__ import annotations

from pathlib import Path

from report_examples import EVALUATIONS, cells, evaluation_rows, write_csv

from rllib_cikd.report.differences import differences_section, headline, paired_differences
from rllib_cikd.report.study_data import StudyData, read_study_data


def study(folder: Path, *runs: list[list[object]]) -> StudyData:
    write_csv(folder / "evaluations.csv", EVALUATIONS, [row for run in runs for row in run])
    return read_study_data(folder)


def lone(variant: str, seed: int, *returns: float, task: str = "T") -> list[list[object]]:
    steps = [10 * (i + 1) for i in range(len(returns))]
    return evaluation_rows((variant, task, seed), steps, [returns], returns)


def test_only_common_seeds_and_steps_are_compared(tmp_path: Path):
    """Step 20 is the last that a and b have both; seed 2 is b's alone."""
    runs = [lone("a", 0, 1, 2), lone("a", 1, 3, 4)]
    runs += [lone("b", 1, 10, 24, 900), lone("b", 2, 500, 600, 700), lone("b", 0, 5, 12, 800)]
    data = study(tmp_path, *runs)
    found = paired_differences(data.curves["b", "T"], data.curves["a", "T"])
    assert found is not None
    assert (found.step, found.seeds) == (20, [0, 1])
    assert found.values["mean"].tolist() == [10, 20]
    (row,) = cells("\n".join(differences_section(data, ["a", "b"], "a")), "T")
    assert row == ["T", "b", "+15.00 [10.00 to 20.00]", "=", "2 of 2", "20"]


def test_a_variant_below_the_baseline(tmp_path: Path):
    data = study(tmp_path, lone("a", 0, 1_000, 3_000), lone("b", 0, 500, 1_000))
    (line,) = headline(data, ["a", "b"], "a", "b")
    assert line == (
        "- **T**: b minus a: **-2,000** in mean final return at step 20; "
        "ahead in 0 of 1 pairs of the same seed."
    )


def test_variants_without_a_pair_are_named(tmp_path: Path):
    runs = [lone("a", 0, 1, 2), lone("b", 1, 1, 2), lone("b", 0, 3, task="U")]
    data = study(tmp_path, *runs)
    assert differences_section(data, ["a", "b"], "a") == [
        "No pair with a, by seed and step: b on T, b on U."
    ]
    assert headline(data, ["a", "b"], "a", "b") == []


def test_an_elected_member_that_is_not_known(tmp_path: Path):
    late = evaluation_rows(("b", "T", 0), [10], [[4], [8]], [""])
    data = study(tmp_path, lone("a", 0, 1), late)
    (row,) = cells("\n".join(differences_section(data, ["a", "b"], "a")), "T")
    assert row == ["T", "b", "+5.00", "–", "1 of 1", "10"]


def test_with_the_method_as_baseline_the_first_other_leads(tmp_path: Path):
    data = study(tmp_path, lone("cikd", 0, 4), lone("b", 0, 1), lone("c", 0, 2))
    (line,) = headline(data, ["cikd", "b", "c"], "cikd", "cikd")
    assert "b minus cikd: **-3.00**" in line
