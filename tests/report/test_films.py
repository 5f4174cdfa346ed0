"""Films in a report: found where they are said to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from rllib_cikd.common.errors import CommandError
from rllib_cikd.report.films import find_films


def film(path: Path, content: bytes = b"frames") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_folder_stands_for_its_films(tmp_path: Path):
    first, second = film(tmp_path / "d" / "a.mp4"), film(tmp_path / "d" / "b.WEBM")
    film(tmp_path / "d" / "notes.txt")
    lone = film(tmp_path / "c.mp4")
    assert find_films([str(lone), str(tmp_path / "d")]) == [lone, first, second]
    assert find_films([]) == []


@pytest.mark.parametrize("given", ["missing.mp4", "notes.txt", "empty"])
def test_no_film_is_one_line(tmp_path: Path, given: str):
    (tmp_path / "empty").mkdir()
    film(tmp_path / "notes.txt")
    with pytest.raises(CommandError, match=rf"--video .*{given}: no film there .*rllib evaluate"):
        find_films([str(tmp_path / given)])
