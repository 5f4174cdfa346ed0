"""What `rllib study run` and `rllib study report` do."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from pathlib import Path

from ray import tune
from ray.train.constants import DEFAULT_STORAGE_PATH

from rllib_cikd.common.errors import FAILED, INTERRUPTED, OK, CommandError
from rllib_cikd.experiments.outcome import error_text, state
from rllib_cikd.experiments.ray_start import check_fits, start_ray
from rllib_cikd.study.plan import Study, load_study
from rllib_cikd.study.run import baseline_of, collect_raw, run_study


def run(args: argparse.Namespace) -> int:
    """Runs what is left of the study `args.file`; returns the exit code."""
    study = load_study(args.file)
    folder = _folder(args, study)
    if start_ray(args.ray_address):
        for cell in study.cells:
            check_fits(study.experiment.algorithm, cell.config, f"study {study.name!r}")
    print(_plan(study), f"results: {folder}", sep="\n", flush=True)
    results = run_study(study, folder)
    collect_raw(folder)
    return _report_outcome(results, folder, args)


def report(args: argparse.Namespace) -> int:
    """Writes the report of the study in `args.folder`."""
    folder = Path(args.folder).expanduser().resolve()
    if not folder.is_dir():
        raise CommandError(f"{args.folder}: no such folder.")
    from rllib_cikd.report.page import write_report

    collect_raw(folder)
    path = write_report(
        folder, Path(args.out) if args.out else None, baseline=args.baseline or baseline_of(folder)
    )
    print(f"report: {path}")
    return OK


def _folder(args: argparse.Namespace, study: Study) -> Path:
    storage = args.storage_path or DEFAULT_STORAGE_PATH
    if "://" in storage:
        raise CommandError(
            f"--storage-path {storage}: a study's results must be in a folder, on a cluster in one "
            "that all its machines share."
        )
    return Path(storage).expanduser().resolve() / (args.experiment_name or study.name)


def _plan(study: Study) -> str:
    """How many runs there are, of what."""
    counts: dict[str, set] = {
        "tasks": {cell.example for cell in study.cells},
        "variants": {cell.variant for cell in study.cells},
        "seeds": {cell.seed for cell in study.cells},
    }
    grid = " x ".join(
        f"{len(values)} {name if len(values) > 1 else name[:-1]}" for name, values in counts.items()
    )
    steps = sum(cell.steps for cell in study.cells)
    return f"{study.name}: {len(study.cells)} runs ({grid}), {steps:,} environment steps in all"


def _report_outcome(results: list[tune.Result], folder: Path, args: argparse.Namespace) -> int:
    for result in results:
        if result.error:
            name = Path(result.path).name
            print(f"{name} failed: {error_text(result, args.verbose)}", file=sys.stderr)
    states = Counter(state(result) for result in results)
    command = shlex.join(["rllib", "study", "report", str(folder)])
    print(f"\n{states['done']} of {len(results)} runs ended; raw figures: {folder / 'raw'}")
    print(f"table and figures: {command}", flush=True)
    if set(states) == {"done"}:
        return OK
    counts = ", ".join(f"{states[s]} {s}" for s in ("failed", "unfinished") if states[s])
    print(f"{counts}; run the same command again to go on", file=sys.stderr)
    return INTERRUPTED if states["unfinished"] else FAILED
