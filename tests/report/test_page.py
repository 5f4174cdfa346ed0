"""The report as a whole: its page and files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from report_examples import cells

from rllib_cikd.common.errors import CommandError
from rllib_cikd.report.page import write_report


def markdown(page: Path) -> str:
    """The same report in Markdown."""
    return page.with_name("report.md").read_text()


@pytest.fixture
def no_figures(monkeypatch) -> None:
    """They take the most of a report's time."""
    monkeypatch.setattr("rllib_cikd.report.figures.save_figures", lambda *_: [])


def test_a_page_has_every_section(folder: Path):
    report = markdown(write_report(folder))
    assert "baseline: **vanilla-sac**" in report
    assert "**Fewer than 5 seeds**: all variants." in report
    headings = [line for line in report.splitlines() if line.startswith("## ")]
    assert headings == [
        *("## Against vanilla-sac", "## Figures", "## T-v0", "## Distillation", "## Speed"),
        *("## Every seed", "## How to read it"),
    ]
    # Final return, best return, area, steps to the baseline's; distances, teachers, above.
    # Other tables begin with the task.
    assert len(cells(report, "cikd")) == 7


def test_baseline_can_be_chosen(folder: Path, no_figures):
    report = markdown(write_report(folder, baseline="cikd"))
    assert "Steps to reach 35.00, the return of cikd at step 30" in report
    with pytest.raises(CommandError, match=r"no variant 'cidk'.*Did you mean 'cikd'"):
        write_report(folder, baseline="cidk")


def test_a_studys_baseline_may_be_without_a_figure_yet(folder: Path, no_figures):
    report = markdown(write_report(folder, preferred="hard-copy"))
    assert "baseline: **vanilla-sac**" in report
    assert "baseline: **cikd**" in markdown(write_report(folder, preferred="cikd"))


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
    assert "stale" not in markdown(elsewhere)
    copied = elsewhere.with_name("evaluations.csv")
    copied.write_text(copied.read_text().replace("cikd,", "stale,"))
    assert "stale" not in markdown(write_report(folder, out=elsewhere.parent))
    # What a report wrote is a study in itself.
    copy = write_report(elsewhere.parent, out=folder / "copy")
    assert markdown(copy).split("\n", 1)[1] == markdown(elsewhere).split("\n", 1)[1]


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_what_is_missing_is_named_and_how_to_install_it(folder: Path, monkeypatch, package):
    for name in [*sys.modules]:
        if (
            name.startswith((f"{package}.", "rllib_cikd.report."))
            and name != write_report.__module__
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        CommandError, match=rf"a report needs {package}; pip install 'rllib-cikd\[study\]'"
    ):
        write_report(folder)
