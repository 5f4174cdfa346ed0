"""Environment steps per second: CIKD with three agents against single SAC agents of its peers.

    pip install -e ".[benchmarks]"  # the peers; those that are not installed are left out
    python benchmarks/throughput.py [--rounds 3] [--env HalfCheetah-v5] [--out FILE.json]

All train for real, in one process, in turns, so that a machine whose speed drifts slows all of
them: quote ratios. One update a step, batch 256, two hidden layers of 256, everywhere.

- CIKD: everything included (sampling, three SAC updates a step, metrics, weight sync); a turn is
  one distillation interval, 5000 steps, with its distillation phase.
- bare loop: CIKD's buffer and update around the plain environment, without RLlib and without
  distillation: what end-to-end speed could be at best.
- RLlib SAC: as it comes (prioritised replay), and with uniform replay as all others have it.
- Stable-Baselines3 and SBX (JAX): as they come.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import measure
import numpy as np
import ray
import torch
from ray.rllib.algorithms.sac import SACConfig

from rllib_cikd import CIKDConfig

WARM_UP_STEPS = 1_000


class RLlib:
    """Any of RLlib's algorithms."""

    def __init__(self, config: Any):
        self._algo = config.debugging(seed=0, log_level="ERROR").build_algo()

    def steps(self) -> int:
        path = ("env_runners", "num_env_steps_sampled_lifetime")
        return int(self._algo.metrics.peek(path, default=0))

    def train(self, steps: int) -> None:
        end = self.steps() + steps
        while self.steps() < end:
            self._algo.train()


def cikd(env: str, ensemble_size: int) -> RLlib:
    config = CIKDConfig().environment(env)
    return RLlib(config.training(ensemble_size=ensemble_size, random_steps=WARM_UP_STEPS))


def rllib_sac(env: str, uniform_replay: bool) -> RLlib:
    config = SACConfig().environment(env)
    config.training(num_steps_sampled_before_learning_starts=WARM_UP_STEPS)
    if uniform_replay:
        replay = {"type": "EpisodeReplayBuffer", "capacity": 1_000_000}
        config.training(replay_buffer_config=replay)
    config.reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=100)
    return RLlib(config)


class BaselinesSAC:
    """Stable-Baselines3's or SBX's."""

    def __init__(self, module: str, env: str):
        algorithm = importlib.import_module(module).SAC
        self._model = algorithm("MlpPolicy", gym.make(env), learning_starts=WARM_UP_STEPS, seed=0)

    def steps(self) -> int:
        return self._model.num_timesteps

    def train(self, steps: int) -> None:
        self._model.learn(steps, reset_num_timesteps=False)


class BareLoop:
    """Fragments of 50 steps, then as many updates of all members."""

    def __init__(self, env: str, ensemble_size: int):
        self._env = gym.make(env)
        self._obs, _ = self._env.reset(seed=0)
        self._update = measure.sac_update(ensemble_size)
        self._buffer = measure.ReplayBuffer(1_000_000, measure.OBS_DIM, measure.ACTION_DIM)
        self._step = measure.update_step(self._update, self._buffer)
        self._num_steps = 0

    def steps(self) -> int:
        return self._num_steps

    def train(self, steps: int) -> None:
        for _ in range(steps // 50):
            self._buffer.add(**self._sample(50))
            self._num_steps += 50
            if self._num_steps > WARM_UP_STEPS:
                for _ in range(50):
                    self._step()

    def _sample(self, steps: int) -> dict[str, np.ndarray]:
        policy = self._update.stack._modules[0]
        rows: list[tuple] = []
        for _ in range(steps):
            obs = torch.from_numpy(self._obs).float().unsqueeze(0)
            action = policy.forward_exploration({"obs": obs})["actions"][0].numpy()
            next_obs, reward, terminated, truncated, _ = self._env.step(action)
            rows.append((self._obs, action, reward, next_obs, terminated, truncated, 0))
            self._obs = next_obs
            if terminated or truncated:
                self._obs, _ = self._env.reset()
        names = ("obs", "actions", "rewards", "next_obs", "terminated", "truncated", "episodes")
        return {
            name: np.array(column)
            for name, column in zip(names, zip(*rows, strict=True), strict=True)
        }


def turn(contender: Any, steps: int) -> Callable[[], float]:
    """Trains for this many steps; returns environment steps per second."""

    def run() -> float:
        start, first = time.perf_counter(), contender.steps()
        contender.train(steps)
        return (contender.steps() - first) / (time.perf_counter() - start)

    return run


def main() -> None:
    args = measure.arguments(__doc__, env="HalfCheetah-v5", ensemble_size=3, rounds=3)
    ray.init(include_dashboard=False, logging_level="ERROR")
    ours = f"CIKD, {args.ensemble_size} agents"
    contenders: dict[str, tuple[Any, int]] = {
        ours: (cikd(args.env, args.ensemble_size), 5_000),
        "RLlib SAC": (rllib_sac(args.env, uniform_replay=False), 300),
        "RLlib SAC, uniform replay": (rllib_sac(args.env, uniform_replay=True), 300),
    }
    if args.env == "HalfCheetah-v5":
        contenders["bare loop"] = (BareLoop(args.env, args.ensemble_size), 1_500)
    versions = {}
    for name, module, package in (
        ("Stable-Baselines3 SAC", "stable_baselines3", "stable-baselines3"),
        ("SBX SAC", "sbx", "sbx-rl"),
    ):
        if importlib.util.find_spec(module):
            contenders[name] = (BaselinesSAC(module, args.env), 1_500)
            versions[package] = importlib.metadata.version(package)
    turns = {name: turn(*contender) for name, contender in contenders.items()}
    for contender, _ in contenders.values():
        contender.train(WARM_UP_STEPS + 200)

    figures = measure.take_turns(turns, args.rounds)
    print(f"{args.env}, env steps/s, medians of {args.rounds} rounds; machine: {measure.machine()}")
    m = measure.medians(figures)
    ratios = {name: measure.ratio(figures, ours, name) for name in m}
    for name, rate in m.items():
        agents = args.ensemble_size if name in (ours, "bare loop") else 1
        each = ", ".join(f"{a / b:.2f}" for a, b in zip(figures[ours], figures[name], strict=True))
        print(
            f"  {name:26s} {rate:7.1f} steps/s {agents * rate:7.1f} agent updates/s   "
            f"CIKD is {ratios[name]:.2f} times as fast (each round: {each})"
        )
    measure.write(
        args.out, env=args.env, peers=versions, env_steps_per_s=figures, ratios_of_cikd=ratios
    )


if __name__ == "__main__":
    main()
