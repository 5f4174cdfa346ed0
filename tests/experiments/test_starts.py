"""How a run was started is written down, each time."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

from rllib_cikd.experiments import starts
from rllib_cikd.experiments.starts import read_starts, record_start


def test_every_start_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/a/bin/rllib", "train", "file", "a b.yaml"])
    record_start(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/a/rllib_command.py", "study", "run", "s"])
    record_start(str(tmp_path))
    first, second = read_starts(tmp_path)
    assert first["command"] == "rllib train file 'a b.yaml'"
    assert second["command"] == "rllib study run s"
    assert first["versions"]["ray"] == metadata.version("ray")
    assert first["at"] <= second["at"]


def test_a_line_cut_short_is_left_out(tmp_path):
    record_start(tmp_path)
    with (tmp_path / starts.STARTS).open("a") as file:
        file.write('{"command": "rl')
    assert len(read_starts(tmp_path)) == 1
    assert read_starts(tmp_path / "other") == []


def test_object_storage_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record_start("s3://bucket/run")
    assert [*tmp_path.iterdir()] == []


def test_the_commit_is_that_of_the_packages_own_repository(tmp_path, monkeypatch):
    """Not of one in which it merely lies, as an environment's folder may."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.org"]
    package = tmp_path / "package"
    package.mkdir()
    (package / "starts.py").write_text("")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "c"], check=True)
    monkeypatch.setattr(starts, "__file__", str(package / "starts.py"))
    monkeypatch.setattr(starts, "_PACKAGE", package)
    assert starts._commit() is None
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "d"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert starts._commit() == head[:12]
    (package / "starts.py").write_text("#")
    assert starts._commit() == f"{head[:12]}-dirty"
    monkeypatch.setenv("PATH", "")
    assert starts._commit() is None
