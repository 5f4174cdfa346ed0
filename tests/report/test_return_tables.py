"""Tables of returns against hand-worked numbers."""

from __future__ import annotations

from pathlib import Path

from report_examples import EVALUATIONS, cells, evaluation_rows, write_csv

from rllib_cikd.report.return_tables import all_tasks_section, seeds_table, task_section
from rllib_cikd.report.study_data import StudyData, read_study_data


def test_tables_hold_the_hand_worked_numbers(data: StudyData):
    report = "\n".join(task_section(data, "T-v0", ["vanilla-sac", "cikd"], "vanilla-sac"))
    final, best, area, reached = cells(report, "cikd")
    # With two seeds the interval reaches from one to the other.
    assert final == [
        *("cikd", "35.00 [30.00 to 40.00]", "40.00 [20.00 to 60.00]"),
        *("50.00 [40.00 to 60.00]", "20.00 [20.00 to 20.00]", "30", "2", "5m 00s"),
    ]
    # Maxima: mean 40, 40; elected 50, 60; best 50, 60; worst 30, 20.
    assert [cell.split(" ")[0] for cell in best] == ["cikd", "40.00", "55.00", "55.00", "25.00"]
    # Mean: (22.5 + 35) / 2 = 28.75 and (10 + 30) / 2 = 20, on average 24.375; elected, from step
    # 20 on: 35 and 35; best: (30 + 45) / 2 = 37.5, (15 + 45) / 2 = 30; worst: (15 + 25) / 2 = 20,
    # (5 + 15) / 2 = 10.
    assert [cell.split(" ")[0] for cell in area] == ["cikd", "24.38", "35.00", "33.75", "15.00"]
    # The baseline's final return is 30; means over seeds: 2.5, 30, 35; -, 30, 40; 5, 40, 50;
    # 0, 20, 20.
    assert reached == ["cikd", "20", "20", "20", "not reached"]
    assert cells(report, "vanilla-sac")[3] == ["vanilla-sac", "30", "=", "=", "="]


def test_steps_to_the_return_of_a_baseline_without_a_run(data: StudyData):
    blocks = task_section(data, "T-v0", ["cikd"], "other")
    assert blocks[-1] == "Steps to the baseline's return: other has no run on this task."


def test_every_seed_is_listed(data: StudyData):
    rows = cells(seeds_table(data, data.variants), "T-v0")
    assert ["T-v0", "cikd", "1", "30", "40.00", "60.00", "60.00", "20.00", "30"] in rows
    assert ["T-v0", "vanilla-sac", "0", "30", "20.00", "=", "=", "=", "30"] in rows
    assert len(rows) == 4


def test_all_tasks_by_interquartile_means(folder: Path):
    second = [
        *evaluation_rows(("vanilla-sac", "U-v0", 0), [10, 20], [[-10, 0]], [-10, 0]),
        *evaluation_rows(("vanilla-sac", "U-v0", 1), [10, 20], [[-10, 10]], [-10, 10]),
        *evaluation_rows(("cikd", "U-v0", 0), [10, 20], [[0, 20], [0, 10]], ["", 20]),
        *evaluation_rows(("cikd", "U-v0", 1), [10, 20], [[0, 30], [0, 30]], ["", 30]),
        *evaluation_rows(("cikd-k2", "U-v0", 0), [10, 20], [[0, 30], [0, 30]], ["", 30]),
    ]
    write_csv(folder / "more-evaluations.csv", EVALUATIONS, second)
    data = read_study_data(folder)
    report = "\n".join(all_tasks_section(data, data.variants, "vanilla-sac"))
    # Scales: T-v0 from 0 to 30, U-v0 from -10 to 5. The mean member's scores: 30/30 and 40/30;
    # (15 + 10)/15 and (30 + 10)/15. The middle two of 1, 4/3, 5/3, 8/3: 3/2.
    row = next(row for row in cells(report, "cikd") if row[-1] == "2 × 2")
    assert row[1].startswith("1.50 [")
    lone = next(row for row in cells(report, "vanilla-sac") if row[-1] == "2 × 2")
    assert lone[1].startswith("1.00 [")  # 20/30, 40/30; 10/15, 20/15
    assert lone[2:5] == ["="] * 3
    # Final returns: T-v0 30 and 40 against 20 and 40: 2.5 of 4 pairs; U-v0 15 and 30 against 0 and
    # 10: all.
    improvement = cells(report, "cikd")[1]
    assert improvement[1].startswith("0.81 [")  # (2.5 / 4 + 1) / 2
    assert len(cells(report, "vanilla-sac")) == 1
    assert "Variants left out: cikd-k2 (no run on T-v0)." in report


def test_a_task_on_which_the_baseline_does_not_improve_is_left_out(tmp_path: Path):
    rows = []
    for task, end in (("T", 5), ("U", 5), ("V", -1)):
        for seed in (0, 1):
            if (task, seed) != ("U", 1):
                rows += evaluation_rows(("a", task, seed), [10, 20], [[0, end]], [0, end])
    write_csv(tmp_path / "evaluations.csv", EVALUATIONS, rows)
    report = "\n".join(all_tasks_section(read_study_data(tmp_path), ["a"], "a"))
    assert "a does not improve on them (or has no run, or shares" in report
    assert "normalise by: V." in report
    assert "Variants left out: a (unequal numbers of seeds: T 2, U 1)." in report


def test_over_all_tasks_variants_are_compared_at_the_same_step(tmp_path: Path):
    """`b` is at 3 where `a` is at 1, and ends, at twice the steps, where `a` would be."""
    rows = []
    for task in ("T", "U"):
        for seed in (0, 1):
            rows += evaluation_rows(("a", task, seed), [10, 20], [[0, 1]], [0, 1])
            values = [0, 3, 100, 100]
            rows += evaluation_rows(("b", task, seed), [10, 20, 30, 40], [values], values)
    write_csv(tmp_path / "evaluations.csv", EVALUATIONS, rows)
    data = read_study_data(tmp_path)
    report = "\n".join(all_tasks_section(data, ["a", "b"], "a"))
    assert cells(report, "a")[0][1].startswith("1.00")
    assert cells(report, "b")[0][1].startswith("3.00")
    assert "the return of b at step 20:" in "\n".join(task_section(data, "T", ["b", "a"], "b"))
