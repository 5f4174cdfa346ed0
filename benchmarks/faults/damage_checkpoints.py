"""Damages a real checkpoint in many ways and tries to load each; measures what the check costs.

python benchmarks/faults/damage_checkpoints.py [--damages 60] [--transitions 1000000]

Prints how many damaged checkpoints were loaded (there must be none), and the MB/s of the check on a
checkpoint with a large replay buffer.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import ray

from rllib_cikd import CIKDConfig
from rllib_cikd.common.errors import DamagedCheckpoint
from rllib_cikd.rllib.manifest import check_checkpoint


def flip(file: Path, at: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[at.randrange(len(content))] ^= 1 << at.randrange(8)
    file.write_bytes(content)


def cut_short(file: Path, at: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: at.randrange(len(content))])


def remove(file: Path, at: random.Random) -> None:
    file.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--damages", type=int, default=60)
    parser.add_argument("--transitions", type=int, default=1_000_000)
    args = parser.parse_args()
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    config = CIKDConfig().environment("Pendulum-v1").debugging(seed=0, log_level="ERROR")
    algo = config.training(
        random_steps=100, replay_buffer_config={"capacity": args.transitions}
    ).build_algo()
    algo.train()
    folder = Path(tempfile.mkdtemp())
    path = Path(algo.save_to_path(folder / "checkpoint"))
    files = [p.relative_to(path) for p in sorted(path.rglob("*")) if p.is_file()]
    at, loaded = random.Random(0), 0
    damages = itertools.cycle(itertools.product((remove, cut_short, flip), files))
    for damage, file in itertools.islice(damages, args.damages):
        copy = Path(shutil.copytree(path, folder / "copy"))
        damage(copy / file, at)
        try:
            algo.restore_from_path(copy)
        except DamagedCheckpoint:
            pass
        else:
            loaded += 1
            print(f"loaded: {file} after {damage.__name__}")
        shutil.rmtree(copy)
    print(f"{args.damages} damages of {len(files)} files: {loaded} loaded")

    buffer = algo.learner_group._learner.replay_buffer
    zeros = np.zeros(10_000, np.float32)
    while len(buffer) < args.transitions:
        buffer.add(
            obs=np.random.rand(10_000, 3),
            next_obs=np.random.rand(10_000, 3),
            actions=np.random.rand(10_000, 1),
            rewards=zeros,
            terminated=zeros,
            truncated=zeros,
            episodes=np.zeros(10_000, int),
        )
    start = time.perf_counter()
    path = Path(algo.save_to_path(folder / "large"))
    saved = time.perf_counter()
    check_checkpoint(str(path))
    checked = time.perf_counter()
    megabytes = sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) / 1e6
    print(
        f"{args.transitions:,} transitions, {megabytes:,.0f} MB: saved in {saved - start:.2f} s, "
        f"checked in {checked - saved:.2f} s ({megabytes / (checked - saved):,.0f} MB/s)"
    )
    algo.stop()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
