"""A small study, and results of training as Tune writes them."""

from __future__ import annotations

import json
import math
from pathlib import Path

ROOT = Path(__file__).parents[1]

EXAMPLE = """\
small:
  run: CIKD
  env: Pendulum-v1
  stop: {timesteps_total: 50}
  config:
    random_steps: 200
    train_batch_size_per_learner: 32
    distillation_interval: 400
    distillation_updates: 3
    min_sample_timesteps_per_iteration: 200
    model_config: {fcnet_hiddens: [8, 8]}
    evaluation_interval: 2
    evaluation_duration: 2
"""
STUDY = """\
tuned_examples: [small]
variants: [vanilla-sac, cikd]
seeds: [0, 1]
steps: 1000
config: {assess_distillation: true}
"""


def result(iteration: int, evaluated: int | None, phases: int, **ensemble) -> dict:
    """A result of two members, as Tune writes it."""
    nan = math.nan
    returns = {"policy_0": 10.0 * iteration, "policy_1": 20.0 * iteration}
    return {
        "training_iteration": iteration,
        "num_env_steps_sampled_lifetime": 100 * iteration,
        "time_total_s": 1.5 * iteration,
        "config": {"env": "Task-v0", "seed": 7},
        "evaluation": {
            "ensemble": {
                "num_env_steps_sampled_lifetime": nan if evaluated is None else evaluated,
                "return_mean": returns,
                **{f"{who}_return_mean": 5.0 for who in ("best", "worst", "mean")},
                "elected_return_mean": nan,
            }
        },
        "ensemble": {
            "return_mean": returns,
            "teacher": nan if phases == 0 else 1,
            "num_distillations_lifetime": phases,
            "distillation": {
                "kl_before": {"policy_0": 8.0, "policy_1": nan},
                "kl_after": {"policy_0": 0.123456789, "policy_1": nan},
                "critic_loss_before": {"policy_0": 4.0, "policy_1": nan},
                "critic_loss_after": {"policy_0": 2.0, "policy_1": nan},
                "time_s": 0.5,
                **ensemble,
            },
        },
    }


def write_results(folder: Path, *results: dict, tail: str = "") -> Path:
    (folder / "result.json").write_text("".join(f"{json.dumps(r)}\n" for r in results) + tail)
    return folder
