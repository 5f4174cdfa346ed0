"""How KL and critic distance fall within a distillation phase, from a run's checkpoint.

    python benchmarks/distillation_curve.py CHECKPOINT [--iterations 4] [--updates 5000] \
        [--every 100] [--out FILE.csv]

The run first goes on for so many iterations (of 1,000 environment steps): checkpoints come right
after a phase, when members are alike. Then the member with the highest R_k teaches the others, on
minibatches from the replay buffer, for longer than any run would. Both distances are means over the
students, on 8192 transitions. The last lines say where a phase would have ended that stops when a
distance no longer falls: when two measurements in a row are not below 0.99 times the best before.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import torch

from rllib_cikd import CIKD
from rllib_cikd.algorithm.knowledge_sharing import (
    Teacher,
    _distillation_step,
    critic_distance,
    policy_kl,
    students_of,
)
from rllib_cikd.algorithm.members import policy_ids
from rllib_cikd.engine.optimizer import Adam
from rllib_cikd.rllib.learner import CIKDTorchLearner

IMPROVEMENT, PATIENCE = 0.99, 2


def stops_at(updates: Sequence[int], distances: Sequence[float]) -> int | None:
    """Where a phase ends that stops when this distance no longer falls; None if it still does."""
    best, waited = distances[0], 0
    for update, distance in zip(updates[1:], distances[1:], strict=True):
        waited = 0 if distance < IMPROVEMENT * best else waited + 1
        best = min(best, distance)
        if waited == PATIENCE:
            return update
    return None


def curve(
    learner: CIKDTorchLearner, teacher_id: str, updates: int, every: int
) -> list[tuple[int, float, float]]:
    """Gradient steps, mean KL, mean critic distance."""
    config = learner.config
    ids = policy_ids(config.ensemble_size)
    teacher = Teacher(learner.stacks, ids.index(teacher_id))
    ((stack, rows),) = students_of(learner.stacks, teacher.member)
    policy = stack.policy.select(rows, trainable=True)
    critics = stack.critics.select(stack.twins(rows), trainable=True)
    optimizer = Adam([policy.parameters, critics.parameters], lr=config.distillation_lr)
    step = _distillation_step(teacher, policy, critics, optimizer)
    held_out = learner._draw(8192)
    answer = teacher.answer(held_out.obs, held_out.obs_and_actions)
    points = []
    for update in range(updates + 1):
        if update % every == 0:
            with torch.no_grad():
                kl = policy_kl(answer, policy, held_out.obs)
                critic = critic_distance(answer, critics, held_out.obs_and_actions)
            points.append((update, float(kl.mean()), float(critic.mean())))
        batch = learner._draw(config.distillation_batch_size)
        step(batch.obs, batch.obs_and_actions)
    return points


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--updates", type=int, default=5000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    algo = CIKD.from_checkpoint(args.checkpoint)
    for _ in range(args.iterations):
        algo.train()
    points = curve(algo.learner_group._learner, algo.elected_policy_id, args.updates, args.every)
    algo.stop()
    steps, kl, critic = zip(*points, strict=True)
    for point in points[:: max(1, len(points) // 20)]:
        print("{:6,d} steps  KL {:8.3f}  critic distance {:8.3f}".format(*point))
    print(
        f"phases so far: {algo.history.num_phases}, environment steps: {algo.history.env_steps:,}"
    )
    print(f"the KL no longer falls: after {stops_at(steps, kl)} steps")
    print(f"the critic distance no longer falls: after {stops_at(steps, critic)} steps")
    if args.out:
        with args.out.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["gradient_steps", "kl", "critic_distance"])
            writer.writerows((s, f"{k:.6g}", f"{c:.6g}") for s, k, c in points)


if __name__ == "__main__":
    main()
