"""Speed, worked out by hand: 100 seconds an evaluation of 10 steps, 1.5 seconds a phase."""

from __future__ import annotations

from pathlib import Path

from report_examples import EVALUATIONS, LONE, cells, write_csv

from rllib_cikd.report.speed_tables import speed_section
from rllib_cikd.report.study_data import StudyData, read_study_data


def test_wall_time_and_phases(data: StudyData):
    """30 steps in 300 seconds, of which three phases of 1.5 seconds take 1.5 %."""
    report = "\n".join(speed_section(data, ["vanilla-sac", "cikd"]))
    assert cells(report, "T-v0") == [
        ["T-v0", "vanilla-sac", "5m 00s", "0", "–", "–"],
        ["T-v0", "cikd", "5m 00s", "0", "1.5", "2%"],
    ]
    assert "updates" not in report  # these files do not tell


def test_steps_and_updates_a_second(tmp_path: Path):
    """3,000 steps and 1,500 updates in 300 seconds."""
    columns = [*EVALUATIONS, "updates"]
    rows = [[*row[:4], 100 * row[4], *row[5:], 50 * row[4]] for row in LONE[0]]
    write_csv(tmp_path / "evaluations.csv", columns, rows)
    report = "\n".join(speed_section(read_study_data(tmp_path), ["vanilla-sac"]))
    assert cells(report, "T-v0") == [["T-v0", "vanilla-sac", "5m 00s", "10", "5"]]
    assert "phase" not in cells(report, "task")[0][-1]
