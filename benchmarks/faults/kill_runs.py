"""Kills real runs at random moments and resumes them until they end; counts what was lost.

python benchmarks/faults/kill_runs.py [--signal KILL|TERM|INT] [--times 10] [--checkpoint-freq 1]

Each run has 30 iterations of 200 steps. Runs are killed `--times` times in all, over as many of
them as that takes. Prints how often, and how many runs came to their end with each iteration once
in `result.json` and `progress.csv`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXPERIMENT = """
killed:
  run: CIKD
  env: Pendulum-v1
  stop: {num_env_steps_sampled_lifetime: 6000}
  config:
    ensemble_size: 2
    random_steps: 200
    train_batch_size_per_learner: 8
    distillation_interval: 400
    distillation_updates: 3
    replay_buffer_config: {capacity: 20000}
    model_config: {fcnet_hiddens: [16, 16]}
    min_sample_timesteps_per_iteration: 200
    seed: 0
"""
ITERATIONS = list(range(1, 31))


def iterations(folder: Path) -> list[int]:
    """Those in `result.json`; none if `progress.csv` has others."""
    found = list(folder.glob("results/killed/CIKD_*/result.json"))
    if not found:
        return []
    rows = [json.loads(line)["training_iteration"] for line in found[0].read_text().splitlines()]
    with found[0].with_name("progress.csv").open(newline="") as file:
        same = rows == [int(row["training_iteration"]) for row in csv.DictReader(file)]
    return rows if same else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signal", choices=["KILL", "TERM", "INT"], default="KILL")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--checkpoint-freq", default="1")
    args = parser.parse_args()
    draw, killed, ended, whole, refused = random.Random(0), 0, 0, 0, 0
    while killed < args.times:
        folder = Path(tempfile.mkdtemp())
        (folder / "killed.yaml").write_text(EXPERIMENT)
        command = [sys.executable, "-m", "rllib_command", "train", "file", "killed.yaml"]
        command += ["--storage-path", "results", "--checkpoint-freq", args.checkpoint_freq]
        while True:
            process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            deadline = time.monotonic() + 600
            before = len(iterations(folder))
            while process.poll() is None and len(iterations(folder)) <= before:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            time.sleep(draw.uniform(0.0, 3.0))
            if killed < args.times and process.poll() is None:
                os.kill(process.pid, getattr(signal, f"SIG{args.signal}"))
                killed += 1
            out, _ = process.communicate()
            if process.returncode == 0:
                ended += 1
                whole += iterations(folder) == ITERATIONS
                break
            if process.returncode == 2:
                refused += 1
                print(out)
                break
            if "--resume" not in command:
                command.append("--resume")
    print(
        f"SIG{args.signal} {killed} times in {ended + refused} runs: {ended} came to their end, "
        f"{whole} of them with each iteration once; {refused} could not be resumed"
    )


if __name__ == "__main__":
    main()
