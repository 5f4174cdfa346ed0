"""Tune's record of a run survives that the run is killed while Tune writes it."""

import csv
import json
import pickle
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from rllib_cikd.experiments.tune_record import ProgressFile, RecordKeeper, keep_record, mend_record

FIRST, SECOND = "2026-01-31_12-00-00", "2026-01-31_13-00-00"


def write_record(folder: Path, session: str, step: int) -> None:
    files = {
        f"experiment_state-{session}.json": json.dumps({"step": step}).encode(),
        f"basic-variant-state-{session}.json": pickle.dumps({"step": step}),  # as Tune does
        f"searcher-state-{session}.pkl": pickle.dumps({"step": step}),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)


def read_record(folder: Path, session: str) -> list[int]:
    pickles = (f"basic-variant-state-{session}.json", f"searcher-state-{session}.pkl")
    record = json.loads((folder / f"experiment_state-{session}.json").read_text())
    return [record["step"], *(pickle.loads((folder / p).read_bytes())["step"] for p in pickles)]


@pytest.mark.parametrize("broken", ["experiment_state", "basic-variant-state", "searcher-state"])
@pytest.mark.parametrize("length", [0, 7])
def test_all_of_a_session_is_taken_from_its_last_whole_copy(tmp_path, broken, length):
    write_record(tmp_path, FIRST, step=1)
    assert keep_record(tmp_path)
    write_record(tmp_path, FIRST, step=2)
    (path,) = tmp_path.glob(f"{broken}-*")
    path.write_bytes(path.read_bytes()[:length])
    assert not keep_record(tmp_path), "a broken record must not replace the copy"
    assert mend_record(tmp_path)
    assert read_record(tmp_path, FIRST) == [1, 1, 1]


def test_a_sound_record_stays(tmp_path):
    write_record(tmp_path, FIRST, step=1)
    assert keep_record(tmp_path)
    write_record(tmp_path, FIRST, step=2)
    assert mend_record(tmp_path)
    assert read_record(tmp_path, FIRST) == [2, 2, 2]


def test_a_record_that_is_being_written_is_not_copied(tmp_path, monkeypatch):
    """Files of two states must not be copied together."""
    write_record(tmp_path, FIRST, step=1)
    read_bytes, reads = Path.read_bytes, []

    def read_while_tune_writes(path):
        reads.append(path)
        content = read_bytes(path)
        if len(reads) == 1:
            time.sleep(0.02)  # so that the new files' time differs
            write_record(tmp_path, FIRST, step=2)
        return content

    monkeypatch.setattr(Path, "read_bytes", read_while_tune_writes)
    assert keep_record(tmp_path) == {}
    assert not (tmp_path / "sound_record").exists()
    kept = keep_record(tmp_path)
    assert read_record(tmp_path / "sound_record", FIRST) == [2, 2, 2]
    reads.clear()
    assert keep_record(tmp_path, kept) == kept
    assert not reads, "a record that has not changed was copied again"


def test_a_session_without_a_copy_leaves_the_one_before(tmp_path):
    write_record(tmp_path, FIRST, step=1)
    assert keep_record(tmp_path)
    write_record(tmp_path, SECOND, step=2)
    (tmp_path / f"experiment_state-{SECOND}.json").write_text("")
    assert mend_record(tmp_path)
    assert read_record(tmp_path, FIRST) == [1, 1, 1]
    assert not list(tmp_path.glob(f"*{SECOND}*"))


def test_what_cannot_be_kept_is_one_warning(tmp_path, caplog):
    """The run goes on: the copy is only needed if it is killed."""
    file = tmp_path / "a file, not a folder"
    file.touch()
    storage = SimpleNamespace(
        storage_filesystem=SimpleNamespace(type_name="local"), experiment_fs_path=str(tmp_path)
    )
    metadata = SimpleNamespace(last_result={"training_iteration": 1})
    trial = SimpleNamespace(
        storage=storage, is_saving=True, trial_id="1", run_metadata=metadata, local_path=tmp_path
    )
    (tmp_path / "result.json").touch()
    storage.trial_fs_path = str(file)
    keeper = RecordKeeper()
    for iteration in range(3):
        keeper.on_step_end(iteration, [trial])
    (warning,) = caplog.messages
    assert warning.startswith("No copy of Tune's record could be written (")


def test_results_are_there_before_their_checkpoint(tmp_path):
    """A run that is killed then goes on after its last result: no iteration is missing."""
    (tmp_path / "local").mkdir()
    (tmp_path / "kept").mkdir()
    storage = SimpleNamespace(
        storage_filesystem=SimpleNamespace(type_name="local"),
        experiment_fs_path=str(tmp_path),
        trial_fs_path=str(tmp_path / "kept"),
    )
    trial = SimpleNamespace(
        storage=storage, is_saving=False, trial_id="1", local_path=tmp_path / "local"
    )
    keeper, kept = RecordKeeper(), tmp_path / "kept" / "result.json"
    for iteration in (1, 2):
        (tmp_path / "local" / "result.json").write_text(f"{iteration}")
        trial.run_metadata = SimpleNamespace(last_result={"training_iteration": iteration})
        trial.is_saving = iteration == 2
        keeper.on_step_end(iteration, [trial])
        assert kept.is_file() == trial.is_saving
    assert kept.read_text() == "2"


def test_the_columns_of_a_resumed_run_are_those_of_its_file(tmp_path):
    """The first result after a resume may have others, in another order."""
    trial = Mock(local_path=str(tmp_path), checkpoint=None)
    for results in ([{"a": 1, "b": 2}], [{"c": 5, "b": 4, "a": 3}, {"b": 6}]):
        file = ProgressFile()  # of each start
        for result in results:
            file.log_trial_result(1, trial, result)
        file.log_trial_end(trial)
    with (tmp_path / "progress.csv").open(newline="") as content:
        rows = list(csv.DictReader(content))
    assert rows == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}, {"a": "", "b": "6"}]
