"""A sweep: with and without distillation, two seeds each, with Tune's `grid_search`.

    python examples/grid_search.py

Four runs on Pendulum-v1, as many at once as there are CPUs: two minutes on two
busy CPU cores. At the end: a table of the settings and the mean member's return.
"""

import argparse
from pathlib import Path

from ray import tune

import rllib_cikd  # makes "CIKD" known to Tune  # noqa: F401

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=6_000, help="environment steps of each run")
parser.add_argument("--out", default="~/ray_results", help="folder of results")
args = parser.parse_args()

METRIC = "evaluation/ensemble/mean_return_mean"

tuner = tune.Tuner(
    "CIKD",
    param_space={
        "env": "Pendulum-v1",
        "knowledge_sharing": tune.grid_search(["distillation", "none"]),
        "seed": tune.grid_search([0, 1]),
        "random_steps": min(1_000, args.steps // 2),
        "model_config": {"fcnet_hiddens": [64, 64]},
        "distillation_interval": 1_000,
        "evaluation_interval": 1,  # an iteration is 1,000 environment steps
        "evaluation_duration": 10,
    },
    tune_config=tune.TuneConfig(metric=METRIC, mode="max"),
    run_config=tune.RunConfig(
        name="cikd-grid-search",
        storage_path=str(Path(args.out).expanduser().resolve()),
        stop={"num_env_steps_sampled_lifetime": args.steps},
        verbose=1,
    ),
)
results = tuner.fit()
if results.errors:
    raise SystemExit(f"{results.num_errors} of {len(results)} runs failed")

for result in results:
    settings, ensemble = result.config, result.metrics["evaluation"]["ensemble"]
    print(
        f"{settings['knowledge_sharing']:>12}  seed {settings['seed']}  "
        f"mean member {ensemble['mean_return_mean']:8.1f}"
    )
print("best run:", results.get_best_result().path)
