"""Kills a study of 24 runs at random moments and starts it again until it ends; counts the losses.

    python benchmarks/faults/kill_study.py [--times 10]

Every other time all of Ray's processes die with the command, as when a machine goes down. Counted
are: runs that had ended and whose raw figures were touched afterwards, and, in the end, runs that
are missing, or have not each evaluation and each iteration once.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from kill_runs import kill

EXPERIMENT = """
small:
  run: CIKD
  env: Pendulum-v1
  stop: {num_env_steps_sampled_lifetime: 2000}
  config:
    random_steps: 200
    train_batch_size_per_learner: 8
    distillation_interval: 400
    distillation_updates: 3
    replay_buffer_config: {capacity: 20000}
    model_config: {fcnet_hiddens: [16, 16]}
    min_sample_timesteps_per_iteration: 200
    evaluation_interval: 1
    evaluation_duration: 2
"""
STUDY = """
tuned_examples: [small.yaml]
variants: [vanilla-sac, ensemble-sac, cikd, cikd-hardcopy]
seeds: [0, 1, 2, 3, 4, 5]
steps: 2000
"""
RUNS, ITERATIONS = 24, list(range(1, 11))


def raw_of_ended(folder: Path) -> dict[Path, bytes]:
    """The raw figures of runs that Tune's record says have ended."""
    ended = []
    for record in folder.glob("session-*/experiment_state-*.json"):
        with contextlib.suppress(ValueError):
            trials = [json.loads(t) for t, _ in json.loads(record.read_text())["trial_data"]]
            ended += [t["config"]["__cell__"] for t in trials if t["status"] == "TERMINATED"]
    files = [path for name in ended for path in (folder / "raw").glob(f"{name}.*.csv")]
    return {path: path.read_bytes() for path in files}


def has_each_once(folder: Path, evaluations: Path) -> bool:
    """Whether a run has each evaluation and each iteration once."""
    rows = pd.read_csv(evaluations)
    steps = [200 * i for i in ITERATIONS]
    members = rows.groupby("member")["step"].apply(list)
    name = evaluations.name.removesuffix(".evaluations.csv")
    (results,) = folder.glob(f"session-*/{name}*/result.json")
    iterations = [json.loads(line)["training_iteration"] for line in results.open()]
    return all(member == steps for member in members) and iterations == ITERATIONS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=10)
    args = parser.parse_args()
    draw = random.Random(0)
    home = Path(tempfile.mkdtemp())
    (home / "small.yaml").write_text(EXPERIMENT)
    (home / "killed.yaml").write_text(STUDY)
    folder = home / "results" / "killed"
    command = [sys.executable, "-m", "rllib_command", "study", "run", "killed.yaml"]
    command += ["--storage-path", "results"]
    counts: collections.Counter[str] = collections.Counter()
    while True:
        before = raw_of_ended(folder)
        process = subprocess.Popen(
            command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if counts["killed"] < args.times:
            began, wait = time.monotonic(), draw.uniform(5.0, 30.0)
            while process.poll() is None and time.monotonic() < began + wait:
                time.sleep(0.1)
            if process.poll() is None:
                kill(process, signal.SIGKILL, counts["killed"] % 2 == 1)
                counts["killed"] += 1
        out, _ = process.communicate()
        after = {path: path.read_bytes() for path in before}
        counts["TOUCHED AFTERWARDS"] += sum(before[path] != after[path] for path in before)
        print(f"{counts['killed']} killed, {len(raw_of_ended(folder)) // 2} ended", flush=True)
        if process.returncode == 0:
            break
        if process.returncode > 0:  # not by the signal
            print(out, flush=True)
            counts["FAILED"] += 1
            break
    found = sorted((folder / "raw").glob("*.evaluations.csv"))
    whole = sum(has_each_once(folder, path) for path in found)
    counts["runs ended"], counts["runs ended whole"] = len(found), whole
    print(f"{RUNS} runs:", ", ".join(f"{n} {what}" for what, n in counts.items()), flush=True)


if __name__ == "__main__":
    main()
