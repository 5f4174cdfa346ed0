"""Which figures a report has, and their files."""

from __future__ import annotations

from pathlib import Path

from report_examples import CIKD, EVALUATIONS, write_csv

from rllib_cikd.report.figures import save_figures
from rllib_cikd.report.study_data import StudyData, read_study_data


def test_figures_without_data_are_left_out_and_named(tmp_path: Path):
    write_csv(tmp_path / "evaluations.csv", EVALUATIONS, CIKD[0])
    report = "\n".join(save_figures(read_study_data(tmp_path), ["cikd"], ["cikd"], tmp_path))
    files = sorted(path.stem for path in tmp_path.glob("*.png"))
    curves = ["learning-curves", "learning-curves-mean", "learning-curves-wall-time"]
    assert files == [*curves, "members"]
    assert "- The teacher of every phase: there are no phases." in report
    assert "lone agent:" not in report  # nobody misses them in a run of an ensemble


def test_every_figure_is_written_and_shown(data: StudyData, tmp_path: Path):
    folder = tmp_path / "figures"
    folder.mkdir()
    report = "\n".join(save_figures(data, ["vanilla-sac", "cikd"], ["vanilla-sac"], folder))
    names = [
        *("learning-curves", "learning-curves-mean", "learning-curves-wall-time"),
        *("members", "teachers", "teacher-proportions", "distances"),
        *("students-above-teacher", "best-seed", "best-seed-proportions"),
    ]
    assert sorted(path.stem for path in folder.glob("*.svg")) == sorted(names)
    for name in names:
        assert f"](figures/{name}.png)" in report
        assert (folder / f"{name}.png").stat().st_size > 5_000
