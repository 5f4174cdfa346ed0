"""Breaks a training environment in every way that we know, on local and remote env runners.

python benchmarks/faults/environment_faults.py [--only NAME]

Pendulum-v1 breaks from its 300th step on, or at its third reset, in runs of `rllib train file` with
two members, evaluation and distillation. What may come of it: the run ends with an error that
names the environment or the line of it that raised ("named"), the env runner is restarted and the
run comes to its end ("restarted"), or there is a warning ("warned"). What may not: an end without a
word ("SILENT"), another error ("NOT NAMED"), a traceback, no end within five minutes ("ENDLESS").
"""

from __future__ import annotations

import argparse
import collections
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

MODULE = """
import ctypes, os, sys, time
import gymnasium as gym
import numpy as np

class Faulty(gym.Wrapper):
    def __init__(self, fault):
        self.fault, self.steps, self.resets = fault, 0, 0
        super().__init__(gym.make("Pendulum-v1"))

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        observation, info = self.env.reset(seed=seed, options=options)
        if self.resets < 3 or not self.fault.startswith("reset"):
            return observation, info
        return self.broken(observation, info)

    def step(self, action):
        self.steps += 1
        result = self.env.step(action)
        if self.steps < 300 or not self.fault.startswith("step"):
            return result
        return self.broken(*result)

    def broken(self, *result):
        what = self.fault.split()[1]
        if what == "raises":
            raise RuntimeError("the simulator broke")
        if what == "interrupts":
            raise KeyboardInterrupt
        if what == "exits":
            sys.exit(3)
        if what == "dies":
            os._exit(3)
        if what == "segfaults":
            ctypes.string_at(0)
        if what == "hangs":
            time.sleep(10_000)
        if what == "spins":
            while True:
                pass
        if what == "none":
            return None
        if what == "short":
            return result[:-1]
        if what == "long":
            return *result, 0
        values = {
            "observation_nan": (0, np.full(3, np.nan, np.float32)),
            "observation_huge": (0, np.full(3, 1e300)),
            "observation_longer": (0, np.zeros(4, np.float32)),
            "observation_none": (0, None),
            "observation_text": (0, "here"),
            "observation_complex": (0, np.zeros(3, complex)),
            "reward_nan": (1, float("nan")),
            "reward_none": (1, None),
            "reward_pair": (1, np.zeros(2)),
            "reward_text": (1, "1.0"),
            "terminated_none": (2, None),
            "truncated_float": (3, 0.5),
            "info_none": (-1, None),
        }
        at, value = values[what]
        result = list(result)
        result[at] = value
        return tuple(result)
"""
EXPERIMENT = """
faulty:
  run: CIKD
  env: faulty_env.Faulty
  stop: {{num_env_steps_sampled_lifetime: 1200}}
  config:
    env_config: {{fault: {fault}}}
    num_env_runners: {runners}
    ensemble_size: 2
    random_steps: 200
    train_batch_size_per_learner: 8
    distillation_interval: 400
    distillation_updates: 3
    replay_buffer_config: {{capacity: 20000}}
    model_config: {{fcnet_hiddens: [16, 16]}}
    min_sample_timesteps_per_iteration: 200
    sample_timeout_s: 10
    delay_between_env_runner_restarts_s: 1
    seed: 0
"""
HOW = ["raises", "interrupts", "exits", "dies", "segfaults", "hangs", "spins", "none", "short"]
WHAT = ["observation_nan", "observation_huge", "observation_longer", "observation_none"]
WHAT += ["observation_text", "observation_complex", "reward_nan", "reward_none", "reward_pair"]
WHAT += ["reward_text", "terminated_none", "truncated_float", "info_none", "long"]
FAULTS = [f"step {word}" for word in HOW + WHAT]
FAULTS += [f"reset {word}" for word in ["raises", "dies", "hangs", "none", "observation_nan"]]


def outcome(fault: str, runners: int) -> tuple[str, str]:
    """What became of a run in that environment: in a word, and the line that says so."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "faulty_env.py").write_text(MODULE)
        experiment = EXPERIMENT.format(fault=fault, runners=runners)
        (Path(folder) / "faulty.yaml").write_text(experiment)
        command = [sys.executable, "-m", "rllib_command", "train", "file", "faulty.yaml"]
        process = subprocess.Popen(
            [*command, "--storage-path", "results"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            out, _ = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return "ENDLESS", ""
    words = ("env=", "env runner", "env_runner", "faulty_env.py:", "the environment")
    told = [line for line in out.splitlines() if any(word in line for word in words)]
    line = told[-1].strip() if told else ""
    # What Ray repeats of its processes' logs tells of each env runner that is lost, at length.
    own = [line for line in out.splitlines() if "pid=" not in line]
    if any("Traceback" in line for line in own):
        return "TRACEBACK", line or out[-500:]
    if process.returncode == 0:
        restarted = "restarted" in line or "back into service" in line
        return ("restarted" if restarted else "warned", line) if line else ("SILENT", "")
    return ("named", line) if line else ("NOT NAMED", out[-1500:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="a part of the fault's name")
    args = parser.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    for fault in FAULTS:
        if args.only and args.only not in fault:
            continue
        for runners in (0, 1):
            what, line = outcome(fault, runners)
            counts[what] += 1
            where = "remote" if runners else "local"
            print(f"{where:6} | {fault:24} | {what:9} | {line}", flush=True)
    print(", ".join(f"{number} {what}" for what, number in counts.most_common()))


if __name__ == "__main__":
    main()
