"""How far the runs of a study or of `rllib train` are, from the files in their folder alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rllib_cikd.common import result_keys as keys
from rllib_cikd.common.errors import CommandError
from rllib_cikd.common.text import trial_label
from rllib_cikd.experiments.run_lock import in_use
from rllib_cikd.study.folder import CELLS_FILE, recorded_runs

#: What a run can be, in the order in which they are shown. Waiting: for a free CPU. Unfinished: it
#: was cut off, and goes on if the command is started again.
STATES = ("running", "failed", "unfinished", "waiting", "ended")

# By Tune's word. A paused trial waits for its scheduler.
_STATES = {"RUNNING": "running", "TERMINATED": "ended", "ERROR": "failed"}
# Bytes at the end of `result.json` that are read: a dozen results.
_TAIL = 300_000
# Results over which speed is measured. With an evaluation every 10 iterations, exactly one is in.
_SPEED_WINDOW = 10


@dataclass(frozen=True)
class RunState:
    """How far one run is. Figures that are not known yet are NaN.

    Attributes:
        name: The run's.
        state: One of `STATES`.
        steps, goal: Environment steps done, and those at which it ends.
        speed: Steps per second; of a running run.
        returns: R_k of each member.
        teacher: Index of the last one.
        evaluation_mean, evaluation_best: Of the members, at the last evaluation.
    """

    name: str
    state: str
    steps: float
    goal: float
    speed: float
    returns: list[float]
    teacher: float
    evaluation_mean: float
    evaluation_best: float

    @property
    def steps_left(self) -> float:
        """Those that are still to come; NaN without a goal."""
        if self.state in ("ended", "failed"):
            return 0.0
        done = 0.0 if math.isnan(self.steps) else self.steps
        return max(self.goal - done, 0.0)


@dataclass
class RunStates:
    """Reads the runs of a folder again and again; what has not changed is not read twice.

    Args:
        folder: Of a study, or of a run of `rllib train`.

    Raises:
        CommandError: If it is neither.
    """

    folder: Path
    _records: dict[Path, _Read] = field(default_factory=dict)
    _results: dict[Path, _Read] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise CommandError(f"{self.folder}: no such folder.")
        if not (self.folder / CELLS_FILE).is_file() and not _record_files(self.folder):
            raise CommandError(
                f"{self.folder}: no study, nor a run of `rllib train`. Give the folder that the "
                "command names as `results:`, such as ~/ray_results/quick."
            )

    def goes_on(self) -> bool:
        """Whether a command is training in the folder."""
        return in_use(self.folder)

    def read(self) -> list[RunState]:
        """All runs, in the order of `STATES`.

        Raises:
            CommandError: If the study's own file cannot be read.
        """
        goes_on = self.goes_on()
        runs = self._of_study(goes_on) or self._of_run(goes_on)
        return sorted(runs, key=lambda run: STATES.index(run.state))

    def _of_study(self, goes_on: bool) -> list[RunState]:
        try:
            cells = recorded_runs(self.folder)
        except ValueError as error:
            raise CommandError(f"{self.folder / CELLS_FILE} cannot be read: {error}.") from error
        trials: dict[Path, dict[str, Any]] = {}
        for session in {cell["session"] for cell in cells.values()}:
            trials |= self._trials(self.folder / session)
        states = []
        for name, cell in cells.items():
            path = self.folder / cell["session"] / name
            status = trials.get(path, {}).get("status")
            states.append(self._state(name, path, status, cell["steps"], goes_on))
        return states

    def _of_run(self, goes_on: bool) -> list[RunState]:
        trials = self._trials(self.folder)
        states = []
        for path, trial in trials.items():
            label = trial_label(trial["experiment_tag"]) if len(trials) > 1 else self.folder.name
            goal = trial["stopping_criterion"].get(keys.STEPS, math.nan)
            states.append(self._state(label, path, trial["status"], goal, goes_on))
        return states

    def _trials(self, session: Path) -> dict[Path, dict[str, Any]]:
        """What Tune's record says of each trial, by its folder."""
        files = _record_files(session)
        if not files:
            return {}
        read = self._records.setdefault(session, _Read())
        if read.has_changed(files[-1]):
            try:
                record = json.loads(files[-1].read_text())
                trials = [json.loads(state) for state, _ in record["trial_data"]]
            except ValueError:  # Tune is just writing it
                read.forget()
            else:
                read.content = {session / trial["relative_logdir"]: trial for trial in trials}
        return read.content or {}

    def _state(
        self, name: str, path: Path, status: str | None, goal: float, goes_on: bool
    ) -> RunState:
        results = self._last_results(path / "result.json")
        last = results[-1] if results else {}
        begun = "running" if results else "waiting"
        state = _STATES.get(status or "", begun if status is None else "waiting")
        steps = _number(last, keys.STEPS)
        if state == "running" and last.get("done") and not steps < goal:  # Tune's record lags
            state = "ended"
        elif not goes_on and state in ("running", "waiting"):
            state = "unfinished"
        ensemble, evaluated = (
            part.get(keys.ENSEMBLE) or {} for part in (last, last.get("evaluation") or {})
        )
        return RunState(
            name,
            state,
            steps,
            goal,
            _speed(results) if state == "running" else math.nan,
            _in_order(ensemble.get(keys.RETURN_MEAN) or {}),
            _number(ensemble, keys.TEACHER),
            _number(evaluated, keys.summary_key("mean")),
            _number(evaluated, keys.summary_key("best")),
        )

    def _last_results(self, file: Path) -> list[dict[str, Any]]:
        """Those at the end of a `result.json`; of a line that is being written, nothing."""
        read = self._results.setdefault(file, _Read())
        if read.has_changed(file):
            with file.open("rb") as content:
                content.seek(max(0, file.stat().st_size - _TAIL))
                lines = content.read().splitlines()
            read.content = []
            for line in lines[-_SPEED_WINDOW - 2 :]:
                try:
                    read.content.append(json.loads(line))
                except ValueError:
                    continue
        return read.content or []


@dataclass
class _Read:
    """What was last read of a file."""

    content: Any = None
    _version: tuple[str, int, int] | None = None

    def has_changed(self, file: Path) -> bool:
        """Whether it is to be read now."""
        try:
            found = file.stat()
        except OSError:
            return False
        version = str(file), found.st_mtime_ns, found.st_size
        changed, self._version = version != self._version, version
        return changed

    def forget(self) -> None:
        """Has it read again."""
        self._version = None


def _record_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("experiment_state-*.json"))


def _speed(results: Sequence[Mapping[str, Any]]) -> float:
    """Steps per second of the last results; the first one only says where they begin."""
    recent = results[-_SPEED_WINDOW - 1 :]
    seconds = sum(_number(result, "time_this_iter_s") for result in recent[1:])
    return (_number(recent[-1], keys.STEPS) - _number(recent[0], keys.STEPS)) / (
        seconds or math.nan
    )


def _in_order(members: Mapping[str, float]) -> list[float]:
    """Figures by member, "policy_10" after "policy_2"."""
    by_index = {int(name.rpartition("_")[2]): name for name in members}
    return [_number(members, by_index[index]) for index in sorted(by_index)]


def _number(part: Mapping[str, Any], key: str) -> float:
    value = part.get(key)
    return float(value) if isinstance(value, int | float) else math.nan
