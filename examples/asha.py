"""Asynchronous successive halving: bad settings are given up early.

    python examples/asha.py

Eight runs on Pendulum-v1 with step sizes drawn at random. After 3,200 steps, and again after 6,400,
the worse half ends: nine minutes on two busy CPU cores.
"""

import argparse
from pathlib import Path

from ray import tune
from ray.tune.schedulers import ASHAScheduler

import rllib_cikd  # makes "CIKD" known to Tune  # noqa: F401

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--steps", type=int, default=12_800, help="environment steps of the longest run"
)
parser.add_argument("--runs", type=int, default=8)
parser.add_argument("--out", default="~/ray_results", help="folder of results")
args = parser.parse_args()

STEPS = "num_env_steps_sampled_lifetime"

tuner = tune.Tuner(
    "CIKD",
    param_space={
        "env": "Pendulum-v1",
        "actor_lr": tune.loguniform(1e-5, 3e-3),
        "critic_lr": tune.loguniform(1e-5, 3e-3),
        "distillation_interval": 1_000,
        "model_config": {"fcnet_hiddens": [64, 64]},
        "random_steps": min(1_000, args.steps // 8),
        # ASHA decides after evaluations: one in every iteration, four before its first decision.
        "min_sample_timesteps_per_iteration": args.steps // 16,
        "evaluation_interval": 1,
        "evaluation_duration": 10,
    },
    tune_config=tune.TuneConfig(
        metric="evaluation/ensemble/mean_return_mean",
        mode="max",
        num_samples=args.runs,
        scheduler=ASHAScheduler(
            time_attr=STEPS, grace_period=args.steps // 4, max_t=args.steps, reduction_factor=2
        ),
    ),
    run_config=tune.RunConfig(
        name="cikd-asha", storage_path=str(Path(args.out).expanduser().resolve()), verbose=1
    ),
)
results = tuner.fit()
if results.errors:
    raise SystemExit(f"{results.num_errors} of {len(results)} runs failed")

for result in sorted(results, key=lambda r: r.metrics[STEPS]):
    print(
        f"{result.metrics[STEPS]:6} steps  actor_lr {result.config['actor_lr']:.1e}  "
        f"critic_lr {result.config['critic_lr']:.1e}  "
        f"mean member {result.metrics['evaluation']['ensemble']['mean_return_mean']:8.1f}"
    )
best = results.get_best_result()
print(f"best: actor_lr {best.config['actor_lr']:.1e}, critic_lr {best.config['critic_lr']:.1e}")
