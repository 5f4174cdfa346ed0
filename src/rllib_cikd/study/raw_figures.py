"""The raw figures of a training run, from Tune's `result.json` into CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rllib_cikd.common import result_keys as keys
from rllib_cikd.report.raw_csv import EVALUATIONS, PHASE_MEASURES, PHASES, write_rows

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
    ends = [i for i, result in enumerate(results) if result[keys.STEPS] >= steps]
    return results[: ends[0] + 1] if ends else results


def evaluation_rows(
    results: Sequence[dict[str, Any]], variant: str, task: str | None = None
) -> list[Row]:
    """Rows of `EVALUATIONS` from a trial's results; its task is called by its environment if no
    other name is given."""
    rows: list[Row] = []
    seen: set[int] = set()
    for result in results:
        evaluation = result.get("evaluation", {}).get(keys.ENSEMBLE, {})
        step = evaluation.get(keys.STEPS, math.nan)
        if math.isnan(step) or step in seen:  # between evaluations, results repeat the last one
            continue
        seen.add(int(step))
        summaries = {who: evaluation[keys.summary_key(who)] for who in keys.SUMMARIES}
        ensemble = result[keys.ENSEMBLE]
        of_run = {
            **_run(result, variant, task),
            "step": int(step),
            "wall_seconds": round(result["time_total_s"], 1),
            "teacher": _index(ensemble[keys.TEACHER]),
            "updates": _index(ensemble.get(keys.NUM_UPDATES, math.nan)),
        }
        distances = ensemble.get(keys.DISTILLATION, {}).get("kl_after", {})
        for member, value in {**evaluation[keys.RETURN_MEAN], **summaries}.items():
            figures = {"return": _figure(value), "kl": _figure(distances.get(member))}
            rows.append({**of_run, "member": member, **figures})
    return rows


def phase_rows(
    results: Sequence[dict[str, Any]], variant: str, task: str | None = None
) -> list[Row]:
    """Rows of `PHASES` from a trial's results, as those of `EVALUATIONS`.

    A result tells of its iteration's last phase. With the published interval of 5,000 steps, and
    iterations of 1,000, there is never more than one.
    """
    rows: list[Row] = []
    phases = 0
    for result in results:
        ensemble = result.get(keys.ENSEMBLE, {})
        if keys.DISTILLATION not in ensemble or ensemble[keys.NUM_DISTILLATIONS] <= phases:
            continue
        phases = ensemble[keys.NUM_DISTILLATIONS]
        report = ensemble[keys.DISTILLATION]
        of_phase = {
            **_run(result, variant, task),
            "phase": phases,
            "step": int(result[keys.STEPS]),
            "teacher": _index(ensemble[keys.TEACHER]),
            "seconds": _figure(report[keys.PHASE_TIME]),
        }
        for member in ensemble[keys.RETURN_MEAN]:
            figures = {m: _figure(report.get(m, {}).get(member)) for m in PHASE_MEASURES}
            rows.append({**of_phase, "member": member, **figures})
    return rows


def write_raw(trial: Path, run: Mapping[str, Any], folder: Path, name: str) -> None:
    """Writes `NAME.evaluations.csv`, then `NAME.phases.csv`.

    Args:
        trial: Its folder.
        run: What `cells.json` says of it.
        folder: Of raw figures.
        name: Of the run.
    """
    results = read_results(trial, run["steps"])
    named = {"variant": run["variant"], "task": run.get("task")}
    write_rows(folder / f"{name}.evaluations.csv", evaluation_rows(results, **named), EVALUATIONS)
    write_rows(folder / f"{name}.phases.csv", phase_rows(results, **named), PHASES)


def _run(result: dict[str, Any], variant: str, task: str | None) -> Row:
    config = result["config"]
    return {"variant": variant, "task": task or config["env"], "seed": config.get("seed")}


def _figure(value: float | None) -> float | None:
    """Of six digits; None where there is none."""
    return None if value is None or math.isnan(value) else float(f"{value:.6g}")


def _index(value: float) -> int | None:
    return None if math.isnan(value) else int(value)
