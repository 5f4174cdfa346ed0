"""Where a checkpoint is, and what is said of one that cannot be read."""

from __future__ import annotations

from pathlib import Path

from rllib_cikd.common.errors import CommandError, DamagedCheckpoint
from rllib_cikd.rllib.manifest import check_checkpoint

# A file that only whole-algorithm checkpoints of RLlib have.
_MARK = "rllib_checkpoint.json"


def find_checkpoint(path: str | Path) -> Path:
    """Returns the folder of the checkpoint at `path`, or of the latest whole one below it.

    Raises:
        CommandError: If there is none.
    """
    folder = Path(path).expanduser().resolve()
    if (folder / _MARK).is_file():
        return folder
    if not folder.is_dir():
        raise CommandError(f"{path}: no such folder.")
    marks = list(folder.rglob(_MARK))
    if not marks:
        raise CommandError(
            f"{path}: no RLlib checkpoint in it. Give a folder with a file {_MARK!r}, or the "
            "folder of a trial or experiment with checkpoints."
        )
    newest = sorted((mark.parent for mark in marks), key=_written_at, reverse=True)
    # One that a run is just writing or deleting is left aside; others are checked when loaded.
    return next((folder for folder in newest if _has_all_bytes(folder)), newest[0])


def _written_at(folder: Path) -> int:
    return (folder / _MARK).stat().st_mtime_ns


def _has_all_bytes(folder: Path) -> bool:
    try:
        check_checkpoint(str(folder), checksums=False)
    except DamagedCheckpoint:
        return False
    return True


def unreadable(path: Path, error: Exception) -> CommandError:
    """What to say of a checkpoint in which unpickling found something missing."""
    if isinstance(error, ModuleNotFoundError):
        return CommandError(
            f"{path}: it needs the module {error.name!r}, which is not found: put its folder on "
            f"PYTHONPATH, or start `rllib evaluate … --import {error.name}` in that folder."
        )
    return CommandError(f"{path}: not readable as a checkpoint of RLlib's new API stack: {error}")
