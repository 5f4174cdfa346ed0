"""Runs a study on Tune; a study that was cut off goes on where its checkpoints end.

A study's folder holds

- `cells.json`: the training runs begun so far, with their settings and the defaults of that time;
- `study.json`: its baseline, and the runs that its file asked for when it was last started;
- `starts.jsonl`: how it was started, for the report;
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
from rllib_cikd.experiments import interrupt
from rllib_cikd.experiments.kept_modules import ModulesKeeper
from rllib_cikd.experiments.outcome import state
from rllib_cikd.experiments.resume import mend_run, restore_tuner
from rllib_cikd.experiments.tensorboard import TensorBoard
from rllib_cikd.experiments.tune_record import ProgressFile, RecordKeeper, mend_record
from rllib_cikd.study.folder import CELLS_FILE, STUDY_FILE, recorded_cells
from rllib_cikd.study.horizons import (
    CELL_KEY,
    Horizons,
    LeavesOthersAlone,
    cell_name,
    replace_stored,
    set_horizons,
)
from rllib_cikd.study.plan import Cell, Study
from rllib_cikd.study.raw_figures import write_raw
from rllib_cikd.study.study_progress import StudyProgress

# With a replay buffer each, checkpoints of dozens of runs are large: only the newest is kept.
_CHECKPOINTS = {"checkpoint_frequency": 50, "checkpoint_at_end": True, "num_to_keep": 1}
# Of runs that are left alone, so many are named.
_NAMED = 3


class RawWriter(tune.Callback):
    """Writes the raw figures of each run as soon as it has ended."""

    def __init__(self, folder: Path, cells: Sequence[Cell]):
        self._folder = folder
        self._runs = {cell.name: _entry(cell) for cell in cells}

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info) -> None:
        # Not `trial.path`: Tune copies results there every few seconds.
        name, folder = cell_name(trial), Path(trial.local_path or "")
        write_raw(folder, self._runs[name], self._folder, name)


def run_study(study: Study, folder: Path) -> list[tune.Result]:
    """Trains those runs of a study that have not reached their horizon yet; returns all of it.

    Runs that the folder has beside those of the study are left alone.

    Raises:
        CommandError: If the folder has a run of the same name with other settings.
    """
    sessions = _sessions(folder)
    # Of a session that was killed before Tune had written a record, nothing is left to go on with.
    begun = {
        name: entry
        for name, entry in recorded_cells(folder).items()
        if entry["session"] in [session.name for session in sessions]
    }
    defaults = _defaults(study)
    settings = _settings(study, defaults)
    _check_unchanged(settings, begun, defaults, folder)
    _tell_left_alone([name for name in begun if name not in settings], folder)
    about = {"baseline": study.baseline, "runs": list(settings)}
    write_whole(folder / STUDY_FILE, json.dumps(about) + "\n")
    for name in [name for name in settings if name in begun]:
        task = begun[name].get("task", begun[name]["config"]["env"])
        if task != settings[name]["task"]:  # `collect_raw` writes its figures anew
            (folder / "raw" / f"{name}.phases.csv").unlink(missing_ok=True)
        begun[name] |= settings[name]
    write_whole(folder / CELLS_FILE, json.dumps(begun, indent=1) + "\n")
    cells_of: dict[Path, list[Cell]] = {}
    for cell in study.cells:
        if cell.name in begun:
            cells_of.setdefault(folder / begun[cell.name]["session"], []).append(cell)
    for session, cells in cells_of.items():
        set_horizons(session, {cell.name: cell.steps for cell in cells})
        mend_run(str(session), study.algorithm)
    results: list[tune.Result] = []
    for session in sorted(cells_of, key=_session_number):
        results += _resume(study, cells_of[session], session)
        if any(state(result) == "unfinished" for result in results):
            return results  # interrupted
    new = [cell for cell in study.cells if cell.name not in begun]
    if new:
        session = folder / f"session-{1 + max(map(_session_number, sessions), default=0)}"
        entries = {cell.name: {**settings[cell.name], "session": session.name} for cell in new}
        write_whole(folder / CELLS_FILE, json.dumps(begun | entries, indent=1) + "\n")
        results += _start(study, new, session)
    return results


def _sessions(folder: Path) -> list[Path]:
    """Those that can be resumed, the first one first; others are removed."""
    sessions = []
    for session in sorted(folder.glob("session-*"), key=_session_number):
        if mend_record(session):
            sessions.append(session)
        else:
            shutil.rmtree(session)
    return sessions


def _tell_left_alone(names: Sequence[str], folder: Path) -> None:
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        print(
            f"in {folder}, but not in the study's file, so left alone: "
            f"{', '.join(names[:_NAMED])}{more}",
            flush=True,
        )


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
            write_raw(trial, entry, raw, name)


def _start(study: Study, cells: Sequence[Cell], session: Path) -> list[tune.Result]:
    horizons = {cell.name: cell.steps for cell in cells}
    tuner = tune.Tuner(
        study.algorithm,
        param_space={"grid_search": [{**cell.config, CELL_KEY: cell.name} for cell in cells]},
        tune_config=tune.TuneConfig(
            trial_name_creator=cell_name,
            trial_dirname_creator=cell_name,
            scheduler=LeavesOthersAlone(horizons),
        ),
        run_config=tune.RunConfig(
            name=session.name,
            storage_path=str(session.parent),
            stop=Horizons(horizons),
            checkpoint_config=tune.CheckpointConfig(**_CHECKPOINTS),
            callbacks=_callbacks(study, cells, session),
            verbose=0,
        ),
    )
    with interrupt.after_a_checkpoint():
        return list(tuner.fit())


def _resume(study: Study, cells: Sequence[Cell], session: Path) -> list[tune.Result]:
    """Goes on with these runs of a session as far as they have not ended; returns all of them."""
    names = {cell.name for cell in cells}
    tuner = restore_tuner(str(session), study.algorithm)
    trials = tune.ExperimentAnalysis(str(session)).trials
    ended = {cell_name(trial) for trial in trials if trial.status == Trial.TERMINATED}
    if names <= ended:
        results = tuner.get_results()
    else:
        replace_stored(tuner, names, _callbacks(study, cells, session))
        with interrupt.after_a_checkpoint():
            results = tuner.fit()
    return [result for result in results if Path(result.path).name in names]


def _callbacks(study: Study, cells: Sequence[Cell], session: Path) -> list[tune.Callback]:
    return [
        RawWriter(session.parent / "raw", cells),
        StudyProgress(study.name, {cell.name: cell.steps for cell in cells}),
        RecordKeeper(),
        ProgressFile(),
        ModulesKeeper(study.modules),
        TensorBoard(),
        interrupt.EndedByASignal(),
    ]


def _defaults(study: Study) -> dict[str, Any]:
    """Those of the algorithm's own settings: RLlib's plain config has not, or not so."""
    common = AlgorithmConfig().to_dict()
    own = study.algorithm.get_default_config().to_dict()
    return _plain({k: value for k, value in own.items() if k not in common or common[k] != value})


def _settings(study: Study, defaults: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What `cells.json` says of each run: its settings, over the defaults of its algorithm."""
    return {
        cell.name: {**_entry(cell), "config": {**defaults, **_plain(cell.config)}}
        for cell in study.cells
    }


def _entry(cell: Cell) -> dict[str, Any]:
    return {"variant": cell.variant, "task": cell.task, "steps": cell.steps}


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it."""
    return json.loads(json.dumps(dict(config), default=str))


def _check_unchanged(
    settings: Mapping[str, dict[str, Any]],
    begun: Mapping[str, dict[str, Any]],
    defaults: Mapping[str, Any],
    folder: Path,
) -> None:
    """Refuses runs that go on with other settings, or end earlier.

    One that is not recorded did not exist when the run was begun, and is at its default.
    """
    for name in [name for name in settings if name in begun]:
        steps, horizon = (of[name]["steps"] for of in (begun, settings))
        if steps > horizon:
            raise CommandError(
                f"{name} was begun in {folder} with steps={steps}; now it is {horizon}. A horizon "
                "can be raised, not lowered: undo the change, or give the study a new folder with "
                "--experiment-name."
            )
        old, new = {**defaults, **begun[name]["config"]}, settings[name]["config"]
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
