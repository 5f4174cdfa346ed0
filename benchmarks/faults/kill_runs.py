"""Kills real runs at random moments and resumes them until they end; counts what was lost.

python benchmarks/faults/kill_runs.py [--signal KILL|TERM|INT] [--times 10] [--checkpoint-freq 1]
                                      [--batch-norm]

Each run has 30 iterations of 200 steps; with `--batch-norm` its members are CrossQ agents. Runs are
killed `--times` times in all, over as many of them as that takes; with SIGKILL every other time all
of Ray's processes with it, as when a machine goes down. Counted are: checkpoints that are damaged
but not known as such, resumed runs that did not go on from the newest whole checkpoint, and runs
that came to their end with each iteration once in `result.json` and `progress.csv`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
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

import psutil

from rllib_cikd.common.errors import DamagedCheckpoint
from rllib_cikd.rllib.manifest import check_checkpoint

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
    model_config: {fcnet_hiddens: [16, 16]%s}
    min_sample_timesteps_per_iteration: 200
    seed: 0
"""
ITERATIONS = list(range(1, 31))


def rows_of(folder: Path) -> list[dict]:
    """The rows of `result.json`; the last one may be written just now."""
    rows = []
    for file in folder.glob("results/killed/CIKD_*/result.json"):
        for line in file.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
    return rows


def rows_since(folder: Path, began: float) -> list[dict]:
    """Of a command that was started then; Tune's times are whole seconds."""
    return [row for row in rows_of(folder) if row["timestamp"] > began]


def is_whole_run(folder: Path) -> bool:
    """Whether both files have each iteration once."""
    rows = [row["training_iteration"] for row in rows_of(folder)]
    (file,) = folder.glob("results/killed/CIKD_*/progress.csv")
    with file.open(newline="") as text:
        same = rows == [int(row["training_iteration"]) for row in csv.DictReader(text)]
    return same and rows == ITERATIONS


def newest_whole(folder: Path) -> int:
    """The iteration of the newest whole checkpoint, every byte checked; 0 if there is none."""
    found = [0]
    for path in folder.glob("results/killed/CIKD_*/checkpoint_*"):
        with contextlib.suppress(DamagedCheckpoint):
            found.append(check_checkpoint(str(path)).training_iteration)
    return max(found)


def kill(process: subprocess.Popen, number: int, everything: bool) -> None:
    """Sends the signal to the command; `everything`: and to all that it has started."""
    others = psutil.Process(process.pid).children(recursive=True) if everything else []
    os.kill(process.pid, number)
    for other in others:
        with contextlib.suppress(psutil.NoSuchProcess):
            other.send_signal(number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signal", choices=["KILL", "TERM", "INT"], default="KILL")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--checkpoint-freq", default="1")
    parser.add_argument("--batch-norm", action="store_true")
    args = parser.parse_args()
    number = getattr(signal, f"SIG{args.signal}")
    experiment = EXPERIMENT % (", batch_norm: true" if args.batch_norm else "")
    draw = random.Random(0)
    counts: collections.Counter[str] = collections.Counter()
    while counts["killed"] < args.times:
        folder = Path(tempfile.mkdtemp())
        (folder / "killed.yaml").write_text(experiment)
        resumes = [sys.executable, "-m", "rllib_command", "train", "file", "killed.yaml"]
        resumes += ["--storage-path", "results", "--resume"]
        command = [*resumes[:-1], "--checkpoint-freq", args.checkpoint_freq]
        resumed_from = None
        while True:
            process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            began, deadline = time.time(), time.monotonic() + 600
            while process.poll() is None and not rows_since(folder, began):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            time.sleep(draw.uniform(0.0, 3.0))
            if counts["killed"] < args.times and process.poll() is None:
                kill(process, number, args.signal == "KILL" and counts["killed"] % 2 == 1)
                counts["killed"] += 1
            out, _ = process.communicate()
            if out.startswith("rllib: error") or "\nrllib: error" in out:
                raise SystemExit(out)
            rows = rows_since(folder, began)
            if (
                resumed_from is not None and rows
            ):  # else it was over, or killed before its first one
                # Or a newer one: Ray's workers outlive the command, and may finish a checkpoint.
                good = rows[0]["training_iteration"] > resumed_from
                counts["resumed from the newest whole checkpoint"] += good
                if not good:
                    counts["RESUMED ELSEWHERE"] += 1
                    print(f"resumed from {resumed_from}?\n{out}", flush=True)
            if process.returncode == 0:
                counts["ended"] += 1
                counts["ended whole"] += is_whole_run(folder)
                break
            resumed_from = newest_whole(folder)
            if resumed_from == 0:
                counts["nothing saved yet"] += 1
                break
            command = resumes
        print(
            f"SIG{args.signal}:", ", ".join(f"{n} {what}" for what, n in counts.items()), flush=True
        )


if __name__ == "__main__":
    main()
