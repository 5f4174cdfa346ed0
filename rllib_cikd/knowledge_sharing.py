"""How knowledge passes from the teacher to its students (CIKD, phase 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from rllib_cikd import losses
from rllib_cikd.ensemble import MemberStack, policy_distribution, q_values
from rllib_cikd.replay_buffer import Batch
from rllib_cikd.sac_module import mlp
from rllib_cikd.sac_update import SACUpdate
from rllib_cikd.stacked_mlp import StackedMLP

#: Values of `CIKDConfig.knowledge_sharing` and `CIKDConfig.distillation_targets`.
KNOWLEDGE_SHARINGS = ("distillation", "hard_copy", "extra_updates", "none")
DISTILLATION_TARGETS = ("policy_and_critic", "policy", "critic")


class Teacher:
    """A frozen copy of one member's policy (one network) and twin critics (two networks)."""

    def __init__(self, stacks: Iterable[MemberStack], member: int):
        stack = next(s for s in stacks if member in s.members)
        row = stack.members.index(member)
        self.member = member
        self.policy = stack.policy.select([row])
        self.critics = stack.critics.select(stack.twins([row]))


def students_of(
    stacks: Iterable[MemberStack], teacher: int
) -> Iterator[tuple[MemberStack, list[int]]]:
    """Each stack with the rows of it that hold students: everyone but the teacher."""
    for stack in stacks:
        rows = [row for row, member in enumerate(stack.members) if member != teacher]
        if rows:
            yield stack, rows


def distill(
    stacks: list[MemberStack],
    teacher: Teacher,
    minibatches: Callable[[], Iterable[Batch]],
    lr: float,
    targets: str = "policy_and_critic",
) -> None:
    """Every student minimises KL(teacher ‖ student) and the distance of its critics' values.

    All students of a stack learn in the same batched passes, with a fresh Adam. Only online
    networks are touched; the teacher and all target networks stay as they are.

    Args:
        stacks: The ensemble; the students' networks are overwritten in place at the end.
        teacher: Whom to learn from.
        minibatches: Gives the phase's minibatches `[B, ...]`, each for all students.
        lr: Step size of the distillation optimiser.
        targets: One of `DISTILLATION_TARGETS`.
    """
    with_policy, with_critic = targets != "critic", targets != "policy"
    for stack, rows in students_of(stacks, teacher.member):
        twins = stack.twins(rows)
        policy = stack.policy.select(rows, trainable=with_policy)
        critics = stack.critics.select(twins, trainable=with_critic)
        parameters = [p for p in policy.parameters + critics.parameters if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
        for batch in minibatches():
            loss = torch.zeros((), device=batch.obs.device)
            if with_policy:
                loss = loss + _policy_kl(teacher, policy, batch).sum()
            if with_critic:
                loss = loss + _critic_distance(teacher, critics, batch).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if with_policy:
            stack.policy.assign(rows, policy)
        if with_critic:
            stack.critics.assign(twins, critics)


def hard_copy(
    stacks: list[MemberStack], teacher: Teacher, targets: str = "policy_and_critic"
) -> None:
    """Every student's online networks become the teacher's.

    Raises:
        ValueError: If a student's networks differ in shape from the teacher's.
    """
    for stack, rows in students_of(stacks, teacher.member):
        if targets != "critic":
            stack.policy.assign(rows, teacher.policy)
        if targets != "policy":
            n = len(rows)
            twins = stack.twins(rows)
            stack.critics.assign(twins[:n], teacher.critics.select([0]))
            stack.critics.assign(twins[n:], teacher.critics.select([1]))


def reset_students(updates: Iterable[SACUpdate], teacher: int, seed: int) -> None:
    """Draws every student's online networks anew and forgets their optimiser moments.

    Target networks and temperatures stay; the targets then follow the new networks by τ.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _reset_students(updates, teacher)


def _reset_students(updates: Iterable[SACUpdate], teacher: int) -> None:
    for update in updates:
        for stack, rows in students_of([update.stack], teacher):
            for networks, net_rows in (
                (stack.policy, rows),
                (stack.critics, stack.twins(rows)),
            ):
                widths = [w.shape[2] for w in networks.weights]
                out_dim = networks.weights[-1].shape[1]
                fresh = [mlp(widths[0], widths[1:], out_dim, networks.activation) for _ in net_rows]
                fresh_stack = StackedMLP.adopt(fresh, networks.activation, trainable=False)
                networks.assign(net_rows, fresh_stack)
            update.reset_moments(rows)


@torch.no_grad()
def distance_to_teacher(
    stacks: list[MemberStack], teacher: Teacher, batch: Batch
) -> dict[int, tuple[float, float]]:
    """KL(teacher ‖ student) and critic distance of every student, on one batch `[B, ...]`."""
    distances: dict[int, tuple[float, float]] = {}
    for stack, rows in students_of(stacks, teacher.member):
        kl = _policy_kl(teacher, stack.policy.select(rows), batch)
        critic = _critic_distance(teacher, stack.critics.select(stack.twins(rows)), batch)
        for row, kl_k, critic_k in zip(rows, kl.tolist(), critic.tolist(), strict=True):
            distances[stack.members[row]] = (kl_k, critic_k)
    return distances


def _policy_kl(teacher: Teacher, students: StackedMLP, batch: Batch) -> Tensor:
    """`[S]`, from a minibatch `[B, ...]` that all S students share."""
    obs = batch.obs.unsqueeze(0)
    with torch.no_grad():
        teacher_mean, teacher_log_std = policy_distribution(teacher.policy, obs)
    n = len(students)
    mean, log_std = policy_distribution(students, obs.expand(n, -1, -1))
    return losses.policy_kl(teacher_mean, teacher_log_std, mean, log_std)


def _critic_distance(teacher: Teacher, students: StackedMLP, batch: Batch) -> Tensor:
    """`[S]`, from a minibatch `[B, ...]` that all S students share."""
    inputs = batch.obs_and_actions.unsqueeze(0)
    with torch.no_grad():
        teacher_q = q_values(teacher.critics, inputs)
    n = len(students) // 2
    return losses.critic_distance(teacher_q, q_values(students, inputs.expand(n, -1, -1)))
