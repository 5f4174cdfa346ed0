"""Errors that a person reads: one line each, with what to do."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable

#: Exit codes of the `rllib` command.
OK, FAILED, USAGE_ERROR, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


class CommandError(ValueError):
    """What was asked for cannot be done; the message says why and what to do."""


class EnvironmentFault(ValueError):
    """What an environment declares, gives or would get cannot be used; one line says what to do.

    It ends training: no env runner is restarted because of it.
    """


class NotFinite(EnvironmentFault):
    """A number that is not finite, such as a diverging simulation gives."""


class DamagedCheckpoint(CommandError):
    """A checkpoint is not whole: a part of it is missing, cut short or changed."""


class NotSound(RuntimeError):
    """The members' networks or what trains them hold numbers that are not finite."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the closest of `known`, or ""."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f" Did you mean {close[0]!r}?" if close else ""


def print_error(message: object) -> None:
    """Says on stderr why a command cannot do what it was asked for."""
    print(f"rllib: error: {message}", file=sys.stderr)
