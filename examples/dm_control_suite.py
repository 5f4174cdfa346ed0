"""A task of dm_control, through Shimmy.

    pip install "shimmy[dm-control]"
    python examples/dm_control_suite.py

cartpole-swingup, 1,000 steps an episode, returns from 0 to 1,000: six minutes on two busy CPU
cores. Observations are a dictionary there, which is flattened. `--task` names any other task of the
suite.
"""

import argparse

import gymnasium as gym
import shimmy
from ray.tune.registry import register_env

from rllib_cikd import CIKDConfig


def make(config):
    """Registers Shimmy's names wherever the environment is made, also in Ray's workers."""
    gym.register_envs(shimmy)
    return gym.make(f"dm_control/{config['task']}-v0")


register_env("dm_control", make)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--task", default="cartpole-swingup")
parser.add_argument("--steps", type=int, default=10_000, help="environment steps")
args = parser.parse_args()

config = (
    CIKDConfig()
    .environment("dm_control", env_config={"task": args.task})
    .training(random_steps=min(2_000, args.steps // 2), distillation_interval=2_000)
    .evaluation(evaluation_interval=1, evaluation_duration=2)
    .reporting(min_sample_timesteps_per_iteration=min(1_000, args.steps // 2))
    .debugging(seed=0)
)
algo = config.build_algo()
steps = 0
while steps < args.steps:
    result = algo.train()
    steps = result["num_env_steps_sampled_lifetime"]
    returns = result["evaluation"]["ensemble"]
    print(f"{steps:6} steps  mean member {returns['mean_return_mean']:6.1f}")
algo.stop()
