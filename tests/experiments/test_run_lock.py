"""Two commands never write into the same folder."""

import json
import multiprocessing
import time
from contextlib import ExitStack

import pytest

from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.run import _free_name, _is_stamped, _lock
from rllib_cikd.experiments.run_lock import LOCK, Locked, RunLock


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
    """Nobody here can know whether its process is alive."""
    (tmp_path / LOCK).write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": 0.0}))
    with pytest.raises(CommandError, match=f"process 1 on elsewhere: .* delete {tmp_path}/{LOCK}"):
        RunLock(tmp_path)


def test_a_second_run_takes_another_name(holder, tmp_path):
    """And a second resume of it is refused."""
    with ExitStack() as locks:
        assert _is_stamped(_free_name(str(tmp_path), "run", locks), "run")
        with pytest.raises(Locked, match="is in use by process"):
            _lock(str(tmp_path), "run", locks)
        assert _free_name(str(tmp_path), "other", locks) == "other"
        assert (tmp_path / "other" / LOCK).is_file()
    assert not (tmp_path / "other").exists()
