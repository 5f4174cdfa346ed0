"""Makes a run that ended at any moment one that goes on from its newest whole checkpoints.

Tune's record of a run lags behind the disk. When a run is killed, it may name a checkpoint that
newer ones have replaced, or none at all; and results come after it that are going to come again.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow.fs
import ray
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.train._internal.checkpoint_manager import _CheckpointManager
from ray.train._internal.session import _TrainingResult
from ray.tune.experiment import Trial
from ray.tune.utils import flatten_dict

from rllib_cikd.cikd import CIKD
from rllib_cikd.common.errors import CommandError, DamagedCheckpoint
from rllib_cikd.common.files import write_whole
from rllib_cikd.common.result_keys import ITERATION
from rllib_cikd.experiments.kept_modules import recall_modules
from rllib_cikd.experiments.run_lock import RunLock
from rllib_cikd.experiments.tune_record import mend_record, newest_record
from rllib_cikd.rllib.checkpoint_scores import checkpoint_metrics
from rllib_cikd.rllib.manifest import MANIFEST, check_checkpoint

_CHECKPOINT = re.compile(r"checkpoint_(\d+)")


def mend_run(folder: str, algorithm: type[Algorithm]) -> bool:
    """Corrects Tune's record of a run after what is on the disk, for `restore_tuner`.

    Trials that have not ended go on from their newest whole checkpoint, and a line says so if a
    newer one is damaged. Results beyond it are dropped: they come again. A trial that had reached
    its goal by then has ended.

    Args:
        folder: Of the run, or its URI, where nothing can be corrected.
        algorithm: What the run trains.

    Returns:
        Whether there is a record. If not, the run was killed before it had written any.
    """
    if "://" in folder:
        return True
    path = Path(folder)
    if not mend_record(path):
        return False
    file = newest_record(path)
    record = json.loads(file.read_text())
    for i, (state, run_state) in enumerate(record["trial_data"]):
        trial = Trial.from_json_state(state, stub=True)
        trial.restore_run_metadata(run_state)
        if trial.status != Trial.TERMINATED:
            _correct(trial, path / trial.storage.trial_dir_name, algorithm)
            record["trial_data"][i] = trial.get_json_state()
    write_whole(file, json.dumps(record, indent=2))
    return True


def restore_tuner(folder: str, algorithm: type[Algorithm]) -> tune.Tuner:
    """A tuner that goes on with those trials of a run that were cut off or failed.

    Args:
        folder: Of the run, or its URI; after `mend_run`.
        algorithm: What the run trains.
    """
    return tune.Tuner.restore(
        folder, trainable=algorithm, resume_unfinished=True, resume_errored=True
    )


def restore(path: str | os.PathLike[str], algorithm: type[Algorithm] = CIKD) -> tune.Tuner:
    """A Tuner that goes on with a run that was cut off, as `rllib train --resume` does.

    Tune's own `Tuner.restore` cannot read a record that was cut short, and goes by the checkpoints
    that it names. Here the record is corrected first: each trial that has not ended goes on from
    its newest whole checkpoint, and results beyond that are dropped, as they come again.

    Args:
        path: The run's folder, or its URI, where nothing can be corrected.
        algorithm: What the run trains.

    Returns:
        Call its `fit()` to go on, its `get_results()` to look at what there is.

    Raises:
        CommandError: If there is no run in the folder, or another process is writing into it.
    """
    folder = os.fspath(path)
    if "://" not in folder:
        folder = str(Path(folder).expanduser().resolve())
    if not tune.Tuner.can_restore(folder):
        raise CommandError(f"{folder}: no run of Tune's. Give the folder that has a tuner.pkl.")
    lock = None if "://" in folder else RunLock(Path(folder))
    try:
        recall_modules(folder).load()
        if not mend_run(folder, algorithm):
            raise CommandError(
                f"{folder} has no record of its trials: the run was killed before Tune had written "
                "one. Start it anew."
            )
        return restore_tuner(folder, algorithm)
    finally:
        if lock is not None:
            lock.release()


def whole_checkpoints(trial: Path, algorithm: type[Algorithm]) -> list[Path]:
    """A trial's checkpoints that can be gone on from, oldest first.

    Of those, the contents of the newest one have been read; of others, that all bytes are there.
    Says in a line if a newer one is damaged. What was cut off while it was written is removed.
    """
    folders = sorted(p for p in trial.glob("checkpoint_*") if _CHECKPOINT.fullmatch(p.name))
    if not issubclass(algorithm, CIKD):
        return _complete(folders)
    whole: list[Path] = []
    problems = []
    for folder in reversed(folders):
        try:
            check_checkpoint(str(folder), checksums=not whole)
        except DamagedCheckpoint as error:
            if not whole and (folder / MANIFEST).is_file():
                problems.append(str(error).removesuffix(". Use another one."))
        else:
            whole.insert(0, folder)
    if problems:
        goes_on = f"going on from {whole[-1].name}" if whole else "starting again"
        print(f"{problems[0]}; {goes_on}", flush=True)
    return whole


def _correct(trial: Trial, folder: Path, algorithm: type[Algorithm]) -> None:
    manager = trial.run_metadata.checkpoint_manager
    recorded = [*manager._checkpoint_results, manager.latest_checkpoint_result]
    metrics = {Path(r.checkpoint.path).name: r.metrics for r in recorded if r is not None}
    corrected = _CheckpointManager(manager.checkpoint_config)
    for checkpoint in whole_checkpoints(folder, algorithm):
        if checkpoint.name not in metrics:
            metrics[checkpoint.name] = _result_of(folder, checkpoint, algorithm)
        corrected.register_checkpoint(
            _TrainingResult(
                tune.Checkpoint(str(checkpoint), pyarrow.fs.LocalFileSystem()),
                metrics[checkpoint.name],
            )
        )
    trial.run_metadata.checkpoint_manager = corrected
    newest = corrected.latest_checkpoint_result
    reached = newest is not None and _result_at(folder, newest.metrics.get(ITERATION))
    # Tune would train on before it looks. A trial that was done may have a higher goal now.
    if reached and trial.should_stop({**flatten_dict(reached), "done": False}):
        trial.status, trial.run_metadata.last_result = Trial.TERMINATED, reached
    # New checkpoints must not be written into the folders of others, not even of damaged ones.
    numbers = [int(m.group(1)) for m in map(_CHECKPOINT.fullmatch, _names(folder)) if m]
    trial.storage.current_checkpoint_index = max([trial.storage.current_checkpoint_index, *numbers])
    trial.stub = False  # it was one only here
    trial.invalidate_json_state()
    if newest is not None and ITERATION in newest.metrics:
        drop_results_after(folder, newest.metrics[ITERATION])
        if ray.is_initialized() and trial.local_path:
            # Tune has its own copy, and puts it back if the run was of this very session of Ray's.
            drop_results_after(Path(trial.local_path), newest.metrics[ITERATION])


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _result_of(trial: Path, checkpoint: Path, algorithm: type[Algorithm]) -> dict[str, Any]:
    """The result in a trial's folder that a checkpoint was written after; {} if unknown."""
    if not issubclass(algorithm, CIKD):
        return {}
    iteration = check_checkpoint(str(checkpoint), checksums=False).training_iteration
    return checkpoint_metrics(_result_at(trial, iteration) or {ITERATION: iteration})


def _result_at(trial: Path, iteration: int | None) -> dict[str, Any] | None:
    """The result of an iteration in a trial's folder; None if it is not there."""
    return _json_rows(trial / "result.json").get(iteration or 0)


def drop_results_after(trial: Path, iteration: int) -> None:
    """Leaves the results of each iteration up to this one, once, in `result.json` and
    `progress.csv` of a trial's folder."""
    results, progress = trial / "result.json", trial / "progress.csv"
    if not results.is_file():
        return
    rows = [row for i, row in _json_rows(results).items() if i <= iteration]
    write_whole(results, "".join(f"{json.dumps(row)}\n" for row in rows))
    if progress.is_file():
        header = next(csv.reader(io.StringIO(progress.read_text(), newline="")), [])
        flat = [flatten_dict({k: v for k, v in row.items() if k != "config"}) for row in rows]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(
            text, dict.fromkeys([*header, *(key for row in flat for key in row)])
        )
        writer.writeheader()
        writer.writerows(flat)
        write_whole(progress, text.getvalue())


def _json_rows(file: Path) -> dict[int, dict[str, Any]]:
    """Results by iteration; a line that was cut short is left out."""
    rows = []
    for line in file.read_text().splitlines() if file.is_file() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return {int(row[ITERATION]): row for row in rows if row.get(ITERATION)}


def _complete(folders: list[Path]) -> list[Path]:
    """Checkpoints of other algorithms with all files; not those half written or deleted."""
    files = {
        folder: {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}
        for folder in folders
    }
    most = max(map(len, files.values()), default=0)
    return [folder for folder, names in files.items() if len(names) == most]
