"""Checkpoints are found by their folder or one above it."""

import os
from pathlib import Path

from rllib_cikd.rllib.checkpoint_files import find_checkpoint, unreadable


def test_latest_checkpoint_of_a_folder(tmp_path):
    for trial, name, seconds in [("a", "checkpoint_000009", 1), ("b", "checkpoint_000001", 2)]:
        mark = tmp_path / trial / name / "rllib_checkpoint.json"
        mark.parent.mkdir(parents=True)
        mark.write_text("{}")
        os.utime(mark, (seconds, seconds))
    assert find_checkpoint(tmp_path) == tmp_path / "b" / "checkpoint_000001"
    assert find_checkpoint(tmp_path / "a") == tmp_path / "a" / "checkpoint_000009"


def test_relative_paths(tmp_path, monkeypatch):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "rllib_checkpoint.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "c")
    assert find_checkpoint("../c") == find_checkpoint(".") == tmp_path / "c"


def test_a_module_that_is_missing_is_named():
    error = unreadable(Path("c"), ModuleNotFoundError("No module named 'a_b'", name="a_b"))
    assert "needs the module 'a_b'" in str(error)
    assert "--import a_b" in str(error)
    assert "not readable as a checkpoint" in str(unreadable(Path("c"), EOFError("cut")))
