"""Files that are whole or not there, also when the process is killed."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file beside its place, then moves it there; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    try:
        os.replace(unfinished, path)
    except OSError:
        unfinished.unlink()
        raise


def check_writable(path: Path) -> None:
    """Does what `write_whole` will do, up to the last step.

    Raises:
        OSError: If it cannot be done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.touch()
    unfinished.unlink()
