"""How a run was started, each time: command, versions, commit, machine; for its report."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from rllib_cikd.common.version import __version__

#: In a run's or a study's folder: a line of JSON for each start.
STARTS = "starts.jsonl"
_PACKAGES = ("ray", "torch", "gymnasium", "mujoco", "numpy")
_PACKAGE = Path(__file__).parents[1]


def record_start(folder: str | Path) -> None:
    """Adds this start to those of a folder; nothing is written to object storage.

    Raises:
        OSError: If the folder cannot be written to.
    """
    if "://" in str(folder):
        return
    start = {
        "at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": _command(sys.argv),
        "versions": _versions(),
        "commit": _commit(),
        "machine": _machine(),
    }
    with Path(folder, STARTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(start) + "\n")


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """The starts of a run or study, the first one first; none of folders of before.

    Args:
        folder: Its own. A line that was cut short is left out.
    """
    if not (folder / STARTS).is_file():
        return []
    starts = []
    for line in (folder / STARTS).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            start = json.loads(line)
        except ValueError:
            continue
        if isinstance(start, dict):
            starts.append(start)
    return starts


def _command(argv: list[str]) -> str:
    program = Path(argv[0]).name
    return shlex.join(["rllib" if program == "rllib_command.py" else program, *argv[1:]])


def _versions() -> dict[str, str]:
    versions = {"rllib-cikd": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str | None:
    """Of the package's repository, with "-dirty" if its files were changed; None without one."""
    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name, at=Path(__file__).parent)
    if tracked is None:  # installed, perhaps below a repository of something else
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*", at=_PACKAGE)


def _git(*words: str, at: Path) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(at), *words], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _machine() -> str:
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    system = f"{platform.system()} {platform.machine()}"
    return ", ".join([_processor(), f"{os.cpu_count()} CPUs", memory, *gpu, system])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
