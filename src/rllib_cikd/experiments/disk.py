"""What is wrong with the disk that a run writes to, in words."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from rllib_cikd.experiments.run_lock import LOCK

#: More than file systems keep beside the blocks of files.
_PROBE = b"\0" * 65536


def disk_problem(folder: str) -> str | None:
    """Why nothing can be written into the folder of a run under way; None if it can be.

    Args:
        folder: Of the run, which this process has locked; of a URI nothing is known.
    """
    if "://" in folder:
        return None
    path = Path(folder)
    if not (path / LOCK).is_file():
        return f"{folder} has been removed"
    probe = path / ".probe"
    try:
        probe.write_bytes(_PROBE)
    except OSError as error:
        return f"{folder} cannot be written to: {error.strerror}"
    finally:
        with suppress(OSError):  # read-only: then it is not there
            probe.unlink(missing_ok=True)
    return None
