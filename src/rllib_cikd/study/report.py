"""What `rllib report` does: finds out what a folder holds, and has its report written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rllib_cikd.common.errors import OK, CommandError
from rllib_cikd.experiments.starts import read_starts
from rllib_cikd.report.films import find_films
from rllib_cikd.report.page import write_report
from rllib_cikd.report.raw_csv import EVALUATIONS, PHASES, write_rows
from rllib_cikd.study.folder import baseline_of, recorded_cells
from rllib_cikd.study.horizons import CELL_KEY
from rllib_cikd.study.provenance import Run, provenance
from rllib_cikd.study.raw_figures import Row, evaluation_rows, phase_rows, read_results
from rllib_cikd.study.run import collect_raw

_RESULTS, _PARAMS = "result.json", "params.json"


def report(
    folder: str,
    *,
    out: str | None = None,
    baseline: str | None = None,
    videos: Sequence[str] = (),
) -> int:
    """Writes a page, tables and figures of a run or of a study.

    Args:
        folder: Of a run of `rllib train`, or of one trial in it; of a study; or any other with raw
            figures below it.
        out: Where to write; None for `report` in that folder.
        baseline: The variant that others are measured against; None for the study's own.
        videos: Films to be shown, or folders of them.

    Returns:
        The exit code.

    Raises:
        CommandError: If there are no results, or they cannot be used, or no film.
    """
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise CommandError(f"{folder}: no such folder.")
    target = Path(out).expanduser() if out else path / "report"
    trials, films = _trials(path), find_films(videos)
    try:
        if trials:
            page = _of_run(path, trials, target, baseline, films)
        else:
            page = _of_study(path, target, baseline, films)
    except OSError as error:
        raise CommandError(f"{error.filename or target}: {error.strerror or error}.") from error
    print(f"report: {page}")
    return OK


def _trials(folder: Path) -> list[Path]:
    """The folders of a run's trials, or of the one trial; none if it is not a run's."""
    if (folder / _RESULTS).is_file():
        return [folder]
    return sorted(file.parent for file in folder.glob(f"*/{_RESULTS}"))


def _of_study(folder: Path, out: Path, baseline: str | None, films: Sequence[Path]) -> Path:
    collect_raw(folder)
    runs = [
        Run(
            cell["variant"],
            str(cell.get("task") or cell["config"].get("env")),
            cell["config"].get("seed"),
            cell["config"],
        )
        for cell in recorded_cells(folder).values()
    ]
    about = provenance(runs, read_starts(folder))
    own = baseline_of(folder)
    return write_report(folder, out, baseline, preferred=own, provenance=about, films=films)


def _of_run(
    folder: Path, trials: Sequence[Path], out: Path, baseline: str | None, films: Sequence[Path]
) -> Path:
    run = folder.parent if trials == [folder] else folder
    name = f"{run.name}, {folder.name}" if run != folder else folder.name
    evaluations, phases, runs = _read_trials(folder, trials, run.name)
    with TemporaryDirectory() as raw:
        write_rows(Path(raw, "evaluations.csv"), evaluations, EVALUATIONS)
        write_rows(Path(raw, "phases.csv"), phases, PHASES)
        about = provenance(runs, read_starts(run) or read_starts(run.parent))
        title = f"Run report: {name}"
        return write_report(Path(raw), out, baseline, title=title, provenance=about, films=films)


def _read_trials(
    folder: Path, trials: Sequence[Path], name: str
) -> tuple[list[Row], list[Row], list[Run]]:
    """The rows of all trials that have been evaluated.

    Raises:
        CommandError: If there are none, or what is there is not of CIKD.
    """
    settings = [_settings(trial) for trial in trials]
    variants = _variants(settings, name)
    evaluations: list[Row] = []
    phases: list[Row] = []
    runs: list[Run] = []
    num_results = 0
    for trial, config, variant in zip(trials, settings, variants, strict=True):
        try:
            results = read_results(trial, math.inf)
            rows, of_phases = evaluation_rows(results, variant), phase_rows(results, variant)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CommandError(
                f"{trial / _RESULTS}: these are not results of CIKD as `rllib train` writes them "
                f"({type(error).__name__}: {error})."
            ) from error
        num_results += len(results)
        if not rows:
            continue
        task, seed = rows[0]["task"], rows[0]["seed"]
        runs.append(Run(variant, task, seed, config))
        # Runs without a seed, or of the same, are told apart by their number.
        taken = [
            row["seed"] for row in evaluations if (row["variant"], row["task"]) == (variant, task)
        ]
        if seed is None or seed in taken:
            seed = max(taken, default=-1) + 1
        evaluations += [{**row, "seed": seed} for row in rows]
        phases += [{**row, "seed": seed} for row in of_phases]
    if not num_results:
        raise CommandError(f"{folder}: no results yet ({_RESULTS} is empty).")
    if not evaluations:
        raise CommandError(
            f"{folder}: its {num_results} results hold no evaluation of CIKD's members. Train with "
            "`evaluation_interval`, or wait for the first evaluation."
        )
    return evaluations, phases, runs


def _settings(trial: Path) -> dict[str, Any]:
    """What the trial was started with; empty if that cannot be read."""
    try:
        settings = json.loads((trial / _PARAMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _variants(settings: Sequence[dict[str, Any]], name: str) -> list[str]:
    """A name for each trial: the settings in which it differs from others, or else the run's."""
    keys = {key for config in settings for key in config} - {"env", "seed", CELL_KEY}
    differing = [
        key
        for key in sorted(keys)
        if len({json.dumps(config.get(key), sort_keys=True) for config in settings}) > 1
    ]
    return [
        ", ".join(f"{key}={json.dumps(config.get(key))}" for key in differing) or name
        for config in settings
    ]
