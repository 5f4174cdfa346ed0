"""Peak memory of a training process whose replay buffer is full.

    python benchmarks/memory.py [--capacity 1000000] [--out FILE.json]

Fills the buffer of a real algorithm on HalfCheetah-v5 with made-up transitions, trains through
one distillation phase and one evaluation, and reports the process's peak resident memory.
"""

from __future__ import annotations

import resource

import measure
import numpy as np
import ray

from rllib_cikd import CIKDConfig


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def main() -> None:
    args = measure.arguments(__doc__, capacity=1_000_000, checkpoint=0)
    ray.init(include_dashboard=False, logging_level="ERROR")
    config = CIKDConfig().environment("HalfCheetah-v5").debugging(seed=0, log_level="ERROR")
    config.training(
        replay_buffer_config={"capacity": args.capacity},
        random_steps=1_000,
        distillation_interval=1_500,
    )
    config.evaluation(evaluation_interval=1, evaluation_duration=20)
    algo = config.build_algo()
    figures = {"algorithm built": peak_gib()}
    algo.train()
    buffer = algo.learner_group._learner.replay_buffer
    rng = np.random.default_rng(0)
    while buffer.num_added < args.capacity:
        n = 10_000
        buffer.add(
            obs=rng.normal(size=(n, measure.OBS_DIM)),
            actions=rng.uniform(-1, 1, size=(n, measure.ACTION_DIM)),
            rewards=rng.normal(size=n),
            next_obs=rng.normal(size=(n, measure.OBS_DIM)),
            terminated=np.zeros(n, bool),
            truncated=np.zeros(n, bool),
            episodes=np.zeros(n, int),
        )
    figures["buffer full"] = peak_gib()
    result = algo.train()
    assert result["ensemble"]["num_distillations_lifetime"] >= 1
    assert len(buffer) == args.capacity
    figures["trained, distilled, evaluated"] = peak_gib()
    if args.checkpoint:
        algo.save_to_path()
        figures["checkpoint written"] = peak_gib()
    for name, gib in figures.items():
        print(f"{name:32s} {gib:.2f} GiB at most")
    measure.write(args.out, capacity=args.capacity, peak_gib=figures)
    algo.stop()


if __name__ == "__main__":
    main()
