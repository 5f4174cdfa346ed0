"""Stable-Baselines3's SAC by the protocol of `rllib study run`: what Vanilla-SAC must equal.

    pip install -e ".[benchmarks,study]"
    python benchmarks/stable_baselines3_sac.py HalfCheetah-v5 --seeds 0 1 2 --steps 100000 --out DIR
    rllib study run STUDY_WITH_vanilla-sac --storage-path DIR && rllib report DIR

The same task, batch, networks, step sizes, warm-up of 10,000 random steps and evaluation (20
deterministic episodes each 10,000 steps). Writes a CSV for each seed, of variant `sb3-sac`, with
the columns of a study's evaluations, so that a report on both shows them in one figure.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from rllib_cikd.common.result_keys import SUMMARIES
from rllib_cikd.report.raw_csv import EVALUATIONS, write_rows

EVALUATION_INTERVAL, EVALUATION_EPISODES, WARM_UP = 10_000, 20, 10_000


class Evaluation(BaseCallback):
    """Evaluates as `rllib study run` does; writes what there is after each evaluation."""

    def __init__(self, env: str, seed: int, path: Path):
        super().__init__()
        self._env = Monitor(gym.make(env))
        self._env.reset(seed=10_000 + seed)
        self._run = {"variant": "sb3-sac", "task": env, "seed": seed}
        self._path = path
        self._rows: list[dict[str, object]] = []
        self._start = time.perf_counter()

    def _on_step(self) -> bool:
        if self.num_timesteps % EVALUATION_INTERVAL:
            return True
        value = evaluate_policy(self.model, self._env, EVALUATION_EPISODES, deterministic=True)[0]
        seconds = round(time.perf_counter() - self._start, 1)
        print(f"{self._path.stem}  {self.num_timesteps:,} steps | {value:,.0f} | {seconds:,.0f} s")
        for member in ("policy_0", *SUMMARIES):
            figures = {"member": member, "step": self.num_timesteps, "wall_seconds": seconds}
            self._rows.append(self._run | figures | {"return": float(f"{value:.6g}")})
        write_rows(self._path, self._rows, EVALUATIONS)
        return True


def train(env: str, seed: int, steps: int, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    np.random.seed(seed)
    model = SAC(
        "MlpPolicy",
        env,
        learning_rate=3e-4,
        buffer_size=1_000_000,
        learning_starts=WARM_UP,
        batch_size=256,
        tau=0.005,
        gamma=0.99,
        policy_kwargs={"net_arch": [256, 256]},
        seed=seed,
        device="cpu",
    )
    path = out / f"{env}_sb3-sac_seed{seed}.evaluations.csv"
    model.learn(steps, callback=Evaluation(env, seed, path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("env")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        train(args.env, seed, args.steps, args.out)


if __name__ == "__main__":
    main()
