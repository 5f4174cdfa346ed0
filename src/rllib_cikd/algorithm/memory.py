"""How much memory is free: what a replay buffer must know before it is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch


def free_bytes(device: torch.device) -> int:
    """Bytes that a new tensor on `device` may have.

    On a CPU, the least of what the machine has available and what the limits of the process's
    control groups (a container's, a batch system's) leave.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([psutil.virtual_memory().available, *_left_by_cgroups()])


def _left_by_cgroups(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> Iterator[int]:
    """What each limit leaves, of versions 1 and 2; pages that can be dropped count as free."""
    try:
        groups = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:  # not Linux
        return
    for _, controllers, path in groups:
        version_1 = "memory" in controllers.split(",")
        if controllers and not version_1:
            continue
        folder = root / "memory" if version_1 else root
        limit, usage, cache = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if version_1
            else ("memory.max", "memory.current", "inactive_file")
        )
        # Limits of the groups above hold, too. In a container the group may be seen as the root.
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1):
            group = folder.joinpath(*parts[:depth])
            try:
                most = (group / limit).read_text().strip()
                used = int((group / usage).read_text())
                statistics = dict(
                    line.split() for line in (group / "memory.stat").read_text().splitlines()
                )
            except (OSError, ValueError):
                continue
            if most != "max":
                yield max(0, int(most) - used + int(statistics.get(cache, 0)))
