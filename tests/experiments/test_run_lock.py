"""Two commands never write into the same folder."""

import json
import multiprocessing
import os
import time
from contextlib import ExitStack

import pytest

from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.run import _free_name, _is_stamped, _lock
from rllib_cikd.experiments.run_lock import LOCK, Locked, RunLock, in_use


def hold(folder, held):
    RunLock(folder)
    held.set()
    time.sleep(600)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `tmp_path / "run"`."""
    context = multiprocessing.get_context("fork")  # another start would import Ray
    held = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "run", held), daemon=True)
    process.start()
    assert held.wait(60)
    yield process
    process.kill()
    process.join()


def test_a_folder_that_another_process_holds(holder, tmp_path):
    with pytest.raises(Locked, match=f"{tmp_path}/run is in use by process {holder.pid} on "):
        RunLock(tmp_path / "run")
    holder.kill()  # without giving it back
    holder.join()
    lock = RunLock(tmp_path / "run")
    lock.release()
    assert not (tmp_path / "run").exists()  # nothing else was in it


def test_a_new_process_of_the_same_number(tmp_path):
    lock = RunLock(tmp_path)
    file = tmp_path / LOCK
    held = json.loads(file.read_text())
    file.write_text(json.dumps({**held, "pid": 1, "since": 12.5}))
    RunLock(tmp_path)
    (tmp_path / "results").touch()
    lock.release()
    assert file.read_text() == ""


def test_another_host(tmp_path):
    """Its process lives as long as it touches the file."""
    file = tmp_path / LOCK
    file.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": 0.0}))
    eight, eleven = (time.time() - 60 * minutes for minutes in (8, 11))
    os.utime(file, (eight, eight))
    for _ in range(2):  # being looked at does not make it younger
        with pytest.raises(CommandError, match=f"process 1 on elsewhere: .* delete {file}"):
            RunLock(tmp_path)
        assert file.stat().st_mtime == pytest.approx(eight)
    assert in_use(tmp_path)
    os.utime(file, (eleven, eleven))
    assert not in_use(tmp_path)
    RunLock(tmp_path).release()


def test_a_lock_that_is_held_stays_young(tmp_path, monkeypatch):
    monkeypatch.setattr("rllib_cikd.experiments.run_lock._TOUCHED_EVERY_S", 0.01)
    lock = RunLock(tmp_path / "run")
    file = tmp_path / "run" / LOCK
    os.utime(file, (0, 0))
    deadline = time.monotonic() + 60
    while file.stat().st_mtime == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (tmp_path / "run" / "results").touch()
    lock.release()
    time.sleep(0.1)
    os.utime(file, (0, 0))
    time.sleep(0.1)
    assert file.stat().st_mtime == 0


def test_a_second_run_takes_another_name(holder, tmp_path):
    """And a second resume of it is refused."""
    with ExitStack() as locks:
        assert _is_stamped(_free_name(str(tmp_path), "run", locks), "run")
        with pytest.raises(Locked, match="is in use by process"):
            _lock(str(tmp_path), "run", locks)
        assert _free_name(str(tmp_path), "other", locks) == "other"
        assert (tmp_path / "other" / LOCK).is_file()
    assert not (tmp_path / "other").exists()
