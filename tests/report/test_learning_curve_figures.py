"""Learning curves: what is drawn of the study that is worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rllib_cikd.report.learning_curve_figures import (
    BEST_AND_WORST,
    GRADIENT_STEPS,
    MEAN_AND_ELECTED,
    WALL_TIME,
    learning_curves,
)
from rllib_cikd.report.study_data import StudyData


def test_learning_curves_draw_means_and_intervals(data: StudyData):
    (figure,) = learning_curves(data, ["vanilla-sac", "cikd"], BEST_AND_WORST, ["vanilla-sac"])
    (axes,) = figure.axes
    assert axes.get_title() == "T-v0"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("environment steps", "evaluation return")
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"vanilla-sac, best", "cikd, best", "cikd, worst"}
    assert lines["cikd, best"].get_xdata().tolist() == [10, 20, 30]
    assert lines["cikd, best"].get_ydata().tolist() == [5, 40, 50]
    assert lines["cikd, worst"].get_ydata().tolist() == [0, 20, 20]
    assert lines["vanilla-sac, best"].get_ydata().tolist() == [0, 15, 30]
    assert [lines[f"cikd, {who}"].get_linestyle() for who in ("best", "worst")] == ["-", "--"]
    assert lines["cikd, best"].get_marker() != lines["vanilla-sac, best"].get_marker()
    # Of two seeds, the band reaches from one to the other: 20 … 40 at step 30.
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in band} >= {(20, 10), (20, 20), (30, 20), (30, 40)}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        *("vanilla-sac (one agent)", "cikd", "best member", "worst member"),
        "95% bootstrap interval over 2 seeds",
    ]


def test_elected_member_is_dotted_from_where_it_is_known(data: StudyData):
    (figure,) = learning_curves(data, ["cikd"], MEAN_AND_ELECTED, ["cikd"])
    mean, elected = figure.axes[0].get_lines()
    assert mean.get_ydata().tolist() == [2.5, 30, 35]
    assert elected.get_xdata().tolist() == [20, 30]
    assert elected.get_ydata().tolist() == [30, 40]
    assert elected.get_linestyle() == ":"


def test_curves_against_wall_time(data: StudyData):
    curves = data.curves["cikd", "T-v0"]
    hours = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])
    data.curves["cikd", "T-v0"] = replace(curves, wall_seconds=3600 * hours)
    (figure,) = learning_curves(data, ["cikd"], MEAN_AND_ELECTED, ["cikd"], WALL_TIME)
    mean, elected = figure.axes[0].get_lines()
    assert figure.axes[0].get_xlabel() == "wall time, hours"
    assert mean.get_xdata().tolist() == [1.5, 3, 4.5]
    assert mean.get_ydata().tolist() == [2.5, 30, 35]
    assert elected.get_xdata().tolist() == [3, 4.5]


def test_curves_against_gradient_steps_are_of_runs_that_tell_them(data: StudyData):
    variants = ["vanilla-sac", "cikd"]
    assert learning_curves(data, variants, MEAN_AND_ELECTED, variants, GRADIENT_STEPS) == []
    curves = data.curves["cikd", "T-v0"]
    data.curves["cikd", "T-v0"] = replace(curves, updates=np.array([[0, 9, 19.0]] * 2))
    (figure,) = learning_curves(data, variants, MEAN_AND_ELECTED, variants, GRADIENT_STEPS)
    lines = {line.get_label(): line.get_xdata().tolist() for line in figure.axes[0].get_lines()}
    assert lines == {"cikd, mean": [0, 9, 19], "cikd, elected": [9, 19]}
