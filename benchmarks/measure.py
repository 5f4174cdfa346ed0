"""What all benchmarks share: turns, medians, the machine, and how they write their figures down.

Machines drift by tens of per cent within minutes. So every figure is the median of several
rounds, whatever is compared takes turns within each round, and ratios are taken round by round.
"""

from __future__ import annotations

import argparse
import atexit
import json
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import ray
import torch

from rllib_cikd.algorithm import updates
from rllib_cikd.algorithm.ensemble import MemberStack
from rllib_cikd.algorithm.replay_buffer import ReplayBuffer
from rllib_cikd.algorithm.sac_update import SACSettings, SACUpdate
from rllib_cikd.engine import native
from rllib_cikd.engine.recorded_step import RecordedStep
from rllib_cikd.rllib.sac_module import SACModule

#: HalfCheetah-v5's observation and action dimensions, and SAC's published minibatch.
OBS_DIM, ACTION_DIM, BATCH_SIZE = 17, 6, 256
HIDDEN = 256


def arguments(doc: str | None, **defaults: Any) -> argparse.Namespace:
    """`--out` and an option for each of these defaults."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in defaults.items():
        option = "--" + name.replace("_", "-")
        if isinstance(default, list):
            parser.add_argument(option, type=type(default[0]), nargs="+", default=default)
        else:
            parser.add_argument(option, type=type(default), default=default)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": ray.__version__,
        "gymnasium": gym.__version__,
        "mujoco": mujoco.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def take_turns(
    contenders: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[float]]:
    """Lets each contender run once a round; a contender returns its own figure."""
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            figures[name].append(run())
    return figures


def milliseconds(function: Callable[[], Any], repeats: int) -> Callable[[], float]:
    """A contender that returns its time for one call, in ms, averaged over the repeats."""

    def run() -> float:
        _synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            function()
        _synchronize()
        return (time.perf_counter() - start) / repeats * 1e3

    return run


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_gflops(threads: int) -> Callable[[], float]:
    """A contender that returns the processor's peak in float32 multiply-adds, GFLOP/s.

    By `fma_peak.cpp`: PyTorch's own product of large matrices reaches half of it on some AMD ones.
    """
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    program, source = Path(folder, "fma_peak"), Path(__file__).with_name("fma_peak.cpp")
    flags = ["-O3", "-march=native", "-ffp-contract=fast", "-pthread"]
    subprocess.run(["g++", *flags, "-o", program, source], check=True)

    def run() -> float:
        done = subprocess.run([program, str(threads)], check=True, capture_output=True)
        return float(done.stdout)

    return run


def medians(figures: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in figures.items()}


def ratio(figures: Mapping[str, list[float]], a: str, b: str) -> float:
    """Median over rounds of a's figure over b's of the same round."""
    return statistics.median(x / y for x, y in zip(figures[a], figures[b], strict=True))


def write(out: Path | None, **report: Any) -> None:
    if out is not None:
        out.write_text(json.dumps({"machine": machine(), **report}, indent=2) + "\n")


# ---------------------------------------------------------------- HalfCheetah-sized parts


def sac_update(ensemble_size: int, device: str = "cpu", crossq: bool = False) -> SACUpdate:
    """Freshly drawn members, stacked."""
    spaces = {
        "observation_space": gym.spaces.Box(-np.inf, np.inf, (OBS_DIM,)),
        "action_space": gym.spaces.Box(-1.0, 1.0, (ACTION_DIM,)),
    }
    modules = [
        SACModule(**spaces, model_config={"initial_alpha": 1.0, "batch_norm": crossq}).to(device)
        for _ in range(ensemble_size)
    ]
    delay = 3 if crossq else 1
    settings = SACSettings(target_entropy=-float(ACTION_DIM), policy_delay=delay)
    return updates.sac_update(MemberStack(range(ensemble_size), modules), settings)


def replay_buffer(size: int, device: str = "cpu") -> ReplayBuffer:
    """Full of made-up transitions."""
    buffer = ReplayBuffer(size, OBS_DIM, ACTION_DIM, device)
    rng = np.random.default_rng(0)
    for first in range(0, size, 50_000):
        n = min(50_000, size - first)
        buffer.add(
            obs=rng.normal(size=(n, OBS_DIM)),
            actions=rng.uniform(-1, 1, size=(n, ACTION_DIM)),
            rewards=rng.normal(size=n),
            next_obs=rng.normal(size=(n, OBS_DIM)),
            terminated=np.zeros(n, bool),
            truncated=np.zeros(n, bool),
            episodes=np.zeros(n, int),
        )
    return buffer


def update_step(update: SACUpdate, buffer: ReplayBuffer) -> Callable[[], Any]:
    """Draws minibatches and noise and takes one SAC step of every member, as the learner does."""
    k, device = len(update.stack), update.stack.log_alpha.device
    sac_step = RecordedStep(
        lambda rows, noise: update.step(buffer.gather(rows, 0.99), noise),
        list(update.optimizers.values()),
    )

    def step() -> torch.Tensor:
        rows = torch.randint(len(buffer), (k, BATCH_SIZE), device=device)
        return sac_step(rows, torch.randn(k, 2, BATCH_SIZE, ACTION_DIM, device=device))

    return step


def with_plain_engine(step: Callable[[], Any]) -> Callable[[], Any]:
    """The same step, computed without the native library."""
    computes = native.computes

    def plainly() -> Any:
        native.computes = lambda tensor: False
        try:
            return step()
        finally:
            native.computes = computes

    return plainly


def update_gflop() -> float:
    """Multiplications and additions of one member's update in matrix products, in 1e9.

    Forward: policy at s and s', target critics, critics, critics at the policy's actions.
    Backward: critics (weights, hidden inputs), critics' inputs for the policy, policy.
    """
    actor = OBS_DIM * HIDDEN + HIDDEN**2 + HIDDEN * 2 * ACTION_DIM
    critic = (OBS_DIM + ACTION_DIM) * HIDDEN + HIDDEN**2 + HIDDEN
    hidden_only = HIDDEN**2 + HIDDEN  # what a gradient needs that stops at the first layer
    products = (
        (2 + 1) * actor  # forward twice, weight gradients once
        + (actor - OBS_DIM * HIDDEN)
        + 2 * (3 + 1) * critic  # twins: three forward passes, weight gradients
        + 2 * hidden_only
        + 2 * critic  # to the actions
    )
    return 2 * BATCH_SIZE * products / 1e9
