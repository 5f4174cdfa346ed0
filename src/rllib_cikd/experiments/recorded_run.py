"""What a run was started with: how its file differs now, and how its goals are raised."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

import pyarrow.fs
from ray import tune
from ray.tune.execution.experiment_state import _find_newest_experiment_checkpoint
from ray.tune.experiment import Trial
from ray.tune.utils import flatten_dict

from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.experiment import Experiment
from rllib_cikd.experiments.search_space import domains

#: What `rllib train` sets by itself, by what the machine has.
_OF_THE_MACHINE = ("num_cpus_for_main_process",)


def recorded_trials(folder: str) -> list[Trial]:
    """The trials of a run as its record has them.

    Args:
        folder: Of the run, or its URI; after `mend_run`.
    """
    return list(tune.ExperimentAnalysis(folder).trials or [])


def differences(experiment: Experiment, trials: list[Trial], goals_given: bool) -> list[str]:
    """Where a file says something else than the run of it was started with.

    Args:
        experiment: What the file says now.
        trials: The run's.
        goals_given: Whether goals are given anew, so that the recorded ones do not matter.

    Returns:
        For each such field its name and both values.
    """
    fields = {key for settings in experiment.trial_configs for key in settings}
    fields |= {key for trial in trials for key in trial.config if key not in _OF_THE_MACHINE}
    drawn = {key for key, value in experiment.param_space.items() if any(domains(value))}
    drawn |= set(experiment.tuning.mutated or ())
    found = []
    for field in sorted(fields - drawn):
        now = _values([settings.get(field) for settings in experiment.trial_configs])
        if experiment.tuning.mutated and len(now) > 1:
            continue  # trials of a population take over each other's settings
        then = _values([trial.config.get(field) for trial in trials])
        if now != then:
            found.append(_difference(field, now, then))
    if not goals_given:
        then = _values([dict(trial.stopping_criterion) for trial in trials])
        now = _values([experiment.stop])
        if now != then:
            found.append(_difference("stop", now, then))
    return found


def raise_goals(folder: str, trials: list[Trial], stop: Mapping[str, float]) -> None:
    """Lets a run's trials go on until other results are reached; those of the record otherwise.

    Args:
        folder: Of the run, or its URI.
        trials: The run's, as it is recorded.
        stop: Laid over what each trial stops at; goals that it has reached already, and that are
            not given anew, no longer count. A trial that has ended goes on from its last
            checkpoint, unless it has reached one of these already.

    Raises:
        CommandError: If all trials have reached their goals, or one that would go on has no
            checkpoint to go on from.
    """
    goes_on = set()
    for trial in trials:
        reached = _reached(stop, trial)
        if trial.status != Trial.TERMINATED or not reached:
            goes_on.add(trial.trial_id)
        if trial.status == Trial.TERMINATED and not reached and trial.checkpoint is None:
            raise CommandError(
                f"--stop: {trial} has ended without a checkpoint to go on from. Start it anew "
                "without --resume."
            )
    if not goes_on:
        reached = _reached(stop, trials[0])
        raise CommandError(
            f"--stop: nothing goes on in {folder}, for every trial has reached "
            f"{' and '.join(reached)} already. Give a higher goal."
        )
    filesystem, path = pyarrow.fs.FileSystem.from_uri(folder)
    file = _find_newest_experiment_checkpoint(path, fs=filesystem)
    with filesystem.open_input_stream(file) as stream:
        record = json.loads(stream.read())
    reached_before: set[str] = set()
    by_id = {trial.trial_id: trial for trial in trials}
    for entry in record["trial_data"]:
        state = json.loads(entry[0])
        goals = {k: v for k, v in state["stopping_criterion"].items() if k not in stop}
        reached = _reached(goals, by_id[state["trial_id"]])
        reached_before |= {*reached}
        left = {k: v for k, v in goals.items() if _goal(k, v) not in reached}
        state["stopping_criterion"] = {**left, **stop}
        if state["trial_id"] in goes_on and state["status"] == Trial.TERMINATED:
            state["status"] = Trial.PENDING
        entry[0] = json.dumps(state, indent=2)
    with filesystem.open_output_stream(file) as stream:
        stream.write(json.dumps(record, indent=2).encode())
    if reached_before:
        print(
            f"rllib: note: {' and '.join(sorted(reached_before))} was reached before and ends no "
            "trial any more.",
            file=sys.stderr,
        )


def _reached(goals: Mapping[str, float], trial: Trial) -> list[str]:
    result = flatten_dict(trial.last_result or {})
    return [_goal(k, goal) for k, goal in goals.items() if result.get(k, -math.inf) >= goal]


def _goal(key: str, value: float) -> str:
    return f"{key} >= {value:g}"


def _values(values: list[Any]) -> list[str]:
    """Different values as text, in any order: as the record has them, of plain types."""
    texts = {json.dumps(value, default=_name, sort_keys=True) for value in values}
    return sorted(texts)


def _name(value: Any) -> str:
    return getattr(value, "__qualname__", None) or type(value).__qualname__


def _difference(field: str, now: list[str], then: list[str]) -> str:
    now_text, then_text = (
        " or ".join("unset" if text == "null" else text for text in texts) for texts in (now, then)
    )
    return f"{field} ({now_text} in the file, {then_text} in the run)"
