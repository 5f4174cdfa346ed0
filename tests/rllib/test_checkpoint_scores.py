"""What checkpoints are scored by: nested figures too, of this step's evaluation alone."""

from __future__ import annotations

import math
from pathlib import Path

import envs
from helpers import SMALL_RUN
from ray import tune

from rllib_cikd import CIKD
from rllib_cikd.rllib.checkpoint_scores import checkpoint_metrics, scores

NESTED = "evaluation/ensemble/mean_return_mean"


def result(steps: int, evaluated_at: int) -> dict:
    return {
        "num_env_steps_sampled_lifetime": steps,
        "config": {"a": {"b": 1}},
        "ensemble": {"return_mean": {"policy_0": 3.0}},
        "evaluation": {
            "ensemble": {
                "num_env_steps_sampled_lifetime": evaluated_at,
                **{f"{who}_return_mean": i for i, who in enumerate(("best", "worst", "mean"))},
                "elected_return_mean": math.nan,
                "return_mean": {"policy_0": 7.0},
            }
        },
    }


def test_names_at_the_top_level():
    found = scores(result(10, 10))
    assert list(found) == [
        f"evaluation_{who}_return_mean" for who in ("best", "worst", "mean", "elected")
    ]
    assert list(found.values())[:3] == [0, 1, 2]
    assert all(math.isnan(value) for value in scores({"ensemble": {}}).values())


def test_nested_keys_are_at_the_top_level_of_a_checkpoints_metrics():
    metrics = checkpoint_metrics(result(10, 10))
    assert metrics[NESTED] == metrics["evaluation"]["ensemble"]["mean_return_mean"] == 2
    assert metrics["ensemble/return_mean/policy_0"] == 3.0
    assert metrics["evaluation/ensemble/return_mean/policy_0"] == 7.0
    assert metrics["config"] == {"a": {"b": 1}}
    assert "config/a/b" not in metrics
    assert checkpoint_metrics({}) == {}


def test_an_older_evaluation_is_no_score():
    metrics = checkpoint_metrics(result(20, 10))
    assert math.isnan(metrics[NESTED])
    assert math.isnan(metrics["evaluation"]["ensemble"]["return_mean"]["policy_0"])
    assert metrics["ensemble/return_mean/policy_0"] == 3.0


def test_tune_keeps_the_best_checkpoint(ray_cluster, tmp_path):
    """Evaluated at iterations 2, 4 and 6, of which the one at 4 is the best."""

    def set_return(algorithm, evaluation_metrics, **kwargs):
        value = {1: 1.0, 3: 5.0, 5: 2.0}[algorithm.iteration]
        evaluation_metrics["ensemble"]["mean_return_mean"] = value

    param_space = SMALL_RUN | {
        "env": envs.DriftEnv,
        "ensemble_size": 2,
        "evaluation_interval": 2,
        "callbacks_on_evaluate_end": set_return,
    }
    nested, named = (
        tune.Tuner(
            "CIKD",
            param_space=param_space,
            run_config=tune.RunConfig(
                name=attribute.replace("/", "_"),
                storage_path=str(tmp_path),
                stop={"training_iteration": 7},
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_frequency=1, num_to_keep=1, checkpoint_score_attribute=attribute
                ),
                verbose=0,
            ),
        ).fit()[0]
        for attribute in (NESTED, "evaluation_mean_return_mean")
    )
    for trial in (nested, named):
        frame = trial.metrics_dataframe
        assert frame[NESTED].iloc[1:].tolist() == [1, 1, 5, 5, 2, 2]
        column = frame["evaluation_mean_return_mean"]
        assert column.dropna().tolist() == [1, 5, 2]
        best, latest = trial.best_checkpoints[-1], trial.checkpoint
        assert best[1]["training_iteration"] == 4
        assert best[1][NESTED] == 5
        folders = sorted(path.name for path in Path(trial.path).glob("checkpoint_*"))
        assert folders == sorted(Path(c.path).name for c in (best[0], latest))
    algo = CIKD.from_checkpoint(nested.best_checkpoints[-1][0])
    assert algo.history.env_steps == 400
    algo.stop()
