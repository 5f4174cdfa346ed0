"""`rllib study`."""

from __future__ import annotations

from typing import Annotated

import typer

from rllib_cikd.cli.ray_command import Imports, RayAddress, RayCommand, Verbose
from rllib_cikd.common.errors import USAGE_ERROR, CommandError, print_error

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
    imports: Imports = None,
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
        imports=imports or (),
        ray_address=ray_address,
        verbose=verbose,
    )


@app.command("watch", epilog="\b\nExample:\n  rllib study watch ~/ray_results/quick")
def watch_study(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="The folder of a study, or of a run of `rllib train`, ended or not."
        ),
    ],
) -> int:
    """Show how far all runs of a study are, until it has ended or Ctrl-C.

    Steps per second and time left are those of the last results; mean and best are of the members
    at the last evaluation. Where there is no terminal, the table is printed once.
    """
    from rllib_cikd.study.watch import watch  # loads no Ray

    try:
        return watch(folder)
    except CommandError as error:
        print_error(error)
        return USAGE_ERROR
