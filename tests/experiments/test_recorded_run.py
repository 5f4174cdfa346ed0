"""What a run was started with, against its file; and goals that are raised."""

from __future__ import annotations

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest
from ray import tune

from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.experiment import Experiment
from rllib_cikd.experiments.recorded_run import differences, raise_goals
from rllib_cikd.experiments.tuning import Tuning


def trial(result=None, status="TERMINATED", checkpoint="c", stop=None, **config):
    return SimpleNamespace(
        trial_id="0",
        config=config,
        stopping_criterion=stop or {"training_iteration": 5},
        last_result=result or {"training_iteration": 5, "ensemble": {"teacher": math.nan}},
        status=status,
        checkpoint=checkpoint,
    )


def experiment(*trial_configs, stop=None, **param_space):
    return Experiment(
        name="e",
        algorithm=None,  # type: ignore[arg-type]
        param_space=param_space,
        trial_configs=list(trial_configs),
        stop=stop or {"training_iteration": 5},
        num_samples=1,
        checkpoint_config=tune.CheckpointConfig(),
    )


def test_a_file_that_has_not_changed():
    nets = {"fcnet_hiddens": [8, 8]}
    now = experiment({"seed": 0, "m": nets, "env": trial}, {"seed": 1, "m": nets, "env": trial})
    recorded = [
        trial(seed=1, m=dict(nets), env=trial, num_cpus_for_main_process=2),
        trial(seed=0, m=dict(nets), env=trial, num_cpus_for_main_process=2),
    ]
    assert differences(now, recorded, goals_given=False) == []


def test_changed_fields_are_named_with_both_values():
    now = experiment({"actor_lr": 0.1, "tau": 0.5}, stop={"training_iteration": 9})
    recorded = [trial(actor_lr=0.2, gamma=0.9)]
    changed = [
        "actor_lr (0.1 in the file, 0.2 in the run)",
        "gamma (unset in the file, 0.9 in the run)",
        "tau (0.5 in the file, unset in the run)",
    ]
    assert differences(now, recorded, goals_given=True) == changed
    assert differences(now, recorded, goals_given=False) == [
        *changed,
        'stop ({"training_iteration": 9} in the file, {"training_iteration": 5} in the run)',
    ]


def test_values_that_are_drawn_are_not_compared():
    now = experiment({"actor_lr": 0.1}, actor_lr=tune.uniform(0, 1))
    assert differences(now, [trial(actor_lr=0.2)], goals_given=True) == []
    now = experiment({"a": {"b": [0.1]}}, a={"b": [tune.uniform(0, 1)]})
    assert differences(now, [trial(a={"b": [0.2]})], goals_given=True) == []


def test_what_a_populations_trials_take_over_is_not_compared():
    """Of `tau` they have two values in the file, and one after the better trial has been copied;
    `gamma` nobody changes."""
    now = experiment(*({"actor_lr": 0.1, "tau": t, "gamma": 0.9} for t in (0.5, 0.6)))
    recorded = [trial(actor_lr=lr, tau=0.5, gamma=0.8) for lr in (0.2, 0.3)]
    assert len(differences(now, recorded, goals_given=True)) == 3
    now = dataclasses.replace(now, tuning=Tuning(mutated={"actor_lr": [0.1, 0.2, 0.3]}))
    assert differences(now, recorded, goals_given=True) == [
        "gamma (0.9 in the file, 0.8 in the run)"
    ]


def test_a_goal_that_was_reached_does_not_stop_a_run_that_goes_on(tmp_path, capsys):
    goals = {"training_iteration": 5, "evaluation/x": -150, "time_total_s": 9}
    state = {"trial_id": "0", "status": "TERMINATED", "stopping_criterion": goals}
    file = tmp_path / "experiment_state-2026-01-31_12-00-00.json"
    file.write_text(json.dumps({"trial_data": [[json.dumps(state), "{}"]]}))
    result = {"training_iteration": 5, "evaluation": {"x": -140}, "time_total_s": 2}
    ended = trial(result, stop=goals)
    raise_goals(str(tmp_path), [ended], {"training_iteration": 9})
    ((text, _),) = json.loads(file.read_text())["trial_data"]
    assert json.loads(text)["stopping_criterion"] == {"training_iteration": 9, "time_total_s": 9}
    assert json.loads(text)["status"] == "PENDING"
    assert "note: evaluation/x >= -150 was reached before" in capsys.readouterr().err


def test_goals_that_are_reached_already():
    with pytest.raises(CommandError, match=r"reached training_iteration >= 4 already\. Give"):
        raise_goals("f", [trial()], {"training_iteration": 4})


def test_without_a_checkpoint_nothing_goes_on():
    with pytest.raises(CommandError, match="has ended without a checkpoint to go on from"):
        raise_goals("f", [trial(checkpoint=None)], {"training_iteration": 9})
