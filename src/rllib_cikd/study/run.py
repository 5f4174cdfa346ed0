"""Runs a study on Tune; a study that was cut off goes on where its checkpoints end.

A study's folder holds

- `cells.json`: the training runs begun so far, with their settings and the defaults of that time;
- `study.json`: its baseline, and `starts.jsonl`: how it was started, for the report;
- `session-1`, `session-2`, ...: a Tune experiment each. The first has the runs of the study's first
  start; others have those that were added to the study's file since;
- `raw`: the figures of each run, `NAME.evaluations.csv` and `NAME.phases.csv`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune.experiment import Trial

from rllib_cikd.common.errors import CommandError
from rllib_cikd.common.files import write_whole
from rllib_cikd.common.result_keys import STEPS
from rllib_cikd.experiments import interrupt
from rllib_cikd.experiments.kept_modules import ModulesKeeper
from rllib_cikd.experiments.outcome import state
from rllib_cikd.experiments.resume import mend_run, restore_tuner
from rllib_cikd.experiments.tensorboard import TensorBoard
from rllib_cikd.experiments.tune_record import ProgressFile, RecordKeeper
from rllib_cikd.study.folder import CELLS_FILE, STUDY_FILE, recorded_cells
from rllib_cikd.study.plan import Cell, Study
from rllib_cikd.study.raw_figures import write_raw
from rllib_cikd.study.study_progress import StudyProgress

#: In a trial's config: the name of its cell. Algorithms do not look at keys with underscores.
CELL_KEY = "__cell__"
# With a replay buffer each, checkpoints of dozens of runs are large: only the newest is kept.
_CHECKPOINTS = {"checkpoint_frequency": 50, "checkpoint_at_end": True, "num_to_keep": 1}


class Horizons(tune.Stopper):
    """Ends each run at its own number of environment steps."""

    def __init__(self, steps: Mapping[str, int]):
        self._steps = dict(steps)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return result.get(STEPS, 0) >= self._steps[result["config"][CELL_KEY]]

    def stop_all(self) -> bool:
        return False


class RawWriter(tune.Callback):
    """Writes the raw figures of each run as soon as it has ended."""

    def __init__(self, folder: Path, cells: Sequence[Cell]):
        self._folder = folder
        self._runs = {cell.name: (cell.variant, cell.steps) for cell in cells}

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info) -> None:
        # Not `trial.path`: Tune copies results there every few seconds.
        name, folder = cell_name(trial), Path(trial.local_path or "")
        write_raw(folder, *self._runs[name], self._folder, name)


def cell_name(trial: Trial) -> str:
    """Which of the study's runs a trial is."""
    return trial.config[CELL_KEY]


def run_study(study: Study, folder: Path) -> list[tune.Result]:
    """Trains those runs of a study that have not ended yet; returns all that it has now.

    Raises:
        CommandError: If the folder has a run of the same name with other settings.
    """
    sessions = _sessions(folder, study)
    # Of a session that was killed before Tune had written a record, nothing is left to go on with.
    begun = {
        name: entry
        for name, entry in recorded_cells(folder).items()
        if entry["session"] in [session.name for session in sessions]
    }
    defaults = _defaults(study)
    settings = _settings(study, defaults)
    _check_unchanged(settings, begun, defaults, folder)
    write_whole(folder / STUDY_FILE, json.dumps({"baseline": study.baseline}) + "\n")
    results: list[tune.Result] = []
    for session in sessions:
        names = {name for name, entry in begun.items() if entry["session"] == session.name}
        results += _resume(study, session, names)
        if any(state(result) == "unfinished" for result in results):
            return results  # interrupted
    new = [cell for cell in study.cells if cell.name not in begun]
    if new:
        session = folder / f"session-{1 + max(map(_session_number, sessions), default=0)}"
        entries = {cell.name: {**settings[cell.name], "session": session.name} for cell in new}
        write_whole(folder / CELLS_FILE, json.dumps(begun | entries, indent=1) + "\n")
        results += _start(study, new, session)
    return results


def _sessions(folder: Path, study: Study) -> list[Path]:
    """Those that can be resumed, the first one first; others are removed."""
    sessions = []
    for session in sorted(folder.glob("session-*"), key=_session_number):
        if mend_run(str(session), study.algorithm):
            sessions.append(session)
        else:
            shutil.rmtree(session)
    return sessions


def collect_raw(folder: Path) -> None:
    """Writes the raw figures of every run of a study as far as it is, ended or not.

    Those that are newer than the results which Tune has copied here stay: a command that is killed
    as a run ends has written its figures already, but not yet all of its results.
    """
    for name, entry in recorded_cells(folder).items():
        trial, raw = folder / entry["session"] / name, folder / "raw"
        results, written = trial / "result.json", raw / f"{name}.phases.csv"
        if not results.is_file():
            continue
        if not written.is_file() or written.stat().st_mtime <= results.stat().st_mtime:
            write_raw(trial, entry["variant"], entry["steps"], raw, name)


def _start(study: Study, cells: Sequence[Cell], session: Path) -> list[tune.Result]:
    steps = {cell.name: cell.steps for cell in cells}
    tuner = tune.Tuner(
        study.algorithm,
        param_space={"grid_search": [{**cell.config, CELL_KEY: cell.name} for cell in cells]},
        tune_config=tune.TuneConfig(
            trial_name_creator=cell_name,
            trial_dirname_creator=cell_name,
            scheduler=interrupt.PausedByASignal(),
        ),
        run_config=tune.RunConfig(
            name=session.name,
            storage_path=str(session.parent),
            stop=Horizons(steps),
            checkpoint_config=tune.CheckpointConfig(**_CHECKPOINTS),
            callbacks=[
                RawWriter(session.parent / "raw", cells),
                StudyProgress(study.name, steps),
                RecordKeeper(),
                ProgressFile(),
                ModulesKeeper(study.modules),
                TensorBoard(),
                interrupt.EndedByASignal(),
            ],
            verbose=0,
        ),
    )
    with interrupt.after_a_checkpoint():
        return list(tuner.fit())


def _resume(study: Study, session: Path, names: set[str]) -> list[tune.Result]:
    """Goes on with those of a session's runs that have not ended, if there are any."""
    tuner = restore_tuner(str(session), study.algorithm)
    trials = tune.ExperimentAnalysis(str(session)).trials
    ended = {str(trial) for trial in trials if trial.status == Trial.TERMINATED}
    if names <= ended:
        return list(tuner.get_results())
    with interrupt.after_a_checkpoint():
        return list(tuner.fit())


def _defaults(study: Study) -> dict[str, Any]:
    """Those of the algorithm's own settings: RLlib's plain config has not, or not so."""
    common = AlgorithmConfig().to_dict()
    own = study.algorithm.get_default_config().to_dict()
    return _plain({k: value for k, value in own.items() if k not in common or common[k] != value})


def _settings(study: Study, defaults: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What `cells.json` says of each run: its settings, over the defaults of its algorithm."""
    return {
        cell.name: {
            "variant": cell.variant,
            "steps": cell.steps,
            "config": {**defaults, **_plain(cell.config)},
        }
        for cell in study.cells
    }


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it."""
    return json.loads(json.dumps(dict(config), default=str))


def _check_unchanged(
    settings: Mapping[str, dict[str, Any]],
    begun: Mapping[str, dict[str, Any]],
    defaults: Mapping[str, Any],
    folder: Path,
) -> None:
    """Refuses runs that go on with other settings.

    One that is not recorded did not exist when the run was begun, and is at its default.
    """
    for name in [name for name in settings if name in begun]:
        old = {**defaults, **begun[name]["config"], "steps": begun[name]["steps"]}
        new = {**settings[name]["config"], "steps": settings[name]["steps"]}
        for key in sorted(set(old) | set(new)):
            if old.get(key) != new.get(key):
                raise CommandError(
                    f"{name} was begun in {folder} with {key}={old.get(key)!r}; now it is "
                    f"{new.get(key)!r}. Runs of different settings cannot be compared: undo the "
                    "change (where it is a default that has changed, set it in the study's "
                    "`config`), or give the study a new folder with --experiment-name."
                )


def _session_number(session: Path) -> int:
    return int(session.name.rpartition("-")[2])
