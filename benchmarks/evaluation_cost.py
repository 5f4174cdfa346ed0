"""Speed of the evaluation protocol: every member, 20 deterministic episodes each.

    python benchmarks/evaluation_cost.py [--env HalfCheetah-v5] [--runners 0] [--out FILE.json]

Environment steps per second of `CIKD.evaluate_members`, in turns with the bare environment in
one process. `--runners N` plays in N evaluation env runners (`evaluation_num_env_runners`).
"""

from __future__ import annotations

import time

import gymnasium as gym
import measure
import numpy as np
import ray

from rllib_cikd import CIKDConfig


def main() -> None:
    args = measure.arguments(
        __doc__, env="HalfCheetah-v5", episodes=20, ensemble_size=3, runners=0, rounds=3
    )
    ray.init(include_dashboard=False, logging_level="ERROR")
    config = CIKDConfig().environment(args.env).debugging(seed=0, log_level="ERROR")
    config.training(ensemble_size=args.ensemble_size)
    if args.runners:
        config.evaluation(
            evaluation_num_env_runners=args.runners,
            evaluation_interval=1,
            evaluation_duration=args.episodes,
        )
    algo = config.build_algo()

    def evaluate() -> float:
        start = time.perf_counter()
        episodes = algo.evaluate_members(args.episodes)
        steps = sum(int(np.sum(member["lengths"])) for member in episodes.values())
        return steps / (time.perf_counter() - start)

    env = gym.make(args.env)
    env.action_space.seed(0)
    env.reset(seed=0)

    def bare(steps: int = 5_000) -> float:
        actions = [env.action_space.sample() for _ in range(steps)]
        start = time.perf_counter()
        for action in actions:
            *_, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return steps / (time.perf_counter() - start)

    evaluate()  # makes the environments
    figures = measure.take_turns({"evaluation": evaluate, "environment": bare}, args.rounds)
    m = measure.medians(figures)
    print(
        f"{args.env}, {args.ensemble_size} x {args.episodes} episodes, {args.runners} evaluation "
        f"runners: {m['evaluation']:,.0f} env steps/s; the environment alone in one process: "
        f"{m['environment']:,.0f} (ratio {measure.ratio(figures, 'evaluation', 'environment'):.2f})"
    )
    measure.write(args.out, env=args.env, runners=args.runners, median=m, rounds=figures)
    algo.stop()


if __name__ == "__main__":
    main()
