"""Collects the evaluations of trained runs into one CSV, and prints a table of them.

    python benchmarks/evaluation_csv.py RESULTS_DIR [RESULTS_DIR ...] --out FILE.csv

Each RESULTS_DIR is a folder that `rllib train file` wrote. Columns: variant, task, seed, member
(each policy, and the ensemble's best, worst, mean and elected), step, return (mean over the
evaluation episodes), wall_seconds (training and evaluation so far).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path

COLUMNS = ("variant", "task", "seed", "member", "step", "return", "wall_seconds")


def evaluations(trial: Path, variant: str) -> list[dict[str, object]]:
    """The rows of one trial's `result.json`: one for each member and evaluation."""
    rows: list[dict[str, object]] = []
    seen: set[int] = set()
    for line in (trial / "result.json").read_text().splitlines():
        result = json.loads(line)
        ensemble = result.get("evaluation", {}).get("ensemble", {})
        step = ensemble.get("num_env_steps_sampled_lifetime", math.nan)
        if math.isnan(step) or step in seen:  # results repeat the last evaluation
            continue
        seen.add(step)
        figures = dict(ensemble["return_mean"])
        for who in ("best", "worst", "mean", "elected"):
            figures[who] = ensemble[f"{who}_return_mean"]
        for member, value in figures.items():
            rows.append(
                {
                    "variant": variant,
                    "task": result["config"]["env"],
                    "seed": result["config"].get("seed"),
                    "member": member,
                    "step": int(step),
                    "return": round(value, 2),
                    "wall_seconds": round(result["time_total_s"]),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--variant", default="cikd")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    trials = sorted(path.parent for folder in args.results for path in folder.rglob("result.json"))
    rows = [row for trial in trials for row in evaluations(trial, args.variant)]
    rows.sort(key=lambda row: (str(row["task"]), str(row["seed"]), row["step"]))  # type: ignore[arg-type,return-value]
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    print("| task | seed | step | best | worst | mean | elected | wall time |")
    print("|---|---|---|---|---|---|---|---|")
    by_evaluation: dict[tuple, dict[str, float]] = {}
    for row in rows:
        key = (row["task"], row["seed"], row["step"], row["wall_seconds"])
        by_evaluation.setdefault(key, {})[str(row["member"])] = float(str(row["return"]))
    for (task, seed, step, seconds), of in by_evaluation.items():
        figures = " | ".join(f"{of[who]:,.0f}" for who in ("best", "worst", "mean", "elected"))
        print(f"| {task} | {seed} | {step:,} | {figures} | {seconds // 60}m {seconds % 60:02d}s |")


if __name__ == "__main__":
    main()
