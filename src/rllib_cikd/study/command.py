"""What `rllib study run` does."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ray import tune
from ray.train.constants import DEFAULT_STORAGE_PATH

from rllib_cikd.common.errors import FAILED, INTERRUPTED, CommandError, print_error
from rllib_cikd.common.user_modules import given_modules
from rllib_cikd.engine import library
from rllib_cikd.experiments import interrupt
from rllib_cikd.experiments.disk import disk_problem
from rllib_cikd.experiments.kept_modules import recall_modules
from rllib_cikd.experiments.outcome import error_text, exit_code, state
from rllib_cikd.experiments.packaged import study_file
from rllib_cikd.experiments.ray_start import check_fits, start_ray
from rllib_cikd.experiments.run_lock import RunLock
from rllib_cikd.experiments.starts import record_start
from rllib_cikd.study.plan import Study, load_study
from rllib_cikd.study.run import collect_raw, run_study

_AGAIN = "run the same command again to go on"


def run(
    file: str,
    *,
    storage_path: str | None = None,
    experiment_name: str | None = None,
    imports: Sequence[str] = (),
    ray_address: str | None = None,
    verbose: bool = False,
) -> int:
    """Runs what is left of a study.

    Args:
        file: The study's.
        storage_path: Folder of results; None for `~/ray_results`.
        experiment_name: Name of the study's folder in there; None for the file's name.
        imports: Modules of the user's that register environments; remembered in the checkpoints.
        ray_address: Of the Ray cluster to use (see `start_ray`).
        verbose: Whether errors are shown with their whole traceback.

    Returns:
        The exit code.

    Raises:
        CommandError: If something of this cannot be done.
    """
    storage = storage_path or DEFAULT_STORAGE_PATH
    if "://" in storage:
        raise CommandError(
            f"--storage-path {storage}: a study's results must be in a folder, on a cluster in one "
            "that all its machines share."
        )
    path = study_file(file)
    folder = Path(storage).expanduser().resolve() / (experiment_name or path.stem)
    modules = given_modules(imports, path.parent)
    for session in sorted(folder.glob("session-*")):
        modules = modules.over(recall_modules(str(session)))
    study = load_study(path, modules)
    if study.not_used:
        print(
            f"rllib: note: a study does not look at {', '.join(study.not_used)}: of a tuned "
            "example it takes `run`, `env` and `config`.",
            file=sys.stderr,
        )
    for note in study.notes:
        print(f"rllib: note: {note}", file=sys.stderr)
    with ExitStack() as at_end:
        at_end.callback(_lock(folder).release)
        if start_ray(ray_address, study.modules):
            for cell in study.cells:
                check_fits(study.algorithm, cell.config, f"study {study.name!r}")
        print(_plan(study), f"results: {folder}", library.describe(), sep="\n", flush=True)
        return _train(study, folder, verbose)


def _lock(folder: Path) -> RunLock:
    try:
        return RunLock(folder)
    except OSError as error:
        raise CommandError(
            f"{folder} cannot be written to: {error.strerror}. Give another folder with "
            "--storage-path."
        ) from error


def _train(study: Study, folder: Path, verbose: bool) -> int:
    try:
        record_start(folder)
        results = run_study(study, folder)
        collect_raw(folder)
    except CommandError:
        raise
    except Exception as error:  # Tune raises all kinds when it cannot write or read its files
        problem = disk_problem(str(folder))
        if problem is None and not isinstance(error, OSError):
            raise
        problem = problem or str(error)
    else:
        problem = None
        if any(state(result) != "done" for result in results):
            problem = disk_problem(str(folder))
        if problem is None:
            return _report_outcome(results, folder, verbose)
    print_error(f"{problem}. The study has stopped. Mend it, and {_AGAIN}.")
    return FAILED


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


def _report_outcome(results: list[tune.Result], folder: Path, verbose: bool) -> int:
    for result in results:
        if result.error:
            name = Path(result.path).name
            print(f"{name} failed: {error_text(result, verbose)}", file=sys.stderr)
    ended = sum(state(result) == "done" for result in results)
    command = shlex.join(["rllib", "report", str(folder)])
    print(f"\n{ended} of {len(results)} runs ended; raw figures: {folder / 'raw'}")
    print(f"tables and figures: {command}", flush=True)
    code = exit_code(results, _AGAIN)
    return code if code != INTERRUPTED else interrupt.exit_code() or INTERRUPTED
