"""Cost of one distillation phase, and its share of a training run, at growing buffer sizes.

    python benchmarks/distillation_cost.py [--sizes 10000 100000 1000000] [--device cpu]
        [--out FILE.json]

Default settings: 300 gradient steps of the students on minibatches of 256, every 5000
environment steps, K = 3. The phase takes turns with SAC updates; its share is that of the phase
in phase + 5000 updates, so an upper bound of its share of wall time, sampling left out.
"""

from __future__ import annotations

import measure
import torch

from rllib_cikd import CIKDConfig
from rllib_cikd.algorithm.knowledge_sharing import Teacher, distill


def main() -> None:
    args = measure.arguments(
        __doc__,
        sizes=[10_000, 100_000, 1_000_000],
        ensemble_size=3,
        rounds=7,
        steps=100,
        device="cpu",
    )
    config = CIKDConfig()
    report = {}
    print(
        f"{'buffer':>9} {'distil, ms/step':>16} {'SAC, ms/update':>15} {'phase, s':>9} {'share':>6}"
    )
    for size in args.sizes:
        buffer = measure.replay_buffer(size, args.device)
        update = measure.sac_update(args.ensemble_size, args.device)

        def phase(steps: int = args.steps, buffer=buffer, update=update) -> None:
            shape = (steps, config.distillation_batch_size)
            rows = torch.randint(len(buffer), shape, device=args.device)
            distill(
                [update.stack],
                Teacher([update.stack], 0),
                lambda: (buffer.gather(r, 0.99) for r in rows),
                lr=config.distillation_lr,
            )

        step = measure.update_step(update, buffer)
        for _ in range(10):  # on a GPU, the first ones are recorded
            step()
        phase(8)
        distil = measure.milliseconds(phase, 1)
        figures = measure.take_turns(
            {
                "distil": lambda distil=distil: distil() / args.steps,
                "update": measure.milliseconds(step, args.steps),
            },
            args.rounds,
        )
        shares = [
            config.distillation_updates
            * d
            / (config.distillation_updates * d + config.distillation_interval * u)
            for d, u in zip(figures["distil"], figures["update"], strict=True)
        ]
        m = measure.medians({**figures, "share": shares})
        report[size] = {"median": m, "rounds": figures}
        seconds = config.distillation_updates * m["distil"] / 1e3
        print(
            f"{size:9,d} {m['distil']:16.2f} {m['update']:15.2f} {seconds:9.1f} {m['share']:6.1%}",
            flush=True,
        )
    measure.write(args.out, by_buffer_size=report)


if __name__ == "__main__":
    main()
