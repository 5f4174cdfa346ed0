"""What `rllib study watch` does: a table of all runs of a study, which keeps up with them."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rllib_cikd.common.errors import OK
from rllib_cikd.common.text import format_duration, format_number, format_table
from rllib_cikd.study.run_states import STATES, RunState, RunStates

_COLUMNS = ("run", "state", "steps", "steps/s", "left", "R_k", "teacher", "mean", "best")
_COLORS = {"running": "green", "failed": "red", "unfinished": "yellow"}
_REFRESH_S = 2.0
# Lines that are not runs: two above, the header, how many are left out, and the cursor's.
_OTHER_LINES = 5


def watch(folder: str) -> int:
    """Shows the runs in a folder: on a terminal until they have ended or Ctrl-C, elsewhere once.

    Args:
        folder: Of a study, or of a run of `rllib train`.

    Returns:
        The exit code.

    Raises:
        CommandError: If there is neither in the folder.
    """
    path = Path(folder).expanduser().resolve()
    states, console = RunStates(path), Console()
    if not (sys.stdout.isatty() and console.is_interactive):
        runs = states.read()
        table = format_table([list(_COLUMNS), *map(_row, runs)])
        print(summary(path.name, runs), "", table, sep="\n")
        return OK
    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                goes_on = states.goes_on()  # before the last look
                live.update(screen(path.name, states.read(), console.height), refresh=True)
                if not goes_on:
                    return OK
                time.sleep(_REFRESH_S)
        except KeyboardInterrupt:
            return OK


def screen(name: str, runs: Sequence[RunState], height: int) -> Group:
    """The whole in a line, and the table, cut to a terminal's height."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in _COLUMNS:
        text, folds = column in ("run", "state"), column in ("run", "R_k")
        table.add_column(
            column, justify="left" if text else "right", no_wrap=not folds, overflow="fold"
        )
    shown = runs[: max(1, height - _OTHER_LINES)]
    for run in shown:
        table.add_row(*_row(run), style=_COLORS.get(run.state))
    left_out = [Text(f"… and {len(runs) - len(shown)} more")] if len(shown) < len(runs) else []
    return Group(Text(summary(name, runs)), "", table, *left_out)


def summary(name: str, runs: Sequence[RunState]) -> str:
    """One line: how many runs are in which state, and at the speed of now, the time left."""
    counts = Counter(run.state for run in runs)
    parts = [f"{counts[state]} {state}" for state in STATES if counts[state]]
    steps_left = sum(run.steps_left for run in runs)
    speed = sum(run.speed for run in runs if run.speed > 0)
    if speed and steps_left > 0:
        parts.append(f"{format_duration(steps_left / speed)} left")
    return f"{name}: {', '.join(parts) or 'no run has begun'}"


def _row(run: RunState) -> list[str]:
    goal = "" if math.isnan(run.goal) else f"/{format_number(run.goal)}"
    seconds_left = run.steps_left / run.speed if run.speed > 0 else math.nan
    return [
        run.name,
        run.state,
        format_number(run.steps) + goal,
        format_number(run.speed),
        "-" if math.isnan(seconds_left) else format_duration(seconds_left),
        " ".join(map(format_number, run.returns)) or "-",
        format_number(run.teacher),
        format_number(run.evaluation_mean),
        format_number(run.evaluation_best),
    ]
