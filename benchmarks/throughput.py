"""Environment steps per second: CIKD with three agents against RLlib's stock SAC with one.

    python benchmarks/throughput.py [--rounds 3] [--env HalfCheetah-v5] [--out FILE.json]

Both train for real, in one process, in turns (A B A B ...), so that a machine whose speed drifts
slows both: quote the ratio. A turn of CIKD is one distillation interval, 5000 steps, and so
includes sampling, three SAC updates a step, one distillation phase, metrics and weight sync. A
turn of SAC is 300 steps with one update a step. SAC runs twice: as it comes (prioritised replay)
and with uniform replay, as CIKD has it, which is faster. Both ratios are printed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray.rllib.algorithms.sac import SACConfig

from rllib_cikd import CIKDConfig

WARM_UP_STEPS = 1_000


def build_cikd(env: str, ensemble_size: int) -> Any:
    config = CIKDConfig().environment(env).debugging(seed=0, log_level="ERROR")
    return config.training(ensemble_size=ensemble_size, random_steps=WARM_UP_STEPS).build_algo()


def build_rllib_sac(env: str, uniform_replay: bool) -> Any:
    config = SACConfig().environment(env).debugging(seed=0, log_level="ERROR")
    config.training(num_steps_sampled_before_learning_starts=WARM_UP_STEPS)
    if uniform_replay:
        replay = {"type": "EpisodeReplayBuffer", "capacity": 1_000_000}
        config.training(replay_buffer_config=replay)
    config.reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=100)
    return config.build_algo()


def train(algo: Any, steps: int) -> float:
    """Trains for at least this many steps; returns environment steps per second."""
    start, first = time.perf_counter(), _steps(algo)
    while _steps(algo) - first < steps:
        algo.train()
    return (_steps(algo) - first) / (time.perf_counter() - start)


def _steps(algo: Any) -> int:
    return int(algo.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"), default=0))


def machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "ray": ray.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--ensemble-size", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()

    ray.init(include_dashboard=False, logging_level="ERROR")
    contenders = {
        f"CIKD, {args.ensemble_size} agents": (build_cikd(args.env, args.ensemble_size), 5_000),
        "RLlib SAC": (build_rllib_sac(args.env, uniform_replay=False), 300),
        "RLlib SAC, uniform replay": (build_rllib_sac(args.env, uniform_replay=True), 300),
    }
    for algo, _ in contenders.values():
        train(algo, WARM_UP_STEPS + 200)

    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(args.rounds):
        for name, (algo, steps) in contenders.items():
            rates[name].append(train(algo, steps))
            print(f"round {turn + 1}  {name:26s} {rates[name][-1]:7.1f} env steps/s", flush=True)

    cikd, *_ = rates.values()
    ratios = {
        name: [a / b for a, b in zip(cikd, values, strict=True)]
        for name, values in list(rates.items())[1:]
    }
    print(f"\n{args.env}, median of {args.rounds} rounds ({machine()})")
    for name, values in rates.items():
        print(f"  {name:26s} {statistics.median(values):7.1f} env steps/s")
    for name, values in ratios.items():
        print(f"  {statistics.median(values):.2f} times {name} (each round: {_list(values)})")
    if args.out:
        report = {"env": args.env, "machine": machine(), "env_steps_per_s": rates, "ratios": ratios}
        args.out.write_text(json.dumps(report, indent=2) + "\n")


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


if __name__ == "__main__":
    main()
