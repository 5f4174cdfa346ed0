"""Collects the evaluations of trained runs into one CSV, and prints a table of them.

    python benchmarks/evaluation_csv.py RESULTS_DIR [RESULTS_DIR ...] --out FILE.csv

Each RESULTS_DIR is a folder that `rllib train file` wrote; `rllib study run` writes such CSVs
itself. Columns: `rllib_cikd.study.raw_figures.EVALUATION_COLUMNS`.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

from rllib_cikd.common.text import format_duration
from rllib_cikd.study.raw_figures import EVALUATION_COLUMNS, evaluation_rows, read_results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--variant", default="cikd")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    trials = sorted(path.parent for folder in args.results for path in folder.rglob("result.json"))
    results = [read_results(trial, steps=math.inf) for trial in trials]
    rows = [row for trial in results for row in evaluation_rows(trial, args.variant)]
    rows.sort(key=lambda row: (row["task"], row["seed"], row["step"]))
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, EVALUATION_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    print("| task | seed | step | best | worst | mean | elected | wall time |")
    print("|---|---|---|---|---|---|---|---|")
    by_evaluation: dict[tuple, dict[str, float]] = {}
    for row in rows:
        key = (row["task"], row["seed"], row["step"], row["wall_seconds"])
        by_evaluation.setdefault(key, {})[row["member"]] = float(row["return"] or "nan")
    for (task, seed, step, seconds), of in by_evaluation.items():
        figures = " | ".join(f"{of[who]:,.0f}" for who in ("best", "worst", "mean", "elected"))
        print(f"| {task} | {seed} | {step:,} | {figures} | {format_duration(seconds)} |")


if __name__ == "__main__":
    main()
