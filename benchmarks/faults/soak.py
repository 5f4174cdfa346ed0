"""A long run with all that can leak: what it holds of memory, files and threads as time goes by.

    python benchmarks/faults/soak.py --minutes 120 --out soak.csv [--pause 0.005]

Trains with two remote env runners and one for evaluation, an evaluation and a phase of distillation
every second and a checkpoint every fifth iteration. The environment waits `--pause` seconds in each
step, so that the run leaves most of the machine to others.

Writes a row every ten seconds: memory (the sum over all its processes of what each has for itself;
also that of the command, of its workers and of Ray's own processes), open files and threads of the
whole process tree. Prints the medians of the second and the last
fifth of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil

ENVIRONMENT = """
import time

import gymnasium as gym


class Slow(gym.Wrapper):
    def __init__(self, pause=0.0):
        super().__init__(gym.make("Pendulum-v1"))
        self.pause = pause

    def step(self, action):
        time.sleep(self.pause)
        return super().step(action)
"""
EXPERIMENT = """
soak:
  run: CIKD
  env: slow_pendulum.Slow
  stop: {num_env_steps_sampled_lifetime: 100000000}
  config:
    env_config: {pause: PAUSE}
    num_env_runners: 2
    num_cpus_per_env_runner: 0.25
    evaluation_num_env_runners: 1
    evaluation_interval: 2
    evaluation_duration: 2
    random_steps: 1000
    distillation_interval: 2000
    distillation_updates: 50
    replay_buffer_config: {capacity: 20000}
    model_config: {fcnet_hiddens: [64, 64]}
"""


def kind(process: psutil.Process) -> str:
    """Whose memory a process holds: workers of Ray name themselves "ray::…"."""
    name = " ".join(process.cmdline())
    if name.startswith("ray::"):
        return "workers_mib"
    return "command_mib" if "rllib_command" in name else "ray_mib"


def held(process: psutil.Process) -> dict[str, float]:
    """Memory in MiB (all, and by kind), open files and threads of a process and all below it."""
    counts = ("mib", "command_mib", "workers_mib", "ray_mib", "files", "threads", "processes")
    total = dict.fromkeys(counts, 0.0)
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            memory = each.memory_full_info().uss / 2**20
            total["mib"] += memory
            total[kind(each)] += memory
            total["files"] += each.num_fds()
            total["threads"] += each.num_threads()
            total["processes"] += 1
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    (folder / "slow_pendulum.py").write_text(ENVIRONMENT)
    (folder / "soak.yaml").write_text(EXPERIMENT.replace("PAUSE", str(args.pause)))
    command = [sys.executable, "-m", "rllib_command", "train", "file", "soak.yaml"]
    command += ["--storage-path", "results", "--checkpoint-freq", "5"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    began = time.monotonic()
    with args.out.open("w", newline="") as file:
        writer: csv.DictWriter | None = None
        while time.monotonic() < began + 60 * args.minutes and process.poll() is None:
            time.sleep(10)
            row = {"seconds": round(time.monotonic() - began), **held(psutil.Process(process.pid))}
            if writer is None:
                writer = csv.DictWriter(file, row, lineterminator="\n")
                writer.writeheader()
            writer.writerow({name: round(value) for name, value in row.items()})
            file.flush()
    process.send_signal(signal.SIGINT)
    process.wait()
    (results,) = folder.glob("results/soak/CIKD_*/result.json")
    steps = [json.loads(line)["num_env_steps_sampled_lifetime"] for line in results.open()]
    rows = pd.read_csv(args.out)
    fifth = rows["seconds"].max() / 5
    early = rows[rows["seconds"].between(fifth, 2 * fifth)].median()
    late = rows[rows["seconds"] >= 4 * fifth].median()
    print(f"exit code {process.returncode} after Ctrl-C, {steps[-1]:,} steps")
    print(pd.DataFrame({"second fifth": early, "last fifth": late}).drop("seconds").to_string())


if __name__ == "__main__":
    main()
