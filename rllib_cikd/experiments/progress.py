"""Live progress of a Tune experiment, one line a report, for a person to read."""

from __future__ import annotations

import math
import numbers
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.utils import flatten_dict

from rllib_cikd.common.result_keys import STEPS
from rllib_cikd.common.text import format_duration

# Reports over which speed is measured. With an evaluation every 10 iterations, exactly one is in.
_SPEED_WINDOW = 10
# Reports after which a stop criterion that is still missing is worth a word.
_PATIENCE = 10


class ProgressCallback(Callback):
    """Prints how far each trial is, how fast, and how its ensemble does.

    Args:
        name: The experiment's name; begins each line.
        several_trials: Whether lines also tell which trial they belong to.
        min_interval_s: A trial prints at most once in so many seconds, save for its last report.
    """

    def __init__(self, name: str, several_trials: bool = False, min_interval_s: float = 5.0):
        self.name = name
        self.several_trials = several_trials
        self.min_interval_s = min_interval_s
        self._printed_at: dict[str, float] = {}
        self._history: dict[str, deque[tuple[float, float, float]]] = {}
        self._reports: dict[str, int] = {}
        self._last_evaluation: dict[str, str] = {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info) -> None:
        # Also after a restore: speed must not count the time in between.
        self._history[trial.trial_id] = deque(maxlen=_SPEED_WINDOW + 1)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict, **info
    ) -> None:
        now, key = time.monotonic(), trial.trial_id
        metrics = flatten_dict({k: v for k, v in result.items() if k != "config"})
        self._reports[key] = self._reports.get(key, 0) + 1
        history = self._history.setdefault(key, deque(maxlen=_SPEED_WINDOW + 1))
        history.append((now, _value(metrics, STEPS), _value(metrics, "training_iteration")))
        evaluation = _evaluation_text(metrics)
        if evaluation:
            self._last_evaluation[key] = evaluation
        if self._reports[key] == _PATIENCE:
            self._warn_of_missing_criteria(trial, metrics)
        if not result.get("done") and now - self._printed_at.get(key, -math.inf) < (
            self.min_interval_s
        ):
            return
        self._printed_at[key] = now
        parts = [
            *_progress_parts(metrics, self.goals(trial), history),
            *_ensemble_parts(metrics),
            self._last_evaluation.get(key, ""),
        ]
        print(f"{self.label(trial)}  " + " | ".join(part for part in parts if part), flush=True)

    def label(self, trial: Trial) -> str:
        """What begins a line about this trial."""
        return self.name + (f" {trial_label(trial.experiment_tag)}" if self.several_trials else "")

    def goals(self, trial: Trial) -> Mapping[str, Any]:
        """Results and their values at which this trial stops."""
        return trial.stopping_criterion

    def _warn_of_missing_criteria(self, trial: Trial, metrics: Mapping[str, Any]) -> None:
        evaluated = any(key.startswith("evaluation/") for key in metrics)
        for key in trial.stopping_criterion:
            if key not in metrics and (evaluated or not key.startswith("evaluation/")):
                print(
                    f"{self.name}: `{key}` is in `stop`, but none of the last results has it. "
                    "If it is never reported, it never stops the trial.",
                    flush=True,
                )


def trial_label(experiment_tag: str) -> str:
    """Returns how lines name one of several trials: "#2 ensemble_size=5"."""
    number, _, settings = str(experiment_tag).partition("_")
    return f"#{number} {settings}".rstrip()


def format_number(value: Any) -> str:
    """Returns a return or count in few characters: "3,412", "-4.2", "-" for none."""
    number = float(value) if isinstance(value, numbers.Real) else math.nan
    if math.isnan(number):
        return "-"
    return f"{number:,.0f}" if abs(number) >= 100 or number.is_integer() else f"{number:.1f}"


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of cells as lines; the first column is aligned left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _value(metrics: Mapping[str, Any], key: str) -> float:
    value = metrics.get(key)
    return float(value) if isinstance(value, numbers.Real) else math.nan


def _progress_parts(
    metrics: Mapping[str, Any],
    stop: Mapping[str, Any],
    history: Sequence[tuple[float, float, float]],
) -> list[str]:
    """Steps done and to go, steps per second, time left (as far as `stop` tells)."""
    now, steps, iterations = history[-1]
    then, steps_then, iterations_then = history[0]
    elapsed = now - then
    steps_goal, iterations_goal = stop.get(STEPS), stop.get("training_iteration")
    done = f"{format_number(steps)} steps"
    shares, seconds_left = [], []
    if steps_goal:
        done = f"{format_number(steps)}/{format_number(steps_goal)} steps"
        shares.append(steps / steps_goal)
        if steps > steps_then:
            seconds_left.append((steps_goal - steps) * elapsed / (steps - steps_then))
    if iterations_goal:
        shares.append(iterations / iterations_goal)
        if iterations > iterations_then:
            seconds_left.append(
                (iterations_goal - iterations) * elapsed / (iterations - iterations_then)
            )
    shares = [share for share in shares if not math.isnan(share)]
    if shares:
        done += f" ({min(1.0, max(shares)):.0%})"
    speed = ""
    if elapsed > 0 and not math.isnan(steps - steps_then):
        speed = f"{format_number((steps - steps_then) / elapsed)} steps/s"
    left = ""
    if seconds_left and max(shares) < 1:
        left = f"{format_duration(min(seconds_left))} left"
    return [done, speed, left]


def _ensemble_parts(metrics: Mapping[str, Any]) -> list[str]:
    """R_k of each member and the last teacher; of other algorithms, the mean return."""
    prefix = "ensemble/return_mean/policy_"
    members = sorted((int(k.removeprefix(prefix)), k) for k in metrics if k.startswith(prefix))
    if not members:
        episode_return = _value(metrics, "env_runners/episode_return_mean")
        return [f"return {format_number(episode_return)}"]
    returns = " ".join(format_number(_value(metrics, key)) for _, key in members)
    teacher = _value(metrics, "ensemble/teacher")
    phases = _value(metrics, "ensemble/num_distillations_lifetime")
    if math.isnan(teacher) or teacher < 0:
        return [f"R_k {returns}"]
    return [f"R_k {returns}", f"teacher {teacher:.0f} (phase {format_number(phases)})"]


def _evaluation_text(metrics: Mapping[str, Any]) -> str:
    best = _value(metrics, "evaluation/ensemble/best_return_mean")
    worst = _value(metrics, "evaluation/ensemble/worst_return_mean")
    if not math.isnan(best):
        return f"evaluation best {format_number(best)}, worst {format_number(worst)}"
    mean = _value(metrics, "evaluation/env_runners/episode_return_mean")
    return "" if math.isnan(mean) else f"evaluation {format_number(mean)}"
