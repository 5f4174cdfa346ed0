"""Cost of sampling: one environment step through RLlib's runner, and where its time goes.

    python benchmarks/sampling_cost.py [--env HalfCheetah-v5] [--out FILE.json]

CIKD's env runner (one environment, one member acting) takes turns with RLlib's own multi-agent
runner on the same networks, and with the bare environment.
"""

from __future__ import annotations

import gymnasium as gym
import measure
import ray

from rllib_cikd import CIKDConfig

FRAGMENT = 200


def main() -> None:
    args = measure.arguments(__doc__, env="HalfCheetah-v5", rounds=9)
    ray.init(include_dashboard=False, logging_level="ERROR")
    config = CIKDConfig().environment(args.env).debugging(seed=0, log_level="ERROR")
    algo = config.env_runners(rollout_fragment_length=FRAGMENT).build_algo()
    runner = algo.env_runner
    env = gym.make(args.env)
    env.action_space.seed(0)
    env.reset(seed=0)

    def sample() -> None:
        runner.sample()
        runner.get_metrics()

    def bare() -> None:
        for _ in range(FRAGMENT):
            *_, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()

    step = measure.update_step(measure.sac_update(3), measure.replay_buffer(100_000))
    contenders = {
        "runner": measure.milliseconds(sample, 1),
        "environment": measure.milliseconds(bare, 1),
        "update": measure.milliseconds(step, 20),
    }
    for run in contenders.values():
        run()
    figures = measure.take_turns(contenders, args.rounds)
    for name in ("runner", "environment"):
        figures[name] = [ms / FRAGMENT for ms in figures[name]]
    m = measure.medians(figures)
    share = measure.ratio(figures, "runner", "update")
    print(
        f"{args.env}, ms for one environment step, medians of {args.rounds} rounds\n"
        f"  through the runner  {m['runner']:.3f}  ({1e3 / m['runner']:,.0f} steps/s)\n"
        f"  environment alone   {m['environment']:.3f}  ({1e3 / m['environment']:,.0f} steps/s)\n"
        f"  the runner's share beside one update of three members ({m['update']:.2f} ms): "
        f"{share / (1 + share):.1%}"
    )
    measure.write(args.out, env=args.env, median=m, rounds=figures)
    algo.stop()


if __name__ == "__main__":
    main()
