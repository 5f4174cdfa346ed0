"""What all commands share: when Ray is loaded, how errors are told, and common options."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from rllib_cikd.common.errors import (
    FAILED,
    INTERRUPTED,
    USAGE_ERROR,
    CommandError,
    print_error,
)
from rllib_cikd.experiments.graphics import missing_library

Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Show all of Ray's messages, and tracebacks of errors."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Use the Ray cluster at this address (default: $RAY_ADDRESS, else Ray is started "
        "on this machine).",
    ),
]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Import a module of yours that registers environments; repeatable. It is looked for "
        "beside the experiment file, in the current folder and on PYTHONPATH, and remembered in "
        "the checkpoints.",
    ),
]


class RayCommand(TyperCommand):
    """A command whose function imports Ray, RLlib and PyTorch; it has the option `--verbose`.

    Errors in what was asked for become one line and an exit code.
    """

    def invoke(self, ctx: Any) -> int:
        verbose = ctx.params["verbose"]
        try:
            if ctx.obj:
                _run_package(ctx.obj)
            import ray

            from rllib_cikd.experiments import ray_messages

            if not verbose:
                ray_messages.silence()
            ray_was_running = ray.is_initialized()
            try:
                return super().invoke(ctx)
            finally:
                if not ray_was_running:
                    ray.shutdown()
        except CommandError as error:
            if verbose:
                traceback.print_exc()
            print_error(error)
            return USAGE_ERROR
        except OSError as error:  # of a folder or a disk that cannot be used
            if verbose:
                traceback.print_exc()
            place = f"{error.filename}: " if error.filename else ""
            print_error(f"{place}{error.strerror or error}.")
            return FAILED
        except KeyboardInterrupt:
            print("rllib: interrupted", file=sys.stderr)
            return INTERRUPTED


def _run_package(run_package: Callable[[], None]) -> None:
    """Runs the package (see rllib_command.py), with which RLlib imports dm_control if it is there.

    Raises:
        CommandError: If a library that MuJoCo is to draw with is missing.
    """
    try:
        run_package()
    except Exception as error:
        missing = missing_library(error)
        if missing is None:
            raise
        raise missing from error
