"""Members that differ: in step sizes, in discount, in the size of their networks.

    python examples/unequal_members.py

Three members on Pendulum-v1: two minutes on two busy CPU cores. Equal members are computed as one
batch; unequal ones are not, so that an update takes longer.
"""

import argparse

from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_cikd import CIKDConfig
from rllib_cikd.rllib.sac_module import SACModule

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=5_000, help="environment steps")
args = parser.parse_args()

HIDDEN = {"policy_0": [256, 256], "policy_1": [128, 128], "policy_2": [64, 64, 64]}

config = (
    CIKDConfig()
    .environment("Pendulum-v1")
    .training(
        ensemble_size=3,
        random_steps=min(1_000, args.steps // 2),
        distillation_interval=1_000,
    )
    .rl_module(
        rl_module_spec=MultiRLModuleSpec(
            rl_module_specs={
                member: RLModuleSpec(SACModule, model_config={"fcnet_hiddens": hidden})
                for member, hidden in HIDDEN.items()
            }
        ),
        # actor_lr, critic_lr, alpha_lr, gamma, tau, target_entropy and grad_clip may differ.
        algorithm_config_overrides_per_module={
            "policy_1": {"actor_lr": 1e-3, "critic_lr": 1e-3},
            "policy_2": {"gamma": 0.97},
        },
    )
    .evaluation(evaluation_interval=1, evaluation_duration=10)
    .reporting(min_sample_timesteps_per_iteration=min(1_000, args.steps))
    .debugging(seed=0)
)
algo = config.build_algo()
steps = 0
while steps < args.steps:
    result = algo.train()
    steps = result["num_env_steps_sampled_lifetime"]
    returns = result["evaluation"]["ensemble"]["return_mean"]
    members = "  ".join(f"{member} {value:8.1f}" for member, value in returns.items())
    print(f"{steps:6} steps  {members}")
print("taught, times:", result["ensemble"]["times_teacher"])
algo.stop()
