"""Where the runs of a session end, and which of them go on when it is restored."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.utils.serialization import TuneFunctionEncoder

from rllib_cikd.common.files import write_whole
from rllib_cikd.common.result_keys import STEPS
from rllib_cikd.experiments.interrupt import PausedByASignal
from rllib_cikd.experiments.tune_record import newest_record

#: In a trial's config: the name of its cell. Algorithms do not look at keys with underscores.
CELL_KEY = "__cell__"


def cell_name(trial: Trial) -> str:
    """Which of the study's runs a trial is."""
    return trial.config[CELL_KEY]


class Horizons(tune.Stopper):
    """Ends each run at its own number of environment steps.

    Args:
        steps: By name of the run.
    """

    def __init__(self, steps: Mapping[str, int]):
        self._steps = dict(steps)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return result.get(STEPS, 0) >= self._steps[result["config"][CELL_KEY]]

    def stop_all(self) -> bool:
        return False


class LeavesOthersAlone(PausedByASignal):
    """Starts no other runs than these, and pauses them after a signal.

    Tune makes the trials of a session a few at a time, so that its record may not know all yet.

    Args:
        names: The runs'.
    """

    def __init__(self, names: Collection[str]):
        super().__init__()
        self._names = set(names)

    def on_trial_add(self, tune_controller, trial: Trial) -> None:
        if cell_name(trial) not in self._names:
            trial.init_local_path()  # names its folder, as Tune does when a trial starts
            trial.set_status(Trial.TERMINATED)
        super().on_trial_add(tune_controller, trial)


def set_horizons(session: Path, steps: Mapping[str, int]) -> None:
    """Has Tune's record of a session say which trials go on, and where they end.

    Those that end earlier than these steps go on, whether or not they had ended. Those that are
    not named count as ended, until they are named again.

    Args:
        session: Its folder, whose record is whole; `mend_run` is to come after it.
        steps: By name of the run.
    """
    file = newest_record(session)
    record = json.loads(file.read_text())
    for i, (state, run_state) in enumerate(record["trial_data"]):
        trial = Trial.from_json_state(state, stub=True)
        trial.restore_run_metadata(run_state)
        horizon = steps.get(cell_name(trial))
        if horizon is None:
            trial.status = Trial.TERMINATED
        else:
            trial.stopping_criterion = {STEPS: horizon}
            if trial.status == Trial.TERMINATED and trial.last_result.get(STEPS, 0) < horizon:
                trial.status = Trial.PENDING
        trial.stub = False  # it was one only here
        trial.invalidate_json_state()
        record["trial_data"][i] = trial.get_json_state()
    record["runner_data"]["_stopper"] = Horizons(steps)  # Tune restores it from here
    write_whole(file, json.dumps(record, indent=2, cls=TuneFunctionEncoder))


def replace_stored(
    tuner: tune.Tuner, names: Collection[str], callbacks: Sequence[tune.Callback]
) -> None:
    """Has a restored tuner use what is given here, and not what Tune has stored.

    Args:
        tuner: Of `restore_tuner`.
        names: Of the runs that are trained.
        callbacks: All of the package's own.
    """
    internal: Any = tuner._local_tuner
    internal._run_config.callbacks = list(callbacks)
    internal._tune_config.scheduler = LeavesOthersAlone(names)
