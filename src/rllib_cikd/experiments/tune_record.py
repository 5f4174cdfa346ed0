"""Tune's record of a run: kept readable whenever the run may be killed, and read to go on.

Tune rewrites its record (which trials there are, how far each is) every few seconds, in place: a
run killed in the middle of that leaves a file cut short, and `Tuner.restore` cannot read it.
"""

from __future__ import annotations

import csv
import json
import logging
import re
import time
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.logger import CSVLoggerCallback

from rllib_cikd.common.files import write_whole
from rllib_cikd.common.result_keys import ITERATION

logger = logging.getLogger(__name__)

#: Below a run's folder: the last record that was seen whole.
_COPIES = "sound_record"
#: A record's files, such as "experiment_state-2026-01-31_12-00-00.json", by the session's start.
_RECORD_FILE = re.compile(r".+-(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)\.(json|pkl)")
#: Copying takes at most this share of the time.
_MAX_SHARE = 0.05
#: A trial's results, which Tune copies into its folder every few seconds only.
_RESULTS = ("result.json", "progress.csv")


class RecordKeeper(tune.Callback):
    """Keeps a copy of the last whole record of a run, and the results that checkpoints go with.

    Runs in object storage need none: uploads there are atomic. What cannot be kept is said once and
    does not end the run.
    """

    def __init__(self) -> None:
        self._next_copy_at = float("-inf")
        self._copied: dict[Path, float] = {}
        self._results_of: dict[str, int] = {}  # the iterations whose results have been copied
        self._has_warned = False

    def on_step_end(self, iteration: int, trials: list[Trial], **info) -> None:
        if not trials or trials[0].storage.storage_filesystem.type_name != "local":
            return
        try:
            self._keep(trials)
        except OSError as error:
            if not self._has_warned:
                logger.warning(
                    "No copy of Tune's record could be written (%s): if this run is killed, "
                    "--resume may not be able to go on with it.",
                    error,
                )
            self._has_warned = True

    def _keep(self, trials: list[Trial]) -> None:
        for trial in trials:
            # A checkpoint is being written. Without its result, an iteration would be missing if
            # the run were killed then.
            last = trial.run_metadata.last_result.get(ITERATION, 0)
            if trial.is_saving and self._results_of.get(trial.trial_id) != last:
                _copy_results(trial)
                self._results_of[trial.trial_id] = last
        start = time.monotonic()
        if start < self._next_copy_at:
            return
        storage: Any = trials[0].storage
        self._copied = keep_record(Path(storage.experiment_fs_path), self._copied)
        end = time.monotonic()
        self._next_copy_at = end + (end - start) / _MAX_SHARE


class ProgressFile(CSVLoggerCallback):
    """Tune's `progress.csv`, of a resumed trial with the columns that it has.

    Tune writes the values of the first result after a resume, whatever the file's header says.
    """

    def _setup_trial(self, trial: Trial) -> None:
        super()._setup_trial(trial)
        if self._trial_continue[trial]:
            with Path(trial.local_path or "", "progress.csv").open(newline="") as file:
                header = next(csv.reader(file))
            self._trial_csv[trial] = csv.DictWriter(self._trial_files[trial], header)


def _copy_results(trial: Trial) -> None:
    storage: Any = trial.storage
    for name in _RESULTS:
        source = Path(trial.local_path or "", name)
        if source.is_file():
            write_whole(Path(storage.trial_fs_path, name), source.read_bytes())


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


def newest_record(folder: Path) -> Path:
    """The file that `Tuner.restore` reads trials from; there must be one."""
    return max(p for p in _record_files(folder) if p.name.startswith("experiment_state-"))


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
