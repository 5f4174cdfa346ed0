"""What TensorBoard finds of a run: few tags under the results' names, and charts of them."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import envs
import numpy as np
import pytest
from helpers import flat, small_config
from ray.tune.experiment import Trial
from ray.tune.logger import TBXLoggerCallback
from ray.tune.utils.callback import _create_default_callbacks
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.layout_pb2 import Layout

from rllib_cikd import TensorBoard
from rllib_cikd.experiments.tensorboard import layout

MEMBERS = ("policy_0", "policy_1")
SUMMARIES = ("best", "worst", "mean", "elected")
TAGS = {
    *(f"ensemble/{name}/{m}" for name in ("return_mean", "times_teacher") for m in MEMBERS),
    "ensemble/teacher",
    *(
        f"ensemble/distillation/{name}_{when}/{m}"
        for name in ("kl", "critic_loss", "return")
        for when in ("before", "after")
        for m in MEMBERS
    ),
    *(
        f"ensemble/distillation/{name}"
        for name in ("time_s", "students_above_teacher", "teacher_was_best", "election_regret")
    ),
    *(f"evaluation/ensemble/return_mean/{m}" for m in MEMBERS),
    *(f"evaluation/ensemble/{who}_return_mean" for who in SUMMARIES),
    *(f"{where}/episode_len_mean" for where in ("env_runners", "evaluation/env_runners")),
    "env_runners/episode_return_mean",
    *(
        f"learners/{m}/{name}"
        for name in ("qf_loss", "policy_loss", "alpha_value", "qf_mean", "logps")
        for m in MEMBERS
    ),
    *(f"learners/__all_modules__/{name}_learning_rate" for name in ("actor", "critic", "alpha")),
    *(
        f"timers/{name}"
        for name in (
            "env_runner_sampling_timer",
            "learner_update_timer",
            "knowledge_sharing",
            "evaluation_iteration",
        )
    ),
    "speed/env_steps_per_second",
    "custom_scalars__config__",
}


def summaries(folder: Path) -> dict[str, list]:
    """By tag, the step and the summary of each figure in a folder's event files."""
    found: dict[str, list] = {}
    for file in folder.rglob("events.out.tfevents.*"):
        data, at = file.read_bytes(), 0
        while at < len(data):  # length, its checksum, the event, its checksum
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value))
            at += 16 + length
    return found


@pytest.fixture
def trial(tmp_path, monkeypatch):
    monkeypatch.setattr(Trial, "local_path", str(tmp_path))
    monkeypatch.setattr(Trial, "init_local_path", lambda self: None)
    return Trial("CIKD", stub=True)


@pytest.fixture
def logged(build, trial, tmp_path):
    """Returns the results of six iterations of 100 steps, and what TensorBoard has of them.

    There are evaluations at 200, 400 and 600 steps, phases at 200, 400 and 600.
    """
    config = small_config(
        envs.DriftEnv, ensemble_size=2, distillation_interval=200, assess_distillation=True
    ).evaluation(evaluation_interval=2, evaluation_duration=2)
    algo, logger = build(config), TensorBoard()
    logger.log_trial_start(trial)
    results = [algo.train() for _ in range(6)]
    for i, result in enumerate(results, start=1):
        result["mine"] = {"num_things": i, "frames": np.zeros((3, 4, 4), np.uint8)}
        logger.log_trial_result(i, trial, result)
    logger.log_trial_end(trial)
    return results, summaries(tmp_path)


def test_tags_are_few_and_figures_stand_where_they_were_taken(logged):
    results, found = logged
    last = flat(results[-1])
    teachers = {flat(result)["ensemble/teacher"] for result in results[1:]}
    to_itself = {
        f"ensemble/distillation/{name}_{when}/policy_{k}"
        for name in ("kl", "critic_loss")
        for when in ("before", "after")
        for k in teachers
        if len(teachers) == 1
    }
    own = {"mine/num_things", "ray/tune/mine/frames"}
    assert set(found) == (TAGS | own) - to_itself
    every, at_evaluations = [100 * i for i in range(1, 7)], [200, 400, 600]
    steps = {tag: [step for step, _ in values] for tag, values in found.items()}
    assert steps["learners/policy_1/qf_loss"] == every
    assert steps["mine/num_things"] == every
    assert steps["speed/env_steps_per_second"] == every
    assert steps["evaluation/ensemble/return_mean/policy_0"] == at_evaluations
    assert steps["ensemble/distillation/time_s"] == at_evaluations
    (_, value) = found["evaluation/ensemble/best_return_mean"][-1]
    assert value.simple_value == pytest.approx(last["evaluation/ensemble/best_return_mean"])
    (_, value) = found["speed/env_steps_per_second"][-1]
    assert value.simple_value == pytest.approx(100 / last["time_this_iter_s"])


def test_every_chart_has_curves(logged):
    _, found = logged
    ((_, summary),) = found["custom_scalars__config__"]
    assert summary.metadata.plugin_data.plugin_name == "custom_scalars"
    layout = Layout.FromString(summary.tensor.string_val[0])
    charts = {chart.title: chart for part in layout.category for chart in part.chart}
    curves = {
        title: {tag for tag in found for pattern in chart.multiline.tag if re.match(pattern, tag)}
        for title, chart in charts.items()
    }
    assert len(charts) == 12
    assert all(curves.values()), curves
    assert curves["every member: R_k (ensemble) and evaluation"] == {
        f"{part}ensemble/return_mean/{m}" for part in ("", "evaluation/") for m in MEMBERS
    }


def test_there_are_no_charts_without_curves(build):
    config = small_config(envs.DriftEnv, ensemble_size=1, knowledge_sharing="none")
    charts = layout(flat(build(config).train()))
    assert {category: list(titles) for category, titles in charts.items()} == {
        "Returns": ["every member: R_k (ensemble) and evaluation"],
        "Learning": ["critics' loss", "policy loss", "temperature", "mean Q"],
        "Speed": ["environment steps per second", "seconds of one fragment, phase, evaluation"],
    }


def test_after_a_resume_the_last_phase_is_not_told_again(trial, tmp_path):
    logger = TensorBoard()
    for i in (7, 8, 9):
        distillation = {"num_distillations_lifetime": 3 + (i == 9), "distillation": {"time_s": i}}
        result = {"num_env_steps_sampled_lifetime": 100 * i, "timesteps_total": 100 * i}
        logger.log_trial_result(
            i,
            trial,
            {**result, "training_iteration": i, "time_this_iter_s": 2.0, "ensemble": distillation},
        )
    logger.log_trial_end(trial)
    found = summaries(tmp_path)
    assert [(step, v.simple_value) for step, v in found["ensemble/distillation/time_s"]] == [
        (900, 9.0)
    ]
    assert [(step, v.simple_value) for step, v in found["speed/env_steps_per_second"]] == [
        (800, 50.0),
        (900, 50.0),
    ]


def test_tune_adds_no_tensorboard_logger_beside_it():
    callbacks = _create_default_callbacks([TensorBoard()])
    assert [type(c) for c in callbacks if isinstance(c, TBXLoggerCallback)] == [TensorBoard]
