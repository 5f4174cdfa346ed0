"""`statistics.csv` against hand arithmetic."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from rllib_cikd.report.statistics_csv import write_statistics
from rllib_cikd.report.study_data import StudyData


def test_means_intervals_and_differences(data: StudyData, tmp_path: Path):
    """Mean member of `cikd` at the end: 30 and 40; of `vanilla-sac`: 20 and 40."""
    write_statistics(tmp_path / "s.csv", data, ["vanilla-sac", "cikd"], "vanilla-sac")
    table = pd.read_csv(tmp_path / "s.csv").set_index(["variant", "member", "statistic"])
    final = table.loc["cikd", "mean", "final_return"]
    assert (final["step"], final["mean"], final["seeds"]) == (30, 35.0, 2)
    assert 30.0 <= final["interval_low"] <= 35.0 <= final["interval_high"] <= 40.0
    assert table.loc["vanilla-sac", "mean", "final_return"]["mean"] == 30.0
    assert table.loc["cikd", "mean", "minus_baseline"]["mean"] == 5.0
    assert table.loc["cikd", "elected", "minus_baseline"]["mean"] == 10.0
    assert {member for variant, member, _ in table.index if variant == "vanilla-sac"} == {"mean"}
    # Trapezoids of seed 0: 5, 40, 30 at steps 10, 20, 30.
    curves = data.curves["cikd", "T-v0"].returns["mean"]
    by_hand = [(row[0] / 2 + row[1] + row[2] / 2) / 2 for row in curves]
    area = table.loc["cikd", "mean", "mean_return"]["mean"]
    assert area == pytest.approx(sum(by_hand) / len(by_hand))


def test_one_seed_has_no_interval(data: StudyData, tmp_path: Path):
    rows = data.evaluation_rows[data.evaluation_rows["seed"] == 0]
    from rllib_cikd.report.study_data import learning_curves

    one = StudyData(rows, data.phase_rows, learning_curves(rows), data.phases)
    write_statistics(tmp_path / "s.csv", one, ["cikd"], "cikd")
    table = pd.read_csv(tmp_path / "s.csv")
    assert all(map(math.isnan, table["interval_low"]))
    assert set(table["statistic"]) == {"final_return", "mean_return"}
