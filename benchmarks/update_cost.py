"""Cost of one fused SAC update of K members, without environment and without RLlib.

    python benchmarks/update_cost.py [--members 1 2 3 5 10] [--rounds 9] [--out FILE.json]

For each K: milliseconds, GFLOP/s in matrix products and their share of the rate that one large
float32 product reaches on this machine; against the same members one after another (stacks of
one), and against K plain PyTorch agents (`tests/reference_sac.py`: nn.Sequential, autograd, one
Adam per loss). All of them take turns within each round.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import measure
import torch

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


def one_after_another(ensemble_size: int, buffer: measure.ReplayBuffer) -> Callable[[], None]:
    steps = [measure.update_step(measure.sac_update(1), buffer) for _ in range(ensemble_size)]
    return lambda: [step() for step in steps]


def main() -> None:
    args = measure.arguments(__doc__, members=[1, 2, 3, 5, 10], rounds=9, repeats=20)
    report = {}
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        buffer = measure.replay_buffer(100_000, device)
        print(f"{device}, ms for one update of all K members, medians of {args.rounds} rounds")
        print(f"{'K':>3} {'fused':>8} {'GFLOP/s':>8} {'of peak':>8} {'looped':>8} {'plain':>8}")
        report[device] = {}
        for k in args.members:
            fused = measure.update_step(measure.sac_update(k, device), buffer)
            steps = {"fused": fused}
            if device == "cpu":
                steps["looped"] = one_after_another(k, buffer)
                steps["plain"] = plain_agents(k, buffer)
            for step in steps.values():
                for _ in range(10):
                    step()
            figures = measure.take_turns(
                {
                    **{n: measure.milliseconds(f, args.repeats) for n, f in steps.items()},
                    "peak": measure.matrix_product_gflops(device),
                },
                args.rounds,
            )
            figures["rate"] = [k * measure.update_gflop() / t * 1e3 for t in figures["fused"]]
            m = measure.medians(figures)
            share = measure.ratio(figures, "rate", "peak")
            report[device][k] = {"median": m, "share_of_peak": share, "rounds": figures}
            others = "".join(f" {m.get(n, float('nan')):8.2f}" for n in ("looped", "plain"))
            print(f"{k:3d} {m['fused']:8.2f} {m['rate']:8.0f} {share:8.1%}{others}", flush=True)
    measure.write(args.out, milliseconds=report)


if __name__ == "__main__":
    main()
