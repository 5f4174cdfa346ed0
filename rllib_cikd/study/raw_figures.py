"""The raw figures of a training run, from Tune's `result.json` into CSV."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Columns of `NAME.evaluations.csv`: one row for each evaluation and member, and for the ensemble's
#: best, worst, mean and elected member. Teacher: of the last phase. KL: to it, after that phase.
EVALUATION_COLUMNS = (
    "variant",
    "task",
    "seed",
    "member",
    "step",
    "return",
    "wall_seconds",
    "teacher",
    "kl",
)
#: What a phase is judged by, of each member.
PHASE_FIGURES = (
    "kl_before",
    "kl_after",
    "critic_loss_before",
    "critic_loss_after",
    "return_before",
    "return_after",
)
#: Columns of `NAME.phases.csv`: one row for each phase of knowledge sharing and member.
PHASE_COLUMNS = (
    "variant",
    "task",
    "seed",
    "phase",
    "step",
    "teacher",
    "member",
    *PHASE_FIGURES,
    "seconds",
)
_SUMMARY = ("best", "worst", "mean", "elected")
_STEPS = "num_env_steps_sampled_lifetime"

Row = dict[str, Any]


def read_results(trial: Path, steps: float) -> list[dict[str, Any]]:
    """The results of a trial, in order, each iteration once.

    A run that was resumed has the iterations after its last checkpoint twice, of which the later
    ones count; a run that was killed may have a last line cut short.

    Args:
        trial: Its folder.
        steps: Where the run ends. Of a run that was killed just then, and resumed, there are more.
    """
    by_iteration: dict[int, dict[str, Any]] = {}
    for line in (trial / "result.json").read_text().splitlines():
        try:
            result = json.loads(line)
        except ValueError:
            continue
        iteration = result["training_iteration"]
        for later in [i for i in by_iteration if i > iteration]:
            del by_iteration[later]
        by_iteration[iteration] = result
    results = list(by_iteration.values())
    ends = [i for i, result in enumerate(results) if result[_STEPS] >= steps]
    return results[: ends[0] + 1] if ends else results


def evaluation_rows(results: Sequence[dict[str, Any]], variant: str) -> list[Row]:
    """Rows of `EVALUATION_COLUMNS` from a trial's results."""
    rows: list[Row] = []
    seen: set[int] = set()
    for result in results:
        evaluation = result.get("evaluation", {}).get("ensemble", {})
        step = evaluation.get(_STEPS, math.nan)
        if math.isnan(step) or step in seen:  # between evaluations, results repeat the last one
            continue
        seen.add(int(step))
        returns = evaluation["return_mean"] | {w: evaluation[f"{w}_return_mean"] for w in _SUMMARY}
        ensemble = result["ensemble"]
        distances = ensemble.get("distillation", {}).get("kl_after", {})
        for member, value in returns.items():
            rows.append(
                {
                    **_run(result, variant),
                    "member": member,
                    "step": int(step),
                    "return": _figure(value),
                    "wall_seconds": round(result["time_total_s"], 1),
                    "teacher": _index(ensemble["teacher"]),
                    "kl": _figure(distances.get(member)),
                }
            )
    return rows


def phase_rows(results: Sequence[dict[str, Any]], variant: str) -> list[Row]:
    """Rows of `PHASE_COLUMNS` from a trial's results.

    A result tells of its iteration's last phase. With the published interval of 5,000 steps, and
    iterations of 1,000, there is never more than one.
    """
    rows: list[Row] = []
    phases = 0
    for result in results:
        ensemble = result.get("ensemble", {})
        if "distillation" not in ensemble or ensemble["num_distillations_lifetime"] <= phases:
            continue
        phases = ensemble["num_distillations_lifetime"]
        report = ensemble["distillation"]
        for member in ensemble["return_mean"]:
            row = {
                **_run(result, variant),
                "phase": phases,
                "step": int(result[_STEPS]),
                "teacher": _index(ensemble["teacher"]),
                "member": member,
                "seconds": _figure(report["time_s"]),
            }
            for column in PHASE_FIGURES:
                row[column] = _figure(report.get(column, {}).get(member))
            rows.append(row)
    return rows


def write_raw(trial: Path, variant: str, steps: int, folder: Path, name: str) -> None:
    """Writes `NAME.evaluations.csv`, then `NAME.phases.csv`, of a trial of so many steps."""
    results = read_results(trial, steps)
    _write(
        folder / f"{name}.evaluations.csv", EVALUATION_COLUMNS, evaluation_rows(results, variant)
    )
    _write(folder / f"{name}.phases.csv", PHASE_COLUMNS, phase_rows(results, variant))


def _run(result: dict[str, Any], variant: str) -> Row:
    config = result["config"]
    return {"variant": variant, "task": config["env"], "seed": config.get("seed")}


def _figure(value: float | None) -> float | str:
    """Of six digits, or empty where there is none."""
    return "" if value is None or math.isnan(value) else float(f"{value:.6g}")


def _index(value: float) -> int | str:
    return "" if math.isnan(value) else int(value)


def _write(path: Path, columns: tuple[str, ...], rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(unfinished, path)
