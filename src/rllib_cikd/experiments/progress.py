"""Live progress of a Tune run, for a person to read: a bar a trial on a terminal, else lines."""

from __future__ import annotations

import atexit
import logging
import math
import numbers
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.utils import flatten_dict
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rllib_cikd.common import result_keys as keys
from rllib_cikd.common.text import format_duration, format_number, trial_label

# Reports over which speed is measured. With an evaluation every 10 iterations, exactly one is in.
_SPEED_WINDOW = 10
# Reports after which a stop criterion that is still missing is worth a word.
_PATIENCE = 10


class ProgressCallback(Callback):
    """Shows how far each trial is, how fast, and how its ensemble does.

    On a terminal, running trials have a bar each, and a line stays when one has ended. Elsewhere
    each trial prints a line now and then.

    Args:
        name: The experiment's name; begins each line.
        several_trials: Whether lines also tell which trial they belong to.
        min_interval_s: Without bars, a trial prints at most once in so many seconds, save for its
            last report.
        bars: Whether there are bars, where there is a terminal.
    """

    def __init__(
        self,
        name: str,
        several_trials: bool = False,
        min_interval_s: float = 5.0,
        bars: bool = True,
    ):
        self.name = name
        self.several_trials = several_trials
        self.min_interval_s = min_interval_s
        self.bars = bars
        self._live: Live | None = None  # while bars are shown
        self._running: dict[str, _TrialProgress] = {}

    def setup(self, **info) -> None:
        console = Console()
        if self.bars and sys.stdout.isatty() and console.is_interactive:
            self._live = _Live(
                # Not the whole width: "^C" must fit behind it, or the lines above would stay.
                get_renderable=lambda: self._screen(console.width - 3),
                console=console,
                refresh_per_second=2,
            )
            self._live.start()
            atexit.register(self._live.stop)  # gives the cursor back if Tune is interrupted twice

    def on_experiment_end(self, trials: list[Trial], **info) -> None:
        if self._live:
            self._live.stop()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info) -> None:
        # Anew after a restore, too: speed must not count the time in between.
        self._running[trial.trial_id] = _TrialProgress(self.label(trial))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info) -> None:
        self._running.pop(trial.trial_id, None)

    on_trial_error = on_trial_complete

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict, **info
    ) -> None:
        metrics = flatten_dict({k: v for k, v in result.items() if k != "config"})
        progress = self._running.setdefault(trial.trial_id, _TrialProgress(self.label(trial)))
        progress.update(metrics, self.goals(trial))
        if progress.num_reports == _PATIENCE:
            self._warn_of_missing_criteria(trial, metrics)
        since_last_line = progress.reported_at - progress.printed_at
        if result.get("done") or (self._live is None and since_last_line >= self.min_interval_s):
            progress.printed_at = progress.reported_at
            print(f"{progress.label}  {progress.text()}", flush=True)
        if result.get("done"):
            del self._running[trial.trial_id]

    @property
    def has_bars(self) -> bool:
        """Whether bars are shown now."""
        return self._live is not None

    def label(self, trial: Trial) -> str:
        """What begins a line about this trial."""
        return self.name + (f" {trial_label(trial.experiment_tag)}" if self.several_trials else "")

    def goals(self, trial: Trial) -> Mapping[str, Any]:
        """Results and their values at which this trial stops."""
        return trial.stopping_criterion

    def footer(self) -> str:
        """A line below the bars."""
        return ""

    def _screen(self, width: int) -> Group:
        """A line a trial, with its bar; a lone one has a second line for its ensemble."""
        bars = Table.grid(padding=(0, 2, 0, 0))
        bars.width = width
        bars.add_column(no_wrap=True)
        if self.several_trials:  # text takes the width that is left, else the bar
            bars.add_column(width=10)
            bars.add_column(no_wrap=True, ratio=1)
        else:
            bars.add_column(min_width=6, ratio=1)
            bars.add_column(no_wrap=True)
        lines = []
        for progress in list(self._running.values()):
            bar = ProgressBar(total=1.0, completed=progress.share, pulse=not progress.num_reports)
            text = progress.text() if self.several_trials else " | ".join(progress.pace())
            bars.add_row(Text(progress.label), bar, Text(text))
            if not self.several_trials:
                lines.append(f"  {' | '.join(progress.ensemble())}")
        lines.append(self.footer())
        below = [Text(line) for line in lines if line.strip()]
        for line_below in below:
            line_below.truncate(width, overflow="ellipsis")
        return Group(bars, *below)

    def _warn_of_missing_criteria(self, trial: Trial, metrics: Mapping[str, Any]) -> None:
        evaluated = any(key.startswith("evaluation/") for key in metrics)
        for key in trial.stopping_criterion:
            if key not in metrics and (evaluated or not key.startswith("evaluation/")):
                print(
                    f"{self.name}: `{key}` is in `stop`, but none of the last results has it. "
                    "If it is never reported, it never stops the trial.",
                    flush=True,
                )


class _Live(Live):
    """rich's `Live`, above which logs are printed, too, not only what goes to stdout and stderr."""

    def start(self, refresh: bool = False) -> None:
        stderr = sys.stderr
        super().start(refresh)
        _move_logs(stderr, sys.stderr)

    def stop(self) -> None:
        stderr = sys.stderr
        super().stop()
        _move_logs(stderr, sys.stderr)


def _move_logs(old: Any, new: Any) -> None:
    """A log's handler keeps the stream it was made with: Ray's, the stderr of its start."""
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)


@dataclass
class _TrialProgress:
    """What one running trial has reported.

    Attributes:
        label: What names it.
        share: How much of it is done, from 0 to 1.
    """

    label: str
    share: float = 0.0
    num_reports: int = 0
    reported_at: float = -math.inf
    printed_at: float = -math.inf
    _metrics: Mapping[str, Any] = field(default_factory=dict)
    _goals: Mapping[str, Any] = field(default_factory=dict)
    _history: deque[tuple[float, float, float]] = field(
        default_factory=lambda: deque(maxlen=_SPEED_WINDOW + 1)
    )
    _evaluation: str = ""

    def update(self, metrics: Mapping[str, Any], goals: Mapping[str, Any]) -> None:
        """Takes in a result and the values at which the trial stops."""
        self.num_reports += 1
        self.reported_at = time.monotonic()
        self._metrics, self._goals = metrics, goals
        self._evaluation = _evaluation_text(metrics) or self._evaluation
        steps, iteration = _value(metrics, keys.STEPS), _value(metrics, keys.ITERATION)
        self._history.append((self.reported_at, steps, iteration))
        shares = [
            done / goals[key]
            for key, done in ((keys.STEPS, steps), (keys.ITERATION, iteration))
            if goals.get(key) and not math.isnan(done)
        ]
        self.share = min(1.0, max(shares, default=0.0))

    def text(self) -> str:
        """All of it in one line."""
        return " | ".join([*self.pace(), *self.ensemble()])

    def pace(self) -> list[str]:
        """Steps done and to go, steps per second, time left (as far as the goals tell)."""
        if not self.num_reports:
            return ["starting"]
        (then, *first), (now, *last) = self._history[0], self._history[-1]
        steps, goal = last[0], self._goals.get(keys.STEPS)
        done = f"{format_number(steps)}{f'/{format_number(goal)}' if goal else ''} steps"
        parts = [done + (f" ({self.share:.0%})" if self.share else "")]
        if now > then and not math.isnan(steps - first[0]):
            parts.append(f"{format_number((steps - first[0]) / (now - then))} steps/s")
        seconds_left = [
            (self._goals[key] - end) * (now - then) / (end - start)
            for key, start, end in zip((keys.STEPS, keys.ITERATION), first, last, strict=True)
            if self._goals.get(key) and end > start
        ]
        if seconds_left and self.share < 1:
            left = min(seconds_left) - (time.monotonic() - now)
            parts.append(f"{format_duration(max(0.0, left))} left")
        return parts

    def ensemble(self) -> list[str]:
        """R_k of each member, last teacher, last evaluation; of other algorithms, the return."""
        if not self.num_reports:
            return []
        metrics, prefix = self._metrics, f"{keys.ENSEMBLE}/{keys.RETURN_MEAN}/policy_"
        members = sorted((int(k.removeprefix(prefix)), k) for k in metrics if k.startswith(prefix))
        if members:
            returns = (format_number(_value(metrics, key)) for _, key in members)
            parts = [f"R_k {' '.join(returns)}"]
        else:
            parts = [f"return {format_number(_value(metrics, keys.TRAINING_RETURN))}"]
        teacher = _value(metrics, f"{keys.ENSEMBLE}/{keys.TEACHER}")
        if teacher >= 0:
            phases = _value(metrics, f"{keys.ENSEMBLE}/{keys.NUM_DISTILLATIONS}")
            parts.append(f"teacher {teacher:.0f} (phase {format_number(phases)})")
        return [*parts, self._evaluation] if self._evaluation else parts


def _value(metrics: Mapping[str, Any], key: str) -> float:
    value = metrics.get(key)
    return float(value) if isinstance(value, numbers.Real) else math.nan


def _evaluation_text(metrics: Mapping[str, Any]) -> str:
    best, worst = (_value(metrics, keys.evaluation_key(who)) for who in ("best", "worst"))
    if not math.isnan(best):
        return f"evaluation best {format_number(best)}, worst {format_number(worst)}"
    mean = _value(metrics, keys.EVALUATION_RETURN)
    return "" if math.isnan(mean) else f"evaluation {format_number(mean)}"
