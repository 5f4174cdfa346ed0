"""Live progress of a study: of each run, and how far the whole is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ray.tune.experiment import Trial

from rllib_cikd.common.result_keys import STEPS
from rllib_cikd.common.text import format_duration
from rllib_cikd.experiments.progress import ProgressCallback


class StudyProgress(ProgressCallback):
    """Shows how far each run is and, below the bars or after each run's end, how far the study is.

    Args:
        name: Of the study.
        steps: By name of the run, the environment steps at which it ends.
        min_interval_s: Without bars, a run prints at most once in so many seconds, save for its
            last report.
    """

    def __init__(self, name: str, steps: Mapping[str, int], min_interval_s: float = 30.0):
        super().__init__(name, several_trials=True, min_interval_s=min_interval_s)
        self._steps = dict(steps)
        self._start: tuple[float, float] | None = None  # when Tune has started, at which step
        self._trials: list[Trial] = []

    def label(self, trial: Trial) -> str:
        return str(trial)

    def goals(self, trial: Trial) -> Mapping[str, Any]:
        return {STEPS: self._steps[str(trial)]}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info) -> None:
        super().on_trial_start(iteration, trials, trial, **info)
        self._trials = trials
        if self._start is None:
            self._start = time.monotonic(), self._steps_done(trials)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info) -> None:
        super().on_trial_complete(iteration, trials, trial, **info)
        if not self.has_bars:
            print(self.summary(trials, ending=trial), flush=True)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info) -> None:
        super().on_trial_error(iteration, trials, trial, **info)
        print(f"{trial} failed. {self.summary(trials)}", flush=True)

    def footer(self) -> str:
        return self.summary(self._trials) if self._trials else ""

    def summary(self, trials: list[Trial], ending: Trial | None = None) -> str:
        """One line: how many runs have ended and, at the speed so far, the time left."""
        ended = {str(t) for t in trials if t.status == Trial.TERMINATED or t is ending}
        ended &= self._steps.keys()  # others are left alone
        done, goal = self._steps_done(trials), sum(self._steps.values())
        line = f"{self.name}: {len(ended)} of {len(self._steps)} runs ended"
        line += f", {done / goal:.0%} of all steps"
        if self._start is not None and self._start[1] < done < goal:
            seconds_per_step = (time.monotonic() - self._start[0]) / (done - self._start[1])
            line += f", {format_duration((goal - done) * seconds_per_step)} left"
        return line

    def _steps_done(self, trials: list[Trial]) -> float:
        """Of all runs; those that have not been started have no trial yet."""
        done = ((str(trial), trial.last_result.get(STEPS, 0)) for trial in trials)
        return sum(min(steps, self._steps[name]) for name, steps in done if name in self._steps)
