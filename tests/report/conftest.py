"""The study that is worked out by hand, as a folder and as it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_examples import CIKD, EVALUATIONS, LONE, PHASES, TAUGHT, write_csv

from rllib_cikd.report.study_data import StudyData, read_study_data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Each trial's CSVs in a folder of their own."""
    for i, rows in enumerate([*LONE, *CIKD]):
        write_csv(tmp_path / f"trial_{i}" / "evaluations.csv", EVALUATIONS, rows)
    for i, rows in enumerate(TAUGHT):
        write_csv(tmp_path / f"trial_{i + 2}" / "phases.csv", PHASES, rows)
    return tmp_path


@pytest.fixture
def data(folder: Path) -> StudyData:
    return read_study_data(folder)
