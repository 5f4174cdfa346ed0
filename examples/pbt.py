"""Population-based training: bad runs go on from good ones, with their settings changed a little.

    python examples/pbt.py

Four runs on Pendulum-v1, compared every 1,600 steps: four minutes on two busy CPU cores.

`synch=True`: the runs wait for each other before they are compared. With Ray's default, False, and
more runs than fit on the machine at once, old runs are compared with young ones, and a run may be
told to go on from a checkpoint that its owner has deleted by then.
"""

import argparse
from pathlib import Path

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

import rllib_cikd  # makes "CIKD" known to Tune  # noqa: F401

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=6_400, help="environment steps of each run")
parser.add_argument("--runs", type=int, default=4)
parser.add_argument("--out", default="~/ray_results", help="folder of results")
args = parser.parse_args()

scheduler = PopulationBasedTraining(
    time_attr="training_iteration",
    perturbation_interval=2,
    synch=True,
    # Step sizes and the like. What makes up a network (`ensemble_size`, `model_config`) must not
    # change: the checkpoint of another run would not fit.
    hyperparam_mutations={
        "actor_lr": tune.loguniform(1e-5, 3e-3),
        "critic_lr": tune.loguniform(1e-5, 3e-3),
        "distillation_lr": [3e-4, 1e-3, 3e-3],
    },
)
tuner = tune.Tuner(
    "CIKD",
    param_space={
        "env": "Pendulum-v1",
        "random_steps": min(1_000, args.steps // 8),
        "distillation_interval": 1_000,
        "model_config": {"fcnet_hiddens": [64, 64]},
        "min_sample_timesteps_per_iteration": args.steps // 8,
        "evaluation_interval": 1,
        "evaluation_duration": 10,
    },
    tune_config=tune.TuneConfig(
        metric="evaluation/ensemble/mean_return_mean",
        mode="max",
        num_samples=args.runs,
        scheduler=scheduler,
    ),
    run_config=tune.RunConfig(
        name="cikd-pbt",
        storage_path=str(Path(args.out).expanduser().resolve()),
        stop={"num_env_steps_sampled_lifetime": args.steps},
        checkpoint_config=tune.CheckpointConfig(num_to_keep=4),
        verbose=1,
    ),
)
results = tuner.fit()
if results.errors:
    raise SystemExit(f"{results.num_errors} of {len(results)} runs failed")

best = results.get_best_result()
print({key: f"{best.config[key]:.1e}" for key in ("actor_lr", "critic_lr", "distillation_lr")})
print("mean member:", best.metrics["evaluation"]["ensemble"]["mean_return_mean"])
print("checkpoint:", best.checkpoint.path)
