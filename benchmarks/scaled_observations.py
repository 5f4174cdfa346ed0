"""HalfCheetah-v5 with observations in other units, and the members' normalisation: a curve.

    python benchmarks/scaled_observations.py 1000 0 50000 OUT.csv  # factor, seed, steps, file

With `observation_filter="MeanStdFilter"` it should learn like HalfCheetah-v5 as it is.
"""

from __future__ import annotations

import csv
import sys

import gymnasium as gym
import numpy as np
import ray
from ray.tune.registry import register_env

from rllib_cikd import CIKDConfig


class Scaled(gym.ObservationWrapper):
    """Observations times a factor."""

    def __init__(self, env: gym.Env, factor: float):
        super().__init__(env)
        self._factor = factor

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation * self._factor


def main() -> None:
    factor, seed, steps = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
    register_env("scaled", lambda config: Scaled(gym.make("HalfCheetah-v5"), factor))
    config = CIKDConfig().environment("scaled").env_runners(observation_filter="MeanStdFilter")
    config.evaluation(evaluation_interval=10, evaluation_duration=20).debugging(seed=seed)
    algo = config.build_algo()
    with open(sys.argv[4], "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "member", "return_mean"])
        while algo.history.env_steps < steps:
            result = algo.train()
            if not np.isnan(result["evaluation_mean_return_mean"]):  # evaluated just now
                for member, value in result["evaluation"]["ensemble"]["return_mean"].items():
                    rows.writerow([algo.history.env_steps, member, round(value, 2)])
                file.flush()
    algo.stop()


if __name__ == "__main__":
    main()
