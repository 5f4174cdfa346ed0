"""Results: keys that never change, counters, and iterations of so many steps."""

from __future__ import annotations

import math

import envs
import pytest
from helpers import MEMBERS, flat, small_config, train

RESULT_KEYS = {
    "num_env_steps_sampled_lifetime",
    "timesteps_total",
    "ensemble/teacher",
    "ensemble/num_distillations_lifetime",
    "ensemble/distillation/time_s",
    *(f"ensemble/{name}/{m}" for name in ("return_mean", "times_teacher") for m in MEMBERS),
    *(f"ensemble/episodes_lifetime/{m}" for m in MEMBERS),
    *(
        f"ensemble/distillation/{name}_{when}/{m}"
        for name in ("kl", "critic_loss")
        for when in ("before", "after")
        for m in MEMBERS
    ),
    *(
        f"learners/{m}/{name}"
        for name in ("qf_loss", "policy_loss", "alpha_value", "qf_mean", "logps")
        for m in MEMBERS
    ),
}
EVALUATION_KEYS = {
    *(f"evaluation/ensemble/return_mean/{m}" for m in MEMBERS),
    *(f"evaluation/ensemble/{who}_return_mean" for who in ("best", "worst", "mean", "elected")),
    "evaluation/ensemble/best_policy",
    "evaluation/env_runners/episode_return_mean",
}
#: Of this iteration's evaluation alone.
SCORES = {f"evaluation_{who}_return_mean" for who in ("best", "worst", "mean", "elected")}
ASSESSMENT_KEYS = {
    "ensemble/distillation/students_above_teacher",
    *(f"ensemble/distillation/return_{when}/{m}" for when in ("before", "after") for m in MEMBERS),
}
#: Part of results whose keys must not change, because Tune's CSV fixes its columns at once.
OURS = ("ensemble/", "evaluation/", "learners/")


@pytest.mark.parametrize("assess", [False, True])
def test_every_result_key_is_there_from_the_first_iteration_on(build, assess):
    config = small_config(
        envs.DriftEnv,
        steps_per_iteration=50,
        random_steps=120,
        assess_distillation=assess,
    ).evaluation(evaluation_interval=3, evaluation_duration=2)
    algo = build(config)
    results = [flat(algo.train()) for _ in range(7)]
    expected = RESULT_KEYS | EVALUATION_KEYS | SCORES | (ASSESSMENT_KEYS if assess else set())
    for i, result in enumerate(results, start=1):
        missing = sorted(expected - set(result))
        assert not missing, f"iteration {i} misses {missing}"
    first = {key for key in results[0] if key.startswith(OURS)}
    for i, result in enumerate(results, start=1):
        assert {key for key in result if key.startswith(OURS)} == first, f"iteration {i}"
    for i, result in enumerate(results, start=1):
        for key in SCORES:
            nested = result[key.replace("evaluation_", "evaluation/ensemble/")]
            assert repr(result[key]) == repr(nested if i in (3, 6) else math.nan), (i, key)
    # In the end there are numbers behind them, save for the teacher's distance to itself.
    last = results[-1]
    teacher = f"policy_{last['ensemble/teacher']}"
    unknown = {key for key in expected - SCORES if math.isnan(last[key])}
    assert unknown == {
        f"ensemble/distillation/{name}_{when}/{teacher}"
        for name in ("kl", "critic_loss")
        for when in ("before", "after")
    }


def test_results_without_knowledge_sharing_have_no_distillation(build):
    algo = build(small_config(envs.DriftEnv, knowledge_sharing="none"))
    result = flat(train(algo, 200))
    assert not [key for key in result if key.startswith("ensemble/distillation/")]
    assert result["ensemble/num_distillations_lifetime"] == 0


def test_counters_of_the_result(build):
    algo = build(small_config(envs.CountingEnv, env_config={"lengths": [7, 3]}))
    result = train(algo, 300)
    assert result["num_env_steps_sampled_lifetime"] == 300
    assert result["timesteps_total"] == 300
    assert result["training_iteration"] == 3
    assert sum(result["ensemble"]["episodes_lifetime"].values()) == 60
    trained = result["learners"]["__all_modules__"]["num_env_steps_trained_lifetime"]
    assert trained == 250 * 8


def test_an_iteration_is_a_number_of_steps_whatever_time_they_take(build):
    algo = build(small_config(envs.DriftEnv, steps_per_iteration=150))
    steps = [algo.train()["num_env_steps_sampled_lifetime"] for _ in range(3)]
    assert steps == [150, 300, 450]
