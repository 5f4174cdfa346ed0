"""`rllib study`."""

from __future__ import annotations

from typing import Annotated

import typer

from rllib_cikd.cli.ray_command import RayAddress, RayCommand, Verbose

app = typer.Typer(help="Compare variants over tasks and seeds.", rich_markup_mode=None)


@app.command("run", cls=RayCommand, epilog="\b\nExample:\n  rllib study run studies/quick.yaml")
def run_study(
    file: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="A YAML file, `{tuned_examples: [...], variants: [...], seeds: [...], steps: N}`; "
            "or the name of a study that comes with the package (`rllib list`).",
        ),
    ],
    storage_path: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder of results (default: ~/ray_results); on a cluster one that all machines "
            "share.",
        ),
    ] = None,
    experiment_name: Annotated[
        str | None,
        typer.Option(
            "--experiment-name",
            "-n",
            metavar="NAME",
            help="Name of the study's folder in there (default: the file's name).",
        ),
    ] = None,
    ray_address: RayAddress = None,
    verbose: Verbose = False,
) -> int:
    """Train all runs of a study with Ray Tune.

    Started again after it was cut off, it goes on from the last checkpoints and leaves what has
    ended.
    """
    from rllib_cikd.study.command import run

    return run(
        file,
        storage_path=storage_path,
        experiment_name=experiment_name,
        ray_address=ray_address,
        verbose=verbose,
    )


@app.command(
    "report",
    cls=RayCommand,
    epilog="\b\nExamples:\n  rllib study report ~/ray_results/quick\n"
    "  rllib study report docs/results",
)
def report_study(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            help="A study's folder, or any other with *.evaluations.csv and *.phases.csv below it.",
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
    verbose: Verbose = False,
) -> int:
    """Write tables and figures from the raw figures of a study, ended or not."""
    from rllib_cikd.study.command import report

    return report(folder, out=out, baseline=baseline)
