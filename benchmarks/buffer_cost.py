"""Cost of the replay buffer: drawing K minibatches and adding transitions, beside one update.

python benchmarks/buffer_cost.py [--sizes 100000 1000000] [--ensemble-size 3] [--out FILE.json]
"""

from __future__ import annotations

import measure
import numpy as np
import torch


def main() -> None:
    args = measure.arguments(
        __doc__, sizes=[100_000, 1_000_000], ensemble_size=3, rounds=9, repeats=50
    )
    k, report = args.ensemble_size, {}
    fragment = {
        "obs": np.zeros((50, measure.OBS_DIM), np.float32),
        "actions": np.zeros((50, measure.ACTION_DIM), np.float32),
        "rewards": np.zeros(50, np.float32),
        "next_obs": np.zeros((50, measure.OBS_DIM), np.float32),
        "terminated": np.zeros(50, bool),
        "truncated": np.zeros(50, bool),
        "episodes": np.zeros(50, int),
    }
    for size in args.sizes:
        buffer = measure.replay_buffer(size)
        step = measure.update_step(measure.sac_update(k), buffer)

        def draw(buffer=buffer) -> None:
            buffer.gather(torch.randint(len(buffer), (k, measure.BATCH_SIZE)), 0.99)

        contenders = {
            "draw": measure.milliseconds(draw, args.repeats),
            "add 50": measure.milliseconds(lambda b=buffer: b.add(**fragment), args.repeats),
            "update": measure.milliseconds(step, args.repeats),
        }
        for run in contenders.values():
            run()
        figures = measure.take_turns(contenders, args.rounds)
        m = measure.medians(figures)
        share = measure.ratio(figures, "draw", "update")
        report[size] = {"median": m, "draw_share_of_update": share, "rounds": figures}
        print(
            f"{size:9,d} transitions: {k} minibatches of {measure.BATCH_SIZE} in {m['draw']:.3f} "
            f"ms, {share:.1%} of an update ({m['update']:.2f} ms); one transition added in "
            f"{m['add 50'] / 50 * 1e3:.1f} us",
            flush=True,
        )
    measure.write(args.out, by_buffer_size=report)


if __name__ == "__main__":
    main()
