"""A replay buffer that does not fit says so, and one that fits costs what is in it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import small_config

from rllib_cikd.algorithm import memory, replay_buffer
from rllib_cikd.algorithm.memory import _left_by_cgroups, free_bytes
from rllib_cikd.algorithm.replay_buffer import ReplayBuffer

GIB = 2**30


def test_what_does_not_fit_is_refused_before_it_is_allocated(monkeypatch):
    monkeypatch.setattr(replay_buffer, "free_bytes", lambda device: 3 * GIB)
    monkeypatch.setattr(torch, "empty", None)
    with pytest.raises(MemoryError) as error:
        ReplayBuffer(1_000_000, obs_dim=20_000, action_dim=1)
    message = str(error.value)
    assert "\n" not in message
    # 2 x 20,000 + 1 + 2 numbers of 4 bytes.
    assert "1,000,000 transitions of 160,012 bytes need 149.0 GiB, and 3.0 GiB are free" in message
    assert f"at most {3 * GIB // 160_012:,}" in message


def test_the_limit_is_exact(monkeypatch):
    row = 4 * (2 * 3 + 1 + 2)
    monkeypatch.setattr(replay_buffer, "free_bytes", lambda device: 100 * row)
    ReplayBuffer(100, 3, 1)
    for more in ({"capacity": 101}, {"capacity": 100, "n_step": 2}):
        with pytest.raises(MemoryError):
            ReplayBuffer(obs_dim=3, action_dim=1, **more)


def test_a_restore_that_does_not_fit(monkeypatch):
    buffer = ReplayBuffer(10, 1, 1)
    zeros = np.zeros((4, 1), np.float32)
    flags = np.zeros(4, bool)
    buffer.add(zeros, zeros, zeros[:, 0], zeros, flags, flags, np.zeros(4, int))
    state = buffer.get_state()
    other = ReplayBuffer(10, 1, 1)
    monkeypatch.setattr(replay_buffer, "free_bytes", lambda device: 79)
    with pytest.raises(MemoryError, match="4 transitions of 20 bytes"):
        other.set_state(state)


@pytest.mark.parametrize("num_learners", [0, 1])
def test_an_algorithm_says_so_when_it_is_built(build, num_learners):
    config = small_config(replay_buffer_config={"capacity": 10**10})
    with pytest.raises(MemoryError, match=r"10,000,000,000 transitions.*replay_buffer_config"):
        build(config.learners(num_learners=num_learners))


def test_memory_is_taken_as_the_buffer_fills():
    """2 GiB of capacity, of which 50 MiB are used; in a process of its own."""
    script = """
import numpy as np
from rllib_cikd.algorithm.replay_buffer import ReplayBuffer
def resident():
    line = next(l for l in open("/proc/self/status") if l.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
before = resident()
buffer = ReplayBuffer(1_000_000, obs_dim=267, action_dim=1, n_step=2)
made = resident()
row = np.zeros((1000, 267), np.float32)
flags = np.zeros(1000, bool)
for i in range(25):
    buffer.add(row, row[:, :1], row[:, 0], row, flags, flags, np.full(1000, i))
print(before, made, resident())
"""
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    before, made, filled = map(float, out.stdout.split())
    assert made - before < 20
    assert 40 < filled - made < 120


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups_count(tmp_path, monkeypatch, version):
    """The tightest of a group and those above it, with what its file cache could give back."""
    folder = tmp_path / "memory" if version == 1 else tmp_path
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    for group, limit, used, cache in [
        ("", "max" if version == 2 else str(2**63), 0, 0),
        ("job", "1000", 300, 50),
        ("job/step", "5000", 200, 0),
    ]:
        (folder / group).mkdir(parents=True, exist_ok=True)
        (folder / group / names[0]).write_text(f"{limit}\n")
        (folder / group / names[1]).write_text(f"{used}\n")
        (folder / group / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")
    membership = tmp_path / "cgroup"
    first = "4:memory:/job/step\n3:cpu:/\n" if version == 1 else ""
    membership.write_text(first + ("0::/job/step\n" if version == 2 else "0::/\n"))
    left = list(_left_by_cgroups(tmp_path, membership))
    assert min(left) == 1000 - 300 + 50
    monkeypatch.setattr(memory, "_left_by_cgroups", lambda: [750])
    assert free_bytes(torch.device("cpu")) == 750


def test_without_control_groups_the_machine_counts(tmp_path):
    assert list(_left_by_cgroups(tmp_path, tmp_path / "none")) == []
    assert GIB / 8 < free_bytes(torch.device("cpu")) < 2**50
