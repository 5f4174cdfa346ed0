"""`rllib report`."""

from __future__ import annotations

from typing import Annotated

import typer

from rllib_cikd.cli.ray_command import Verbose

EXAMPLES = """\b
Examples:
  rllib report ~/ray_results/cikd-pendulum
  rllib report ~/ray_results/quick --baseline vanilla-sac
  rllib report docs/results/comparison-100k --out report
  rllib report ~/ray_results/cikd-pendulum --video films
"""


def report(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            help="The folder of a run or of one of its trials; of a study; or any other with "
            "*.evaluations.csv and *.phases.csv below it.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where to write it (default: `report` in that folder)."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="VARIANT",
            help="Whose final return others are measured against (default: vanilla-sac, or else "
            "the first).",
        ),
    ] = None,
    video: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="A film to show on the page, or a folder of films, as `rllib evaluate --video` "
            "writes them; give it again for more.",
        ),
    ] = None,
    verbose: Verbose = False,
) -> int:
    """Show a run or a study, ended or not: one HTML page, tables and figures.

    `report.html` is whole in itself. Beside it: the same as report.md, figures as PNG, SVG and
    PDF, all numbers as CSVs, and means and intervals as statistics.csv.
    """
    from rllib_cikd.study.report import report

    return report(folder, out=out, baseline=baseline, videos=video or ())
