"""A success rate, in training and in evaluation, from one episode callback.

    python examples/success_rate.py

Pendulum-v1, where an episode is a success if the pole is upright in each of its last 50 steps:
two minutes on two busy CPU cores.
"""

import argparse

import numpy as np
from ray.rllib.callbacks.callbacks import RLlibCallback

from rllib_cikd import CIKDConfig


class SuccessRate(RLlibCallback):
    """RLlib calls it at the end of training episodes and of every member's evaluation episodes."""

    def on_episode_end(self, *, episode, metrics_logger, **kwargs):
        # Of an episode's observations those of its last fragment are at hand, 50 by default.
        observations = np.asarray(episode.agent_episodes["agent_0"].get_observations())
        upright = observations[-50:, 0] > np.cos(np.radians(15))  # Pendulum's first is the cosine
        metrics_logger.log_value("success_rate", float(upright.all()), reduce="mean", window=20)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=5_000, help="environment steps")
args = parser.parse_args()

config = (
    CIKDConfig()
    .environment("Pendulum-v1")
    .training(random_steps=min(1_000, args.steps // 2), distillation_interval=1_000)
    .callbacks(SuccessRate)
    .evaluation(evaluation_interval=1, evaluation_duration=10)
    .reporting(min_sample_timesteps_per_iteration=min(1_000, args.steps))
    .debugging(seed=0)
)
algo = config.build_algo()
steps = 0
while steps < args.steps:
    result = algo.train()
    steps = result["num_env_steps_sampled_lifetime"]
    training, evaluation = result["env_runners"], result["evaluation"]
    print(
        f"{steps:6} steps  success in training {training['success_rate']:.2f}, "
        f"in evaluation {evaluation['env_runners']['success_rate']:.2f}; "
        f"mean member {evaluation['ensemble']['mean_return_mean']:8.1f}"
    )
algo.stop()
