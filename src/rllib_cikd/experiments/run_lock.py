"""A lock on a run's folder: two commands never write into the same one."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from rllib_cikd.common.errors import CommandError

LOCK = "run.lock"
_TOUCHED_EVERY_S = 60
_STALE_AFTER_S = 600


class Locked(CommandError):
    """Another process is writing into the folder."""


class RunLock:
    """Holds a folder for this process until `release`.

    A file in the folder names host and process. One that a process left which is no more, is taken
    over. Whether a process on another host lives shows in the file's age: as long as it is held, it
    is touched once a minute.

    Args:
        folder: It is made if it is not there.

    Raises:
        Locked: If another process holds it.
        OSError: If the folder cannot be written to.
    """

    def __init__(self, folder: Path):
        self._file = folder / LOCK
        with _exclusive(self._file) as file:
            holder = _read(file)
            if holder is not None and _is_alive(holder, _age(file)):
                raise Locked(
                    f"{folder} is in use by process {holder['pid']} on {holder['host']}: wait for "
                    "it or end it. If there is no such process on that machine any more, it can be "
                    f"taken over after {_STALE_AFTER_S // 60} minutes, or delete {self._file}."
                )
            process = psutil.Process()
            own = {"host": socket.gethostname(), "pid": process.pid, "since": process.create_time()}
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(own).encode(), 0)
        self._released = threading.Event()
        threading.Thread(target=self._keep_young, daemon=True).start()

    def _keep_young(self) -> None:
        while not self._released.wait(_TOUCHED_EVERY_S):
            with suppress(OSError):  # a disk that is away for a while
                os.utime(self._file)

    def release(self) -> None:
        """Gives the folder back, if it still is there, and removes it if nothing is in it."""
        self._released.set()
        if not self._file.is_file():
            return
        # Where it cannot be written any more, the lock goes with this process.
        with suppress(OSError), _exclusive(self._file) as file:
            os.ftruncate(file, 0)
            if os.listdir(self._file.parent) == [LOCK]:
                self._file.unlink()
                self._file.parent.rmdir()


def in_use(folder: Path) -> bool:
    """Whether a process holds a folder, as far as can be known; nothing is written there."""
    try:
        holder = json.loads((folder / LOCK).read_text())
        age = time.time() - (folder / LOCK).stat().st_mtime
    except (OSError, ValueError):  # there is none, or it was given back
        return False
    return _is_alive(holder, age)


@contextmanager
def _exclusive(path: Path) -> Iterator[int]:
    """A file descriptor that one process has at a time."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file).st_nlink:  # else it was removed in between
                yield file
                return
        finally:
            os.close(file)


def _read(file: int) -> dict[str, Any] | None:
    content = os.pread(file, 4096, 0)
    try:
        return json.loads(content)
    except ValueError:  # empty: given back
        return None


def _age(file: int) -> float:
    """Seconds since a file was touched, by the clock of the machine that stores it."""
    before = os.fstat(file)
    os.utime(file)
    age = os.fstat(file).st_mtime - before.st_mtime
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    return age


def _is_alive(holder: dict[str, Any], age: float) -> bool:
    if holder["host"] != socket.gethostname():
        return age < _STALE_AFTER_S
    if holder["pid"] == os.getpid():
        return False
    try:
        return psutil.Process(holder["pid"]).create_time() == holder["since"]
    except psutil.NoSuchProcess:
        return False
