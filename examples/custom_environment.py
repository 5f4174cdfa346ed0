"""An environment of your own, what its `info` says, and the trained policy in it.

    python examples/custom_environment.py

A point on a line is to be brought to 0 and to be left there: a minute on two busy CPU cores.
What an environment must do, and what is said of one that does not: docs/ENVIRONMENTS.md.
"""

import argparse
import tempfile

import gymnasium as gym
import numpy as np

from rllib_cikd import CIKDConfig, load_policy


class Point(gym.Env):
    """Observes place and speed, acts by a force; 50 steps an episode."""

    def __init__(self, config):  # `config` is `env_config`
        self.width = config.get("width", 2.0)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.v, self.t = self.np_random.uniform(-self.width, self.width), 0.0, 0
        return np.array([self.x, self.v], np.float32), {}

    def step(self, action):
        self.v = 0.9 * self.v + 0.1 * float(action[0])
        self.x, self.t = self.x + 0.2 * self.v, self.t + 1
        observation = np.array([self.x, self.v], np.float32)
        # Never terminated: the episode is cut by its time limit, which is a truncation.
        return observation, -abs(self.x), False, self.t >= 50, {"distance": abs(self.x)}


def log_distance(*, episode, metrics_logger, **kwargs):
    """Called after each step: the environment's `info` becomes a result."""
    distance = episode.get_infos(-1)["agent_0"]["distance"]
    metrics_logger.log_value("distance", distance, reduce="mean", window=1_000)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=4_000, help="environment steps")
args = parser.parse_args()

config = (
    CIKDConfig()
    .environment(Point, env_config={"width": 1.0})
    .training(random_steps=min(1_000, args.steps // 2), distillation_interval=1_000)
    .rl_module(model_config={"fcnet_hiddens": [64, 64]})
    .callbacks(on_episode_step=log_distance)
    .reporting(min_sample_timesteps_per_iteration=min(1_000, args.steps))
    .debugging(seed=0)
)
algo = config.build_algo()
steps = 0
while steps < args.steps:
    result = algo.train()
    steps = result["num_env_steps_sampled_lifetime"]
    runner = result["env_runners"]
    returns = runner.get("episode_return_mean", float("nan"))
    print(f"{steps:6} steps  return {returns:7.2f}  distance {runner['distance']:.3f}")

with tempfile.TemporaryDirectory() as folder:
    policy = load_policy(algo.save_to_path(folder))  # of the best member
    print("action at x = 0.5:", policy(np.array([0.5, 0.0], np.float32)))
algo.stop()
