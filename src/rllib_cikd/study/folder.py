"""What a study's folder says of the study itself: its runs and its baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STUDY_FILE, CELLS_FILE = "study.json", "cells.json"


def recorded_cells(folder: Path) -> dict[str, dict[str, Any]]:
    """What `cells.json` says of each run that was begun; nothing if it is not a study's folder."""
    return _read_json(folder / CELLS_FILE)


def recorded_runs(folder: Path) -> dict[str, dict[str, Any]]:
    """Of `recorded_cells`, those that the study's file asked for when it was last started."""
    cells = recorded_cells(folder)
    asked_for = _read_json(folder / STUDY_FILE).get("runs", cells)
    return {name: cell for name, cell in cells.items() if name in asked_for}


def baseline_of(folder: Path) -> str | None:
    """The baseline that the study in this folder names; None if there is no study."""
    return _read_json(folder / STUDY_FILE).get("baseline")


def _read_json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.is_file() else {}
