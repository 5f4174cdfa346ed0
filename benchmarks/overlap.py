"""Speed with `sample_while_learning`, in an environment whose steps take time, as a simulator's do.

    python benchmarks/overlap.py [--step-ms 20] [--updates 1.0] [--update-ms 0] [--runners 1 2 4]

Environment steps per second of three agents with HalfCheetah-v5's sizes: with and without the
setting, of sampling alone and of learning alone. None can be faster than the slower of these two.
Beside them, Gymnasium's `AsyncVectorEnv` alone, of as many environments as there are env runners:
the most that an env runner with such environments could sample.
`--updates` are gradient steps of every agent per environment step. With `--update-ms` the learner
sleeps so long for each in place of computing: what overlaps then has no part in the CPUs' load.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gymnasium as gym
import measure
import numpy as np
import ray
import torch

from rllib_cikd import CIKD, CIKDConfig
from rllib_cikd.algorithm.sac_update import SACUpdate


class SlowEnv(gym.Env):
    """Made-up observations of HalfCheetah-v5's sizes; `env_config`: seconds a step."""

    def __init__(self, config: dict[str, float]):
        self.seconds = config["seconds"]
        self.observation_space = gym.spaces.Box(-10.0, 10.0, (measure.OBS_DIM,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (measure.ACTION_DIM,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action):
        time.sleep(self.seconds)
        return self._observation(), float(np.mean(action)), False, False, {}

    def _observation(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, measure.OBS_DIM).astype(np.float32)


def sleep_for_updates(algo: CIKD, seconds: float) -> None:
    learner = algo.learner_group._learner
    figures = torch.zeros(len(SACUpdate.STATISTICS), algo.config.ensemble_size)

    def sleep(num_updates: int, batch_size: int) -> torch.Tensor:
        time.sleep(num_updates * seconds)
        return figures

    learner._sac_updates = sleep


def speed_of(env: gym.vector.VectorEnv, steps: int) -> Callable[[], float]:
    """Returns environment steps per second of so many steps in each, with one action for all."""
    actions = np.zeros(env.action_space.shape, np.float32)
    env.reset(seed=0)

    def run() -> float:
        start = time.perf_counter()
        for _ in range(steps):
            env.step(actions)
        return env.num_envs * steps / (time.perf_counter() - start)

    return run


def contenders(algo: CIKD, calls: int) -> dict[str, Callable[[], float]]:
    """Each returns environment steps per second of so many calls, after one more."""
    settings = {}
    for ahead in (False, True):
        settings[ahead] = algo.config.copy(copy_frozen=False)
        settings[ahead].sample_while_learning = ahead
    transitions = algo._record(algo._sample())

    def speed(call: Callable[[], object], ahead: bool = False) -> Callable[[], float]:
        def run() -> float:
            algo._sampler.restore([])  # what is under way is not counted for another contender
            algo._sampler._config = settings[ahead]
            call()
            start = time.perf_counter()
            for _ in range(calls):
                call()
            seconds = time.perf_counter() - start
            return calls * len(transitions["rewards"]) / seconds

        return run

    return {
        "sampling": speed(lambda: algo._sampler.sample(*algo._who_acts())),
        "learning": speed(lambda: algo._store_and_update(transitions)),
        "in turns": speed(algo.training_step),
        "at once": speed(algo.training_step, ahead=True),
    }


def main() -> None:
    args = measure.arguments(
        __doc__, step_ms=20.0, updates=1.0, update_ms=0.0, runners=[1, 2, 4], fragment=25, rounds=3
    )
    bare = {  # before Ray starts: their processes are forked
        n: gym.vector.AsyncVectorEnv([lambda: SlowEnv({"seconds": args.step_ms / 1e3})] * n)
        for n in args.runners
    }
    ray.init(num_cpus=max(args.runners) + 1, include_dashboard=False, logging_level="ERROR")
    report = {}
    for runners in args.runners:
        config = CIKDConfig().environment(SlowEnv, env_config={"seconds": args.step_ms / 1e3})
        config.env_runners(num_env_runners=runners, rollout_fragment_length=args.fragment)
        config.training(random_steps=0, training_intensity=args.updates * measure.BATCH_SIZE)
        config.debugging(seed=0, log_level="ERROR")
        algo = config.build_algo()
        if args.update_ms:
            sleep_for_updates(algo, args.update_ms / 1e3)
        those = contenders(algo, max(2, 4 // runners))
        those["bare"] = speed_of(bare[runners], 2 * args.fragment)
        figures = measure.take_turns(those, args.rounds)
        algo.stop()
        bare[runners].close()
        m = measure.medians(figures)
        slower = min("sampling", "learning", key=lambda name: m[name])
        shares = {name: measure.ratio(figures, name, slower) for name in ("in turns", "at once")}
        print(
            f"{runners} env runners, {args.step_ms:g} ms a step, env steps/s: sampling alone "
            f"{m['sampling']:.0f}, learning alone {m['learning']:.0f}, in turns "
            f"{m['in turns']:.0f}, at once {m['at once']:.0f}; of {slower} alone: in turns "
            f"{shares['in turns']:.0%}, at once {shares['at once']:.0%}; AsyncVectorEnv alone "
            f"{m['bare']:.0f}"
        )
        report[runners] = {"median": m, "rounds": figures}
    names = ("step_ms", "updates", "update_ms", "fragment")
    settings = {name: getattr(args, name) for name in names}
    measure.write(args.out, **settings, runners=report)


if __name__ == "__main__":
    main()
