"""Files are whole or not there."""

from __future__ import annotations

import os

import pytest

from rllib_cikd.common.files import write_whole


@pytest.mark.parametrize("content", ["Δ = 1\n", b"\x00\xff"])
def test_what_is_written_can_be_read_and_nothing_else_is_left(tmp_path, content):
    path = tmp_path / "made" / "on the way" / "figures.csv"
    write_whole(path, content)
    expected = content if isinstance(content, bytes) else content.encode()
    assert path.read_bytes() == expected
    assert os.listdir(path.parent) == ["figures.csv"]


def test_a_folder_in_its_place_is_left_alone(tmp_path):
    (tmp_path / "figures.csv").mkdir()
    with pytest.raises(OSError, match=r"figures\.csv"):
        write_whole(tmp_path / "figures.csv", "new")
    assert os.listdir(tmp_path) == ["figures.csv"]


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "figures.csv"
    write_whole(path, "old and long")
    write_whole(path, "new")
    assert path.read_text() == "new"


def test_readers_keep_the_old_file_while_a_new_one_takes_its_place(tmp_path):
    """The file is moved to its place, never opened there: who reads sees one version of it."""
    path = tmp_path / "figures.csv"
    write_whole(path, "old")
    with path.open() as reader:
        write_whole(path, "new")
        assert reader.read() == "old"


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path, monkeypatch):
    """Killed just before the new file is moved to its place."""

    def killed(*args):
        raise KeyboardInterrupt

    path = tmp_path / "figures.csv"
    write_whole(path, "old")
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "new")
    assert path.read_text() == "old"
