"""Ctrl-C and SIGTERM end a run after a checkpoint, so that nothing of it is lost.

Trials are paused as soon as their iteration is over, which writes a checkpoint, and then Tune's
loop ends. Tune's own way is to leave them where they are.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, PopulationBasedTraining, TrialScheduler

#: The signal that was received; None: none was. Not in the scheduler, which Tune stores.
_received: int | None = None

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


def exit_code() -> int | None:
    """128 + the signal that was received; None if none was."""
    return None if _received is None else 128 + _received


@contextmanager
def after_a_checkpoint() -> Iterator[None]:
    """Within it, the first Ctrl-C or SIGTERM only asks for the end, the second one ends at once."""
    global _received
    _received = None
    before = {number: signal.getsignal(number) for number in _NAMES}
    disabled = os.environ.get("TUNE_DISABLE_SIGINT_HANDLER")
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    for number in _NAMES:
        signal.signal(number, _ask_for_the_end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if disabled is None:
            del os.environ["TUNE_DISABLE_SIGINT_HANDLER"]
        else:
            os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = disabled


def _ask_for_the_end(number: int, frame: object) -> None:
    global _received
    if _received is not None:
        raise KeyboardInterrupt
    _received = number
    name = _NAMES[signal.Signals(number)]
    print(
        f"\n{name}: ending after the current iteration, with a checkpoint; again: at once",
        file=sys.stderr,
        flush=True,
    )


class PausedByASignal(TrialScheduler):
    """Another scheduler that, after a signal, pauses each trial when its iteration is over.

    The other one decides by results in which its metric was measured: where the metric is NaN, as
    between two evaluations, the trial goes on.

    Args:
        scheduler: The other one; None for Tune's default, which lets trials run to their end.
    """

    def __init__(self, scheduler: TrialScheduler | None = None):
        super().__init__()
        self._scheduler = scheduler or FIFOScheduler()

    @property
    def metric(self) -> str | None:
        return self._scheduler.metric

    @property
    def supports_buffered_results(self) -> bool:
        return self._scheduler.supports_buffered_results

    def set_search_properties(self, metric: str | None, mode: str | None, **spec) -> bool:
        return self._scheduler.set_search_properties(metric, mode, **spec)

    def on_trial_add(self, tune_controller, trial: Trial) -> None:
        self._scheduler.on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller, trial: Trial) -> None:
        self._scheduler.on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller, trial: Trial, result: dict) -> str:
        if _received is not None:
            return TrialScheduler.PAUSE
        value = result.get(self.metric)
        if isinstance(value, float) and math.isnan(value):
            return TrialScheduler.CONTINUE
        return self._scheduler.on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller, trial: Trial, result: dict) -> None:
        self._scheduler.on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller, trial: Trial) -> None:
        self._scheduler.on_trial_remove(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller) -> Trial | None:
        if _received is not None:
            return None
        chosen = self._scheduler.choose_trial_to_run(tune_controller)
        if chosen is None and isinstance(self._scheduler, PopulationBasedTraining):
            # One that failed never comes to where the others would wait for it for ever.
            live = [t for t in tune_controller.get_trials() if not t.is_finished()]
            if live and all(trial.status == Trial.PAUSED for trial in live):
                return live[0]
        return chosen

    def debug_string(self) -> str:
        return self._scheduler.debug_string()


class EndedByASignal(tune.Callback):
    """After a signal, ends Tune's loop when no trial is running any more."""

    def on_step_end(self, iteration: int, trials: list[Trial], **info) -> None:
        if _received is not None and not any(trial.status == Trial.RUNNING for trial in trials):
            signal.raise_signal(signal.SIGUSR1)  # Tune's signal for it
