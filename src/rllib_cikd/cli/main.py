"""The `rllib` command: its groups, its version, and what is said of options that are wrong.

Ray had a command of this name up to 2.42. This one keeps its option names and is thin over
`ray.tune.Tuner` and `Algorithm.from_checkpoint`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from rllib_cikd.cli import evaluate, export, report, study, train
from rllib_cikd.cli.list_files import list_files
from rllib_cikd.cli.ray_command import RayCommand
from rllib_cikd.common.errors import USAGE_ERROR, print_error
from rllib_cikd.common.version import __version__

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(train.app, name="train")
app.command("evaluate", cls=evaluate.EvaluateCommand, epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("export", cls=RayCommand, epilog=export.EXAMPLES)(export.export)
app.add_typer(study.app, name="study")
app.command("report", cls=RayCommand, epilog=report.EXAMPLES)(report.report)
app.command("list")(list_files)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"rllib-cikd {__version__}")
        raise typer.Exit


@app.callback()
def rllib(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version)
    ] = False,
) -> None:
    """Trains RLlib algorithms, CIKD among them, and evaluates their checkpoints."""


def main(argv: Sequence[str] | None = None, run_package: Callable[[], None] | None = None) -> int:
    """Runs the `rllib` command.

    Args:
        argv: Its arguments; those of the process if None.
        run_package: Called before the first command that needs more of the package than `cli/`.

    Returns:
        The exit code: 0 done, 1 a trial failed, 2 the command, file or checkpoint cannot be
        used as given, 130 interrupted.
    """
    try:
        return app(argv, prog_name="rllib", standalone_mode=False, obj=run_package) or 0
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        hint = f" See `{context.command_path} --help`." if context else ""
        message = error.format_message()
        print_error(f"{message}{'' if message[-1] in '.?)' else '.'}{hint}")
        return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
