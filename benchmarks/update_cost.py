"""Cost of one SAC update of K members, without environment and without RLlib.

    python benchmarks/update_cost.py [--members 1 3 5] [--threads 1 2] [--out FILE.json]

For each K and number of threads: milliseconds by the native engine and by the plain one, and of K
plain PyTorch agents (`tests/reference_sac.py`: nn.Sequential, autograd, one Adam per loss), and of
K CrossQ members (`batch_norm`, policies that learn in every third step); the
native engine's GFLOP/s in matrix products, their share of the processor's peak in float32
(`fma_peak.cpp`; needs g++), and the update's time over what its matrix products would take at that
peak. All of them take turns within each round.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import torch

from rllib_cikd.engine import library

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from reference_sac import Minibatch, ReferenceSAC


def plain_agents(ensemble_size: int, buffer: measure.ReplayBuffer) -> Callable[[], None]:
    """K independent agents of plain PyTorch, one update of each."""
    agents = []
    for _ in range(ensemble_size):
        (module,) = measure.sac_update(1).stack._modules
        weights = {name: p.detach().numpy().copy() for name, p in module.state_dict().items()}
        agents.append(ReferenceSAC(weights, target_entropy=-float(measure.ACTION_DIM)))

    def step() -> None:
        for agent in agents:
            rows = torch.randint(len(buffer), (measure.BATCH_SIZE,))
            noise = torch.randn(2, measure.BATCH_SIZE, measure.ACTION_DIM)
            batch = buffer.gather(rows, 0.99)
            terminated = (batch.discounts == 0).float()
            minibatch = Minibatch(
                batch.obs, batch.actions, batch.rewards, terminated, batch.next_obs
            )
            agent.update(minibatch, *noise)

    return step


def main() -> None:
    args = measure.arguments(__doc__, members=[1, 3, 5], threads=[1, 2], rounds=9, repeats=20)
    print(library.describe())
    report: dict[str, dict] = {}
    for threads in args.threads:
        torch.set_num_threads(threads)
        report[f"cpu, {threads} threads"] = on_cpu(args, f"{threads} threads")
    if torch.cuda.is_available():
        report["cuda"] = on_gpu(args)
    measure.write(args.out, milliseconds=report)


def on_cpu(args: Any, what: str) -> dict[int, Any]:
    buffer = measure.replay_buffer(100_000)
    print(f"{what}: ms for one update of all K members, medians of {args.rounds} rounds")
    print(
        f"{'K':>3} {'native':>8} {'plain':>8} {'agents':>8} {'crossq':>8} {'GFLOP/s':>8} "
        f"{'peak':>8} {'of peak':>8} {'over products':>14}"
    )
    report = {}
    for k in args.members:
        update = measure.update_step(measure.sac_update(k), buffer)
        steps = {
            "native": update,
            "plain": measure.with_plain_engine(measure.update_step(measure.sac_update(k), buffer)),
            "agents": plain_agents(k, buffer),
            "crossq": measure.update_step(measure.sac_update(k, crossq=True), buffer),
        }
        for step in steps.values():
            for _ in range(10):
                step()
        figures = measure.take_turns(
            {
                **{n: measure.milliseconds(f, args.repeats) for n, f in steps.items()},
                "peak": measure.peak_gflops(torch.get_num_threads()),
            },
            args.rounds,
        )
        gflop = k * measure.update_gflop()
        figures["rate"] = [gflop / t * 1e3 for t in figures["native"]]
        figures["products"] = [gflop / rate * 1e3 for rate in figures["peak"]]
        m = measure.medians(figures)
        share = measure.ratio(figures, "rate", "peak")
        over = measure.ratio(figures, "native", "products")
        report[k] = {"median": m, "share_of_peak": share, "rounds": figures}
        print(
            f"{k:3d} {m['native']:8.2f} {m['plain']:8.2f} {m['agents']:8.2f} {m['crossq']:8.2f} "
            f"{m['rate']:8.0f} {m['peak']:8.0f} {share:8.1%} {over:9.2f} times",
            flush=True,
        )
    return report


def on_gpu(args: Any) -> dict[int, Any]:
    buffer = measure.replay_buffer(100_000, "cuda")
    print(f"{torch.cuda.get_device_name()}: ms for one update of all K members")
    report = {}
    for k in args.members:
        step = measure.update_step(measure.sac_update(k, "cuda"), buffer)
        for _ in range(10):  # the first ones are recorded
            step()
        figures = measure.take_turns({"update": measure.milliseconds(step, 200)}, args.rounds)
        report[k] = {"median": measure.medians(figures), "rounds": figures}
        print(f"{k:3d} {report[k]['median']['update']:8.3f}", flush=True)
    return report


if __name__ == "__main__":
    main()
