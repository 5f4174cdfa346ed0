"""The report as a whole: its page and files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from report_examples import cells

from rllib_cikd.common.errors import CommandError
from rllib_cikd.report.page import write_report


@pytest.fixture
def no_figures(monkeypatch) -> None:
    """They take the most of a report's time."""
    monkeypatch.setattr("rllib_cikd.report.figures.save_figures", lambda *_: [])


def test_a_page_has_every_section(folder: Path):
    report = write_report(folder).read_text()
    assert "baseline: **vanilla-sac**" in report
    assert "**Fewer than 5 seeds**: all variants." in report
    headings = [line for line in report.splitlines() if line.startswith("## ")]
    assert headings == [
        *("## How to read it", "## T-v0", "## Distillation", "## Figures", "## Every seed")
    ]
    # Final return, best return, area, steps to the baseline's; distances, teachers, above.
    assert len(cells(report, "cikd")) == 7


def test_baseline_can_be_chosen(folder: Path, no_figures):
    report = write_report(folder, baseline="cikd").read_text()
    assert "Steps to reach 35.00, the final return of cikd" in report
    with pytest.raises(CommandError, match=r"no variant 'cidk'.*Did you mean 'cikd'"):
        write_report(folder, baseline="cidk")


def test_a_second_report_is_the_same_to_the_byte(folder: Path):
    page = write_report(folder)
    first = {path: path.read_bytes() for path in sorted(page.parent.rglob("*")) if path.is_file()}
    np.random.seed(1)
    assert write_report(folder) == page
    again = {path: path.read_bytes() for path in sorted(page.parent.rglob("*")) if path.is_file()}
    assert again == first


def test_a_report_does_not_read_reports(folder: Path, no_figures):
    page = write_report(folder)
    stale = page.parent / "evaluations.csv"
    stale.write_text(stale.read_text().replace("cikd,", "stale,"))
    elsewhere = write_report(folder, out=folder / "tables")
    assert "stale" not in elsewhere.read_text()
    copied = elsewhere.with_name("evaluations.csv")
    copied.write_text(copied.read_text().replace("cikd,", "stale,"))
    assert "stale" not in write_report(folder, out=elsewhere.parent).read_text()
    # What a report wrote is a study in itself.
    copy = write_report(elsewhere.parent, out=folder / "copy")
    assert copy.read_text().split("\n", 1)[1] == elsewhere.read_text().split("\n", 1)[1]


def test_without_matplotlib_the_error_says_what_to_install(folder: Path, monkeypatch):
    for name in [*sys.modules]:
        if (
            name.startswith(("matplotlib.", "rllib_cikd.report."))
            and name != write_report.__module__
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(CommandError, match=r"pip install 'rllib-cikd\[study\]'"):
        write_report(folder)
