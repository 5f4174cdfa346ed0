"""Tune's record of a run: kept readable whenever the run may be killed, and read to go on.

Tune rewrites its record (which trials there are, how far each is) every few seconds, in place: a
run killed in the middle of that leaves a file cut short, and `Tuner.restore` cannot read it.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.tune.experiment import Trial

from rllib_cikd.common.files import write_whole

#: Below a run's folder: the last record that was seen whole.
_COPIES = "sound_record"
#: A record's files, such as "experiment_state-2026-01-31_12-00-00.json", by the session's start.
_RECORD_FILE = re.compile(r".+-(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)\.(json|pkl)")
#: Copying takes at most this share of the time.
_MAX_SHARE = 0.05


class RecordKeeper(tune.Callback):
    """Keeps a copy of the last whole record of a run.

    Runs in object storage need none: uploads there are atomic.
    """

    def __init__(self) -> None:
        self._next_copy_at = float("-inf")
        self._copied: dict[Path, float] = {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info) -> None:
        start = time.monotonic()
        if not trials or start < self._next_copy_at:
            return
        storage: Any = trials[0].storage
        if storage.storage_filesystem.type_name != "local":
            return
        self._copied = keep_record(Path(storage.experiment_fs_path), self._copied)
        end = time.monotonic()
        self._next_copy_at = end + (end - start) / _MAX_SHARE


def keep_record(folder: Path, copied: dict[Path, float] | None = None) -> dict[Path, float]:
    """Copies the record in `folder`, unless Tune is just writing it.

    Args:
        folder: Of the run.
        copied: What the last call returned; a record that has not changed since is left.

    Returns:
        When each file that has been copied was written.
    """
    before = _written_at(folder)
    if before == copied:
        return before
    files = {path.name: path.read_bytes() for path in before}
    whole = all(_is_whole(content) for content in files.values())
    if not whole or _written_at(folder) != before:
        return copied or {}
    for name, content in files.items():
        write_whole(folder / _COPIES / name, content)
    return before


def _written_at(folder: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime for path in _record_files(folder)}


def mend_record(folder: Path) -> bool:
    """Replaces a record in `folder` that was cut short by its last whole copy.

    A session's files belong together, so that all of them are replaced. A session that was killed
    before it had a copy is dropped: Tune then goes by the session before.

    Returns:
        Whether there is a record now. If not, the run was killed before it had written any.
    """
    files = _record_files(folder)
    broken = {_session(p) for p in files if not _is_whole(p.read_bytes())}
    for path in files:
        if _session(path) in broken:
            path.unlink()
    for copy in _record_files(folder / _COPIES):
        if _session(copy) in broken:
            (folder / copy.name).write_bytes(copy.read_bytes())
    return any(path.name.startswith("experiment_state-") for path in _record_files(folder))


def mend_run(folder: str, checkpoints_kept: int | None) -> bool:
    """Makes a run that was killed at any moment one that `restore_tuner` can read.

    The record lags behind the disk: when a run is killed, it may name a checkpoint that newer ones
    have replaced, or that Tune was just deleting, and Tune would not go on. The newest complete
    one takes its name.

    Args:
        folder: Of the run, or its URI.
        checkpoints_kept: `CheckpointConfig.num_to_keep` of its trials.

    Returns:
        Whether there is a record. If not, the run was killed before it had written any.
    """
    if "://" not in folder and not mend_record(Path(folder)):
        return False
    for trial in tune.ExperimentAnalysis(folder).trials:
        if trial.checkpoint is None or "://" in folder:
            continue
        named = Path(trial.checkpoint.path)
        complete = _complete_checkpoints(named.parent)
        if named in complete or not complete:
            continue
        shutil.rmtree(named, ignore_errors=True)
        # Those kept are whole; one more is there if the run died while writing it.
        complete[:checkpoints_kept][-1].rename(named)
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


def _complete_checkpoints(trial: Path) -> list[Path]:
    """A trial's checkpoints with all files, oldest first; not those half written or deleted."""
    files = {
        checkpoint: {p.relative_to(checkpoint) for p in checkpoint.rglob("*") if p.is_file()}
        for checkpoint in sorted(trial.glob("checkpoint_*"))
    }
    whole = max(map(len, files.values()), default=0)
    return [checkpoint for checkpoint, names in files.items() if len(names) == whole]


def _record_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if _RECORD_FILE.fullmatch(path.name))


def _session(path: Path) -> str:
    match = _RECORD_FILE.fullmatch(path.name)
    assert match is not None
    return match.group(1)


def _is_whole(content: bytes) -> bool:
    if content.startswith(b"\x80"):  # a pickle; Tune calls some of them .json, too
        return content.endswith(b".")  # the opcode with which every pickle ends
    try:
        json.loads(content)
    except ValueError:
        return False
    return True
