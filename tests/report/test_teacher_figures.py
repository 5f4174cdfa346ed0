"""Teachers, best seeds and students: what is drawn of the study that is worked out by hand."""

from __future__ import annotations

import pytest

from rllib_cikd.report.study_data import StudyData
from rllib_cikd.report.teacher_figures import (
    best_seed_timelines,
    draw_shares,
    draw_timelines,
    students_above_teacher,
    teacher_timelines,
)


def test_teachers_are_marked_in_their_lanes(data: StudyData):
    (figure,) = draw_timelines(teacher_timelines(data, ["cikd"]))
    (axes,) = figure.axes
    marks = {line.get_label(): line for line in axes.get_lines()}
    assert marks["0 member 1"].get_xdata().tolist() == [10, 20]
    assert marks["0 member 0"].get_xdata().tolist() == [30]
    assert marks["1 member 0"].get_xdata().tolist() == [10, 20, 30]
    # Seeds are one unit high; member 0's lane is the upper half (downwards from -0.5).
    assert set(marks["0 member 1"].get_ydata()) == {0.25}
    assert set(marks["1 member 0"].get_ydata()) == {0.75}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1"]


def test_teacher_proportions_are_stacked(data: StudyData):
    (figure,) = draw_shares(teacher_timelines(data, ["cikd"]))
    member_0, member_1 = figure.axes[0].containers
    assert [bar.get_height() for bar in member_0] == pytest.approx([1 / 3, 1])
    assert [bar.get_height() for bar in member_1] == pytest.approx([2 / 3, 0])
    assert [bar.get_y() for bar in member_1] == pytest.approx([1 / 3, 1])
    assert len({bar.get_hatch() for bar in (member_0[0], member_1[0])}) == 2


def test_best_seeds_of_lone_agents(data: StudyData):
    timelines = best_seed_timelines(data, ["vanilla-sac", "cikd"])
    assert [timeline.variant for timeline in timelines] == ["vanilla-sac"]
    # Returns 0 = 0 (the first), 10 < 20, 20 < 40.
    assert timelines[0].runs[""].tolist() == [0, 1, 1]
    (timeline,) = draw_timelines(timelines)
    seed_0, seed_1 = timeline.axes[0].get_lines()
    assert (seed_0.get_xdata().tolist(), seed_1.get_xdata().tolist()) == ([10], [20, 30])
    (bars,) = draw_shares(timelines)
    heights = [bar.get_height() for bar in bars.axes[0].containers[0]]
    assert heights == pytest.approx([1 / 3, 2 / 3])


def test_students_above_teacher_bars(data: StudyData):
    (figure,) = students_above_teacher(data, ["vanilla-sac", "cikd"], ["cikd"])
    heights = [bar.get_height() for bar in figure.axes[0].containers[0]]
    assert heights == pytest.approx([0.5, 1.0, 0.0])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [
        *("first", "middle", "last"),
    ]
