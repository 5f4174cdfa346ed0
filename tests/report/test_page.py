"""A study's report: what is read, the statistics against hand-worked numbers, the figures."""

from __future__ import annotations

import csv
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from rllib_cikd.common.errors import CommandError
from rllib_cikd.report import statistics
from rllib_cikd.report.curves import (
    Study,
    evaluation_curves,
    read_evaluations,
    read_study,
)
from rllib_cikd.report.distillation import count_above
from rllib_cikd.report.page import write_report

EVALUATIONS = [
    "variant",
    "task",
    "seed",
    "member",
    "step",
    "return",
    "wall_seconds",
    "teacher",
    "kl",
]
PHASES = [
    "variant",
    "task",
    "seed",
    "phase",
    "step",
    "teacher",
    "member",
    "kl_before",
    "kl_after",
    "critic_loss_before",
    "critic_loss_after",
    "return_before",
    "return_after",
    "seconds",
]


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    return path


def evaluation_rows(
    run: tuple[str, str, int],
    steps: Sequence[int],
    members: Sequence[Sequence[float]],
    elected: Sequence[object],
    teacher: object = "",
) -> list[list[object]]:
    """Rows of one run, from each member's returns at `steps`; 100 seconds an evaluation."""
    rows: list[list[object]] = []
    for i, step in enumerate(steps):
        returns = [member[i] for member in members]
        figures: dict[str, object] = {f"policy_{k}": value for k, value in enumerate(returns)}
        figures |= {"best": max(returns), "worst": min(returns), "mean": np.mean(returns)}
        figures["elected"] = elected[i]
        rows += [
            [*run, name, step, value, 100 * (i + 1), teacher, ""] for name, value in figures.items()
        ]
    return rows


def phase_rows(
    run: tuple[str, str, int],
    steps: Sequence[int],
    teachers: Sequence[int],
    returns: Sequence[Sequence[object]],
) -> list[list[object]]:
    """Rows of one run; KL 8 → 2 and critic distance 30 → 3 for every student of phase 0, …"""
    return [
        [
            *(*run, phase, step, teacher, f"policy_{k}"),
            *(["", "", "", ""] if k == teacher else [8 + phase, 2 + phase, 30, 3]),
            *("" if value == "" else 0, value, 1.5),
        ]
        for phase, (step, teacher) in enumerate(zip(steps, teachers, strict=True))
        for k, value in enumerate(returns[phase])
    ]


LONE = [
    evaluation_rows(("vanilla-sac", "T-v0", 0), [10, 20, 30], [[0, 10, 20]], [0, 10, 20]),
    evaluation_rows(("vanilla-sac", "T-v0", 1), [10, 20, 30], [[0, 20, 40]], [0, 20, 40]),
]
CIKD = [
    # mean 5, 40, 30; best 10, 50, 40; worst 0, 30, 20
    evaluation_rows(
        ("cikd", "T-v0", 0), [10, 20, 30], [[0, 30, 40], [10, 50, 20]], ["", 50, 20], 1
    ),
    # mean 0, 20, 40; best 0, 30, 60; worst 0, 10, 20
    evaluation_rows(("cikd", "T-v0", 1), [10, 20, 30], [[0, 10, 60], [0, 30, 20]], ["", 10, 60], 0),
]
# Students above their teacher, by third of 30 steps: seed 0: no | yes | no (a tie);
# seed 1: yes | not measured | no.
TAUGHT = [
    phase_rows(("cikd", "T-v0", 0), [10, 20, 30], [1, 1, 0], [[4, 5], [6, 5], [5, 5]]),
    phase_rows(("cikd", "T-v0", 1), [10, 20, 30], [0, 0, 0], [[4, 5], ["", ""], [6, 5]]),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The hand-worked study: each trial's CSVs in a folder of their own."""
    for i, rows in enumerate([*LONE, *CIKD]):
        write_csv(tmp_path / f"trial_{i}" / "evaluations.csv", EVALUATIONS, rows)
    for i, rows in enumerate(TAUGHT):
        write_csv(tmp_path / f"trial_{i + 2}" / "phases.csv", PHASES, rows)
    return tmp_path


@pytest.fixture
def study(folder: Path) -> Study:
    return read_study(folder)


def cells(report: str, start: str) -> list[list[str]]:
    """The cells of every table row that begins with `start`."""
    lines = [line for line in report.splitlines() if line.startswith(f"| {start} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# --- statistics ---


def test_mean_and_interval_are_scipys_and_the_same_every_time():
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    expected = stats.bootstrap(
        (values,), np.mean, method="BCa", confidence_level=0.95, rng=np.random.default_rng(0)
    ).confidence_interval
    for _ in range(2):
        interval = statistics.mean_interval(values)
        assert interval.mean == pytest.approx(31 / 5)
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_intervals_of_a_curve_are_those_of_its_steps():
    curve = np.array([[1.0, 5.0, 7.0], [2.0, 5.0, 9.0], [4.0, 5.0, 3.0]])  # [S, T]
    together = statistics.mean_interval(curve)
    for t in (0, 2):
        alone = stats.bootstrap(
            (curve[:, t],), np.mean, method="BCa", rng=np.random.default_rng(0)
        ).confidence_interval
        assert (together.low[t], together.high[t]) == pytest.approx((alone.low, alone.high))
    assert together.low[1] == together.high[1] == 5


def test_one_seed_and_equal_seeds_need_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = statistics.mean_interval(np.array([3.0]))
        equal = statistics.mean_interval(np.array([0.1, 0.1, 0.1]))
        nearly = statistics.mean_interval(np.array([1e6, 1e6 + 1e-9]))
    assert one.mean == 3
    assert np.isnan([one.low, one.high]).all()
    assert (equal.low, equal.high) == pytest.approx((0.1, 0.1))
    assert nearly.low == nearly.high == pytest.approx(1e6)


def test_area_under_curve_by_hand():
    # (0+10)/2 * 10 + (10+40)/2 * 30 = 50 + 750 = 800, over 40 steps.
    area = statistics.area_under_curve(np.array([10, 20, 50]), np.array([[0.0, 10.0, 40.0]]))
    assert area == pytest.approx([20.0])
    assert statistics.area_under_curve(np.array([10]), np.array([[7.0]])) == [7.0]


def test_steps_to_reach():
    steps, curve = np.array([10, 20, 30, 40]), np.array([1.0, 5.0, 3.0, 6.0])
    assert statistics.steps_to_reach(steps, curve, 4.9) == 20
    assert statistics.steps_to_reach(steps, curve, 5.0) == 20
    assert statistics.steps_to_reach(steps, curve, 5.1) == 40
    assert statistics.steps_to_reach(steps, curve, 6.1) is None


def test_proportions_and_best_seed():
    assert statistics.proportions(np.array([2, 0, 2, 2]), 5).tolist() == [0.25, 0, 0.75, 0, 0]
    returns = np.array([[1.0, 9.0, 3.0], [2.0, 8.0, 3.0]])
    assert statistics.best_seed(returns).tolist() == [1, 0, 0]


def test_students_above_their_teacher():
    teachers = np.array([0, 2, 1])
    returns = np.array([[5.0, 6.0, 4.0], [9.0, 7.0, 7.0], [1.0, np.nan, 1.0]])
    above = statistics.above_teacher(teachers, returns)
    nan = np.nan
    np.testing.assert_array_equal(above, [[nan, 1, 0], [1, 0, nan], [nan, nan, nan]])


def test_boundaries_of_thirds_belong_to_the_earlier_one():
    thirds = statistics.training_third(np.array([1, 30, 31, 60, 61, 90]), 90)
    assert thirds.tolist() == [0, 0, 1, 1, 2, 2]


SCORES = np.array([[0.0, 1.0], [0.2, 0.9], [0.6, 0.7], [0.5, 5.0]])  # [S, tasks]


def test_interquartile_mean_by_hand():
    # Sorted: 0, .2 | .5, .6, .7, .9 | 1, 5; the middle half's mean is 2.7 / 4.
    interval = statistics.interquartile_mean(SCORES)
    assert interval.mean == pytest.approx(0.675)
    assert interval.mean == pytest.approx(stats.trim_mean(SCORES, 0.25, axis=None))


def test_interquartile_means_interval_resamples_each_task_by_itself():
    rng = np.random.default_rng(123)
    drawn = [
        stats.trim_mean(
            np.stack([rng.choice(task, len(task)) for task in SCORES.T]), 0.25, axis=None
        )
        for _ in range(4_000)
    ]
    interval = statistics.interquartile_mean(SCORES)
    # The quantiles of 2,000 resamples have a standard error of about 0.01 here.
    assert (interval.low, interval.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), 0.08)
    state = np.random.get_state()[1].copy()
    again = statistics.interquartile_mean(SCORES)
    assert (interval.low, interval.high) == (again.low, again.high)
    assert (np.random.get_state()[1] == state).all()


def test_interquartile_mean_is_rliables():
    try:
        from rliable import library, metrics
    except (ImportError, TypeError) as error:  # arch 7 with pandas 3: a TypeError
        pytest.skip(f"rliable cannot be imported: {error}")
    state = np.random.get_state()
    np.random.seed(0)  # the generator that rliable draws from, whatever its `random_state`
    try:
        means, intervals = library.get_interval_estimates(
            {"a": SCORES}, lambda scores: np.array([metrics.aggregate_iqm(scores)]), reps=4_000
        )
    finally:
        np.random.set_state(state)
    ours = statistics.interquartile_mean(SCORES)
    assert ours.mean == pytest.approx(means["a"][0])
    assert (ours.low, ours.high) == pytest.approx(intervals["a"].ravel(), 0.08)


# --- reading ---


def test_curves_are_seed_by_step(study: Study):
    curves = study.curves["cikd", "T-v0"]
    assert (curves.seeds, curves.num_members) == ([0, 1], 2)
    assert curves.steps.tolist() == [10, 20, 30]
    assert curves.returns["mean"].tolist() == [[5, 40, 30], [0, 20, 40]]
    assert curves.returns["worst"].tolist() == [[0, 30, 20], [0, 10, 20]]
    assert curves.wall_seconds.tolist() == [300, 300]
    steps, elected = curves.complete("elected")
    assert steps.tolist() == [20, 30]
    assert elected.tolist() == [[50, 20], [10, 60]]


def test_phases_are_phase_by_member(study: Study):
    first, second = study.phases["cikd", "T-v0"]
    assert (first.seed, first.steps.tolist()) == (0, [10, 20, 30])
    assert first.teachers.tolist() == [1, 1, 0]
    nan = np.nan
    np.testing.assert_array_equal(first.figures["kl_before"], [[8, nan], [9, nan], [nan, 10]])
    np.testing.assert_array_equal(second.figures["return_after"], [[4, 5], [nan, nan], [6, 5]])


def test_statistics_use_the_steps_which_all_seeds_have(tmp_path: Path):
    long = evaluation_rows(("a", "T", 0), [10, 20, 30, 40], [[1, 2, 3, 4]], [1, 2, 3, 4])
    short = evaluation_rows(("a", "T", 1), [10, 30], [[5, 7]], [5, 7])
    write_csv(tmp_path / "evaluations.csv", EVALUATIONS, long + short)
    curves = read_study(tmp_path).curves["a", "T"]
    assert curves.steps.tolist() == [10, 30]
    assert curves.returns["mean"].tolist() == [[1, 3], [5, 7]]
    assert curves.short_runs == {1: 30}
    report = write_report(tmp_path).read_text()
    assert "**Short runs**, a on T: seed 1 at 30; the longest ends at 40." in report
    assert "Its statistics stop at 30." in report
    assert cells(report, "a")[0][1].startswith("5.00 [")  # (3 + 7) / 2


def test_a_trials_rows_count_once_beside_their_concatenation(folder: Path):
    alone = read_study(folder)
    old = [row[:-2] for rows in (*LONE, *CIKD) for row in rows]  # without teacher and kl
    write_csv(folder / "all-evaluations.csv", EVALUATIONS[:-2], old)
    both = read_study(folder)
    assert len(both.evaluations) == len(alone.evaluations)
    assert both.evaluations["teacher"].notna().sum() == 36  # 2 runs, 3 evaluations, 6 rows each
    np.testing.assert_array_equal(
        both.curves["cikd", "T-v0"].returns["best"], alone.curves["cikd", "T-v0"].returns["best"]
    )


def test_committed_results_without_the_newer_columns_are_read():
    path = Path(__file__).parents[2] / "docs" / "results" / "halfcheetah-50k.csv"
    curves = evaluation_curves(read_evaluations([path]))["cikd", "HalfCheetah-v5"]
    # docs/RESULTS.md, step 50,000
    assert curves.returns["best"][:, -1] == pytest.approx([3445, 3513], abs=0.5)
    assert curves.returns["elected"][:, -1] == pytest.approx([3445, 3375], abs=0.5)


ROWS = LONE[0]


def changed(row: int, column: str, value: object) -> list[list[object]]:
    rows = [list(r) for r in ROWS]
    rows[row][EVALUATIONS.index(column)] = value
    return rows


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"evaluations.csv": ([c for c in EVALUATIONS if c != "return"], [])},
            r"evaluations\.csv: column 'return' is missing.*study run",
        ),
        (
            {"evaluations.csv": (EVALUATIONS, changed(3, "return", "x7"))},
            r"evaluations\.csv, line 5: `return` is 'x7'; it must be a finite number.*study run",
        ),
        (
            {"evaluations.csv": (EVALUATIONS, changed(3, "return", "inf"))},
            r"line 5: `return` is 'inf'; it must be a finite number",
        ),
        (
            {"evaluations.csv": (EVALUATIONS, changed(1, "return", ""))},
            r"line 3: `return` is empty; it must be a number",
        ),
        (
            {"evaluations.csv": (EVALUATIONS, changed(2, "seed", ""))},
            r"line 4: `seed` is empty; it must not be empty",
        ),
        (
            {"evaluations.csv": (EVALUATIONS, changed(2, "step", "10.5"))},
            r"line 4: `step` is '10\.5'; it must be a whole number",
        ),
        (
            {"evaluations.csv": (EVALUATIONS, changed(0, "member", "policy"))},
            r"line 2: `member` is 'policy'; it must be policy_k or mean, elected, best, worst",
        ),
        (
            {
                "a-evaluations.csv": (EVALUATIONS, ROWS),
                "b-evaluations.csv": (EVALUATIONS, changed(7, "return", 11.5)),
            },
            r"b-evaluations\.csv, line 9: `return` is 11\.5, but 10\.0 in \S*a-evaluations\.csv, "
            r"line 9, for the same row \(.*member worst, step 20\).*Keep only one",
        ),
        (
            {"evaluations.csv": (EVALUATIONS, [r for r in ROWS if r[3] != "worst"])},
            r"seed 0: no rows for member 'worst'",
        ),
        (
            {"evaluations.csv": (EVALUATIONS, ROWS[:-2])},
            r"the evaluation at step 30 lacks member 'mean'; .*delete that evaluation",
        ),
        (
            {
                "evaluations.csv": (
                    EVALUATIONS,
                    [*ROWS, *evaluation_rows(("vanilla-sac", "T-v0", 1), [15], [[1]], [1])],
                )
            },
            r"no evaluation step is common to all seeds \(seed 0: 10, …; seed 1: 15, …\).*interval",
        ),
        (
            {
                "evaluations.csv": (
                    EVALUATIONS,
                    [*ROWS, *evaluation_rows(("vanilla-sac", "T-v0", 1), [10], [[1], [2]], [1])],
                )
            },
            r"differ in their number of members \(seed 0: 1, seed 1: 2\).*variant names",
        ),
        (
            {
                "evaluations.csv": (EVALUATIONS, ROWS),
                "phases.csv": (PHASES, [[*r[:5], "", *r[6:]] for r in TAUGHT[0]]),
            },
            r"phases\.csv, line 2: `teacher` is empty; it must be 0 or more",
        ),
        ({"evaluations.csv": (EVALUATIONS, [])}, r"1 \*evaluations\.csv, all empty"),
        ({"results.csv": (EVALUATIONS, ROWS)}, r"no evaluations \(\*evaluations\.csv\) below it"),
    ],
)
def test_bad_files_are_named_with_place_and_remedy(tmp_path: Path, files: dict, words: str):
    for name, (columns, rows) in files.items():
        write_csv(tmp_path / name, columns, rows)
    with pytest.raises(CommandError, match=words):
        read_study(tmp_path)


def test_empty_files_and_missing_folders_are_errors(tmp_path: Path):
    with pytest.raises(CommandError, match="no such folder"):
        read_study(tmp_path / "nowhere")
    (tmp_path / "evaluations.csv").touch()
    with pytest.raises(CommandError, match=r"evaluations\.csv: cannot be read as a CSV"):
        read_study(tmp_path)


# --- the page ---


def test_tables_hold_the_hand_worked_numbers(folder: Path):
    report = write_report(folder).read_text()
    assert "baseline: **vanilla-sac**" in report
    final, best, area, reached, *_ = cells(report, "cikd")
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
    assert "Elected member** not known at the first evaluations (at most 1)" in report
    assert "**Fewer than 5 seeds**: all variants." in report


def test_every_seed_is_listed(folder: Path):
    rows = cells(write_report(folder).read_text(), "T-v0")
    assert ["T-v0", "cikd", "1", "30", "40.00", "60.00", "60.00", "20.00", "30"] in rows
    assert ["T-v0", "vanilla-sac", "0", "30", "20.00", "=", "=", "=", "30"] in rows
    assert len(rows) == 4


def test_distillation_section(folder: Path):
    report = write_report(folder).read_text()
    distances, teachers, above = (row for row in cells(report, "cikd") if row[1] == "T-v0")
    # KL of the students of both seeds: 8, 9, 10 → 2, 3, 4.
    assert distances == ["cikd", "T-v0", "2", "3", "9 → 3", "30 → 3"]
    # Member 0 taught 1 of 3 and 3 of 3 phases.
    assert teachers == ["cikd", "T-v0", "67% / 33%", "0% and 100%"]
    shares = ["40% (2 of 5)", "50% (1 of 2)", "100% (1 of 1)", "0% (0 of 2)"]
    assert above == ["cikd", "T-v0", *shares]
    assert cells(report, "*paper*")[0][2:] == ["23%", "–", "–", "33%"]


def test_students_above_teacher_are_counted_by_third(study: Study):
    counts = count_above(study.phases["cikd", "T-v0"])
    assert counts.tolist() == [[1, 2], [1, 1], [0, 2]]


def test_all_tasks_by_interquartile_means(folder: Path):
    second = [
        *evaluation_rows(("vanilla-sac", "U-v0", 0), [10, 20], [[-10, 0]], [-10, 0]),
        *evaluation_rows(("vanilla-sac", "U-v0", 1), [10, 20], [[-10, 10]], [-10, 10]),
        *evaluation_rows(("cikd", "U-v0", 0), [10, 20], [[0, 20], [0, 10]], ["", 20]),
        *evaluation_rows(("cikd", "U-v0", 1), [10, 20], [[0, 30], [0, 30]], ["", 30]),
        *evaluation_rows(("cikd-k2", "U-v0", 0), [10, 20], [[0, 30], [0, 30]], ["", 30]),
    ]
    write_csv(folder / "more-evaluations.csv", EVALUATIONS, second)
    report = write_report(folder).read_text()
    # Scales: T-v0 from 0 to 30, U-v0 from -10 to 5. The mean member's scores: 30/30 and 40/30;
    # (15 + 10)/15 and (30 + 10)/15. The middle two of 1, 4/3, 5/3, 8/3: 3/2.
    row = next(row for row in cells(report, "cikd") if row[-1] == "2 × 2")
    assert row[1].startswith("1.50 [")
    lone = next(row for row in cells(report, "vanilla-sac") if row[-1] == "2 × 2")
    assert lone[1].startswith("1.00 [")  # 20/30, 40/30; 10/15, 20/15
    assert lone[2:5] == ["="] * 3
    assert "Variants left out: cikd-k2 (no run on T-v0)." in report
    assert "(x − x₀) / (b − x₀)" in report


def test_a_task_on_which_the_baseline_does_not_improve_is_left_out(tmp_path: Path):
    rows = []
    for task, end in (("T", 5), ("U", 5), ("V", -1)):
        for seed in (0, 1):
            if (task, seed) != ("U", 1):
                rows += evaluation_rows(("a", task, seed), [10, 20], [[0, end]], [0, end])
    write_csv(tmp_path / "evaluations.csv", EVALUATIONS, rows)
    report = write_report(tmp_path).read_text()
    assert "a does not improve on them (or has no run)" in report
    assert "normalise by: V." in report
    assert "Variants left out: a (unequal numbers of seeds: T 2, U 1)." in report


def test_baseline_can_be_chosen(folder: Path):
    report = write_report(folder, baseline="cikd").read_text()
    assert "Steps to reach 35.00, the final return of cikd" in report
    with pytest.raises(CommandError, match=r"no variant 'cidk'.*Did you mean 'cikd'"):
        write_report(folder, baseline="cidk")


def test_a_second_report_is_the_same_to_the_byte(folder: Path):
    page = write_report(folder)
    first = {path: path.read_bytes() for path in sorted(page.parent.rglob("*")) if path.is_file()}
    np.random.seed(1)
    assert write_report(folder) == page
    again = {path: path.read_bytes() for path in sorted(page.parent.rglob("*")) if path.is_file()}
    assert again == first


def test_a_report_does_not_read_reports(folder: Path):
    page = write_report(folder)
    stale = page.parent / "evaluations.csv"
    stale.write_text(stale.read_text().replace("cikd,", "stale,"))
    elsewhere = write_report(folder, out=folder / "tables")
    assert "stale" not in elsewhere.read_text()
    # What a report wrote is a study in itself.
    copy = write_report(elsewhere.parent, out=folder / "copy")
    assert copy.read_text().split("\n", 1)[1] == elsewhere.read_text().split("\n", 1)[1]


def test_figures_without_data_are_left_out_and_named(tmp_path: Path):
    write_csv(tmp_path / "evaluations.csv", EVALUATIONS, CIKD[0])
    page = write_report(tmp_path)
    report = page.read_text()
    figures = sorted(path.name for path in page.parent.rglob("*.png"))
    assert figures == ["learning-curves-mean.png", "learning-curves.png"]
    assert "- The teacher of every phase: there are no phases." in report
    assert "- The best of independent lone agents: no variant with one member" in report
    assert "**One seed**, so no interval: all variants." in report
    assert cells(report, "cikd")[0][1] == "30.00"


def test_every_figure_is_written_and_shown(folder: Path):
    page = write_report(folder)
    names = [
        *("learning-curves", "learning-curves-mean", "teachers", "teacher-proportions"),
        *("students-above-teacher", "best-seed", "best-seed-proportions"),
    ]
    assert sorted(path.stem for path in page.parent.rglob("*.svg")) == sorted(names)
    for name in names:
        assert f"](figures/{name}.png)" in page.read_text()
        assert (page.parent / "figures" / f"{name}.png").stat().st_size > 5_000


def test_without_matplotlib_the_error_says_what_to_install(folder: Path):
    program = (
        "import sys; sys.modules['matplotlib'] = None; from pathlib import Path; "
        "from rllib_cikd.report.page import write_report; write_report(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", program, str(folder)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "CommandError" in outcome.stderr
    assert "pip install 'rllib-cikd[study]'" in outcome.stderr


# --- figures ---


def test_learning_curves_draw_means_and_intervals(study: Study):
    from rllib_cikd.report import learning_curves as figures

    (figure,) = figures.learning_curves(
        study, ["vanilla-sac", "cikd"], figures.BEST_AND_WORST, ["vanilla-sac"]
    )
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


def test_elected_member_is_dotted_from_where_it_is_known(study: Study):
    from rllib_cikd.report import learning_curves as figures

    (figure,) = figures.learning_curves(study, ["cikd"], figures.MEAN_AND_ELECTED, ["cikd"])
    mean, elected = figure.axes[0].get_lines()
    assert mean.get_ydata().tolist() == [2.5, 30, 35]
    assert elected.get_xdata().tolist() == [20, 30]
    assert elected.get_ydata().tolist() == [30, 40]
    assert elected.get_linestyle() == ":"


def test_many_variants_take_several_figures_each_with_the_references():
    from rllib_cikd.report.learning_curves import pages

    few = pages(["b", "a", "c"], ["a"])
    assert few == [["a", "b", "c"]]
    many = pages([*"abcdefgh"], ["c", "a"])
    assert many == [["c", "a", "b", "d"], ["c", "a", "e", "f"], ["c", "a", "g", "h"]]


def test_teachers_are_marked_in_their_lanes(study: Study):
    from rllib_cikd.report import teacher_figures

    (figure,) = teacher_figures.timelines(teacher_figures.teachers(study, ["cikd"]))
    (axes,) = figure.axes
    marks = {line.get_label(): line for line in axes.get_lines()}
    assert marks["0 member 1"].get_xdata().tolist() == [10, 20]
    assert marks["0 member 0"].get_xdata().tolist() == [30]
    assert marks["1 member 0"].get_xdata().tolist() == [10, 20, 30]
    # Seeds are one unit high; member 0's lane is the upper half (downwards from -0.5).
    assert set(marks["0 member 1"].get_ydata()) == {0.25}
    assert set(marks["1 member 0"].get_ydata()) == {0.75}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1"]


def test_teacher_proportions_are_stacked(study: Study):
    from rllib_cikd.report import teacher_figures

    (figure,) = teacher_figures.bars(teacher_figures.teachers(study, ["cikd"]))
    member_0, member_1 = figure.axes[0].containers
    assert [bar.get_height() for bar in member_0] == pytest.approx([1 / 3, 1])
    assert [bar.get_height() for bar in member_1] == pytest.approx([2 / 3, 0])
    assert [bar.get_y() for bar in member_1] == pytest.approx([1 / 3, 1])
    assert len({bar.get_hatch() for bar in (member_0[0], member_1[0])}) == 2


def test_best_seeds_of_lone_agents(study: Study):
    from rllib_cikd.report import teacher_figures

    places = teacher_figures.best_seeds(study, ["vanilla-sac", "cikd"])
    assert [place.variant for place in places] == ["vanilla-sac"]
    # Returns 0 = 0 (the first), 10 < 20, 20 < 40.
    assert places[0].holders[0].tolist() == [0, 1, 1]
    (timeline,) = teacher_figures.timelines(places)
    seed_0, seed_1 = timeline.axes[0].get_lines()
    assert (seed_0.get_xdata().tolist(), seed_1.get_xdata().tolist()) == ([10], [20, 30])
    (bars,) = teacher_figures.bars(places)
    heights = [bar.get_height() for bar in bars.axes[0].containers[0]]
    assert heights == pytest.approx([1 / 3, 2 / 3])


def test_students_above_teacher_bars(study: Study):
    from rllib_cikd.report import teacher_figures

    (figure,) = teacher_figures.students_above_teacher(study, ["vanilla-sac", "cikd"], ["cikd"])
    heights = [bar.get_height() for bar in figure.axes[0].containers[0]]
    assert heights == pytest.approx([0.5, 1.0, 0.0])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [
        *("first", "middle", "last"),
    ]
