"""A study small enough to work out by hand, as raw CSVs, and how to read a report's tables."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# Written out, not imported: files of before must be read, whatever the program writes now.
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
    *("variant", "task", "seed", "phase", "step", "teacher", "member"),
    *("kl_before", "kl_after", "critic_loss_before", "critic_loss_after"),
    *("return_before", "return_after", "seconds"),
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


def cells(report: str, start: str) -> list[list[str]]:
    """The cells of every table row that begins with `start`."""
    lines = [line for line in report.splitlines() if line.startswith(f"| {start} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
