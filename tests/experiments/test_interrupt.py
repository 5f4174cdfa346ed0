"""The scheduler that ends a run after a signal, around another one."""

import math
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining

from rllib_cikd.experiments.interrupt import PausedByASignal


class FakeTrial:
    """What schedulers look at."""

    experiment_tag = "0"

    def __init__(self, trial_id: str, status: str = "RUNNING"):
        self.trial_id, self.status, self.config = trial_id, status, {"actor_lr": 1e-4}
        config = SimpleNamespace(num_to_keep=4)
        manager = SimpleNamespace(checkpoint_config=config, _latest_checkpoint_result=None)
        self.run_metadata = SimpleNamespace(checkpoint_manager=manager)

    def is_finished(self) -> bool:
        return self.status in ("ERROR", "TERMINATED")


def controller(*trials: FakeTrial) -> SimpleNamespace:
    return SimpleNamespace(
        search_alg=None, get_trials=lambda: list(trials), get_live_trials=lambda: set(trials)
    )


def test_trials_are_compared_where_the_metric_was_measured():
    """Without the rule, ASHA would let the second trial pass its first comparison unmeasured."""
    scheduler = PausedByASignal(ASHAScheduler(grace_period=1, reduction_factor=8, max_t=9))
    assert scheduler.set_search_properties("m", "max")
    assert scheduler.metric == "m"
    trials = FakeTrial("good"), FakeTrial("bad")
    decisions = []
    for trial, returns in zip(trials, ([math.nan, 5.0], [math.nan, 1.0]), strict=True):
        scheduler.on_trial_add(controller(*trials), trial)
        for i, value in enumerate(returns, start=1):
            result = {"training_iteration": i, "m": value}
            decisions.append(scheduler.on_trial_result(controller(*trials), trial, result))
    assert decisions == ["CONTINUE", "CONTINUE", "CONTINUE", "STOP"]


@pytest.mark.parametrize("status", ["ERROR", "RUNNING"])
def test_a_population_does_not_wait_for_a_trial_that_failed(status):
    scheduler = PausedByASignal(
        PopulationBasedTraining(
            time_attr="training_iteration",
            perturbation_interval=2,
            hyperparam_mutations={"actor_lr": [1e-4, 1e-3]},
            synch=True,
        )
    )
    scheduler.set_search_properties("m", "max")
    waiting, other = FakeTrial("waiting"), FakeTrial("other")
    tune = controller(waiting, other)
    for trial in (waiting, other):
        scheduler.on_trial_add(tune, trial)
    result = {"training_iteration": 2, "m": 1.0}
    assert scheduler.on_trial_result(tune, waiting, result) == "PAUSE"
    waiting.status, other.status = "PAUSED", status
    expected = waiting if status == "ERROR" else None
    assert scheduler.choose_trial_to_run(tune) is expected
