"""Tables of distillation against hand-worked numbers."""

from __future__ import annotations

from report_examples import cells

from rllib_cikd.report.distillation_tables import count_above, distillation_section
from rllib_cikd.report.study_data import StudyData


def test_distillation_section(data: StudyData):
    report = "\n".join(distillation_section(data, ["cikd"]))
    distances, teachers, above = cells(report, "cikd")
    # KL of the students of both seeds: 8, 9, 10 → 2, 3, 4.
    assert distances == ["cikd", "T-v0", "2", "3", "9 → 3", "30 → 3"]
    # Member 0 taught 1 of 3 and 3 of 3 phases.
    assert teachers == ["cikd", "T-v0", "67% / 33%", "0% and 100%"]
    shares = ["40% (2 of 5)", "50% (1 of 2)", "100% (1 of 1)", "0% (0 of 2)"]
    assert above == ["cikd", "T-v0", *shares]
    assert cells(report, "*paper*")[0][2:] == ["23%", "–", "–", "33%"]


def test_students_above_teacher_are_counted_by_third(data: StudyData):
    counts = count_above(data.phases["cikd", "T-v0"])
    assert counts.tolist() == [[1, 2], [1, 1], [0, 2]]


def test_what_was_not_measured_is_said(data: StudyData):
    assert distillation_section(data, ["vanilla-sac"]) == ["No phases were found (`*phases.csv`)."]
    for phases in data.phases.values():
        phases["above"] = float("nan")
    assert "not measured, for no run had" in distillation_section(data, ["cikd"])[-1]
