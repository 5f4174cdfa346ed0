"""How knowledge passes from the teacher to its students (CIKD, phase 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rllib_cikd.algorithm import losses
from rllib_cikd.algorithm.ensemble import MemberStack, by_twins, q_values
from rllib_cikd.algorithm.learners import ALONE, Learners
from rllib_cikd.algorithm.perceptron import perceptron
from rllib_cikd.algorithm.policy_heads import PolicyHead
from rllib_cikd.algorithm.replay_buffer import Batch
from rllib_cikd.algorithm.sac_update import SACUpdate
from rllib_cikd.engine.optimizer import Adam
from rllib_cikd.engine.perceptrons import StackedPerceptrons
from rllib_cikd.engine.recorded_step import RecordedStep

#: Values of `CIKDConfig.knowledge_sharing`, `distillation_targets` and `distillation_filter`.
KNOWLEDGE_SHARINGS = ("distillation", "hard_copy", "extra_updates", "none")
DISTILLATION_TARGETS = ("policy_and_critic", "policy", "critic")
DISTILLATION_FILTERS = ("none", "advantage")


class Teacher:
    """A frozen copy of one member's policy (one network) and twin critics (two networks)."""

    def __init__(self, stacks: Iterable[MemberStack], member: int):
        stack = next(s for s in stacks if member in s.members)
        row = stack.members.index(member)
        self.member = member
        self.head = stack.head
        self.policy = stack.policy.select([row])
        self.critics = stack.critics.select(stack.twins([row]))

    @torch.no_grad()
    def answer(self, obs: Tensor, critic_inputs: Tensor) -> TeacherAnswer:
        """What the students shall learn at a minibatch, `[B, D]` and `[B, …]`."""
        q = q_values(self.critics, critic_inputs.unsqueeze(0))
        return TeacherAnswer(self.policy(obs.unsqueeze(0))[0], q)


class TeacherAnswer(NamedTuple):
    """The teacher's outputs at a minibatch."""

    policy: Tensor  #: its output, `[B, P]`
    q: Tensor  #: of both critics, `[2, 1, B]`; of all discrete actions, `[2, 1, B * A]`


class AdvantageFilter:
    """Where a student imitates: where the ensemble prefers the teacher's action to the student's.

    The ensemble's value of an action is the mean over all members of the smaller of their twin
    critics' values; critics are those of when this was made. Actions are the deterministic ones.
    """

    def __init__(self, stacks: Sequence[MemberStack]):
        self._head = stacks[0].head
        self._critics = [s.critics.select(range(len(s.critics))) for s in stacks]

    @torch.no_grad()
    def __call__(self, obs: Tensor, teacher_policy: Tensor, student_policies: Tensor) -> Tensor:
        """1.0 where student s imitates at state b, else 0.0: `[S, B]`.

        Args:
            obs: `[B, D]`.
            teacher_policy, student_policies: Outputs of the policies, `[B, P]` and `[S, B, P]`.
        """
        outputs = torch.cat([teacher_policy[None], student_policies])
        actions = self._head.deterministic(outputs)
        by_member = [
            self._head.action_values(critics, obs, actions).amin(0) for critics in self._critics
        ]
        teacher, *students = torch.cat(by_member).mean(0)
        return torch.stack([(teacher > own).to(obs.dtype) for own in students])


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
    imitated: AdvantageFilter | None = None,
    learners: Learners = ALONE,
) -> None:
    """Every student minimises KL(teacher ‖ student) and the distance of its critics' values.

    All students of a stack learn in the same batched passes, with a fresh Adam. Only online
    networks are touched; the teacher and all target networks stay as they are.

    Args:
        stacks: The ensemble; the students' networks are overwritten in place at the end.
        teacher: Whom to learn from.
        minibatches: Gives the phase's minibatches `[B, ...]`, all students' alike.
        lr: Step size of the distillation optimiser.
        targets: One of `DISTILLATION_TARGETS`.
        imitated: At which states policies learn; None: at all.
        learners: Those that distil at the same time, each on minibatches of its own.
    """
    for stack, rows in students_of(stacks, teacher.member):
        twins = stack.twins(rows)
        policy = stack.policy.select(rows, trainable=targets != "critic")
        critics = stack.critics.select(twins, trainable=targets != "policy")
        parameters = [p for p in (policy.parameters, critics.parameters) if p.requires_grad]
        optimizer = Adam(parameters, lr=lr)
        step = RecordedStep(
            _distillation_step(teacher, policy, critics, optimizer, imitated, learners),
            [optimizer],
            records=learners.size == 1,
        )
        for batch in minibatches():
            step(batch.obs, stack.head.critic_inputs(batch))
        if targets != "critic":
            stack.policy.assign(rows, policy)
        if targets != "policy":
            stack.critics.assign(twins, critics)


def _distillation_step(
    teacher: Teacher,
    policy: StackedPerceptrons,
    critics: StackedPerceptrons,
    optimizer: Adam,
    imitated: AdvantageFilter | None = None,
    learners: Learners = ALONE,
) -> Callable[[Tensor, Tensor], None]:
    """A gradient step of S students on a minibatch, of those of their networks that learn."""
    ones = torch.ones(len(policy), device=policy.parameters.device)

    def step(obs: Tensor, critic_inputs: Tensor) -> None:
        answer = teacher.answer(obs, critic_inputs)
        losses_of_students = []
        if policy.parameters.requires_grad:
            outputs = policy.learning(obs.expand(len(policy), -1, -1))
            losses_of_students.append(policy_kl(teacher.head, answer, outputs, obs, imitated))
        if critics.parameters.requires_grad:
            q = critics.learning(critic_inputs.expand(len(critics) // 2, -1, -1))
            losses_of_students.append(losses.critic_distance(answer.q, by_twins(q)))
        optimizer.zero_grad()
        # The gradient of a sum over students is one for each of them.
        torch.autograd.backward(losses_of_students, [ones] * len(losses_of_students))
        learners.average([parameters.grad for parameters in optimizer.param_groups[0]["params"]])
        optimizer.descend()

    return step


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


def renew_target_critics(stacks: Iterable[MemberStack], teacher: int) -> None:
    """Every student's target critics become its critics."""
    for stack, rows in students_of(stacks, teacher):
        twins = stack.twins(rows)
        stack.target_critics.assign(twins, stack.critics.select(twins))


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
                widths = [w.shape[1] for w in networks.weights]
                out_dim = networks.weights[-1].shape[2]
                fresh = [
                    perceptron(
                        *(widths[0], widths[1:], out_dim),
                        *(networks.activation, networks.norm),
                    )
                    for _ in net_rows
                ]
                fresh_stack = type(networks).adopt(fresh, networks.activation, trainable=False)
                networks.assign(net_rows, fresh_stack)
            update.reset_moments(rows)


@torch.no_grad()
def distance_to_teacher(
    stacks: list[MemberStack], teacher: Teacher, batch: Batch
) -> dict[int, tuple[float, float]]:
    """KL(teacher ‖ student) and critic distance of every student, on one batch `[B, ...]`."""
    distances: dict[int, tuple[float, float]] = {}
    critic_inputs = teacher.head.critic_inputs(batch)
    answer = teacher.answer(batch.obs, critic_inputs)
    for stack, rows in students_of(stacks, teacher.member):
        policy, critics = stack.policy.select(rows), stack.critics.select(stack.twins(rows))
        outputs = policy(batch.obs.expand(len(rows), -1, -1))
        kl = policy_kl(teacher.head, answer, outputs, batch.obs)
        q = q_values(critics, critic_inputs.expand(len(rows), -1, -1))
        distance = losses.critic_distance(answer.q, q)
        for row, kl_k, distance_k in zip(rows, kl.tolist(), distance.tolist(), strict=True):
            distances[stack.members[row]] = (kl_k, distance_k)
    return distances


@torch.no_grad()
def share_imitated(
    stacks: list[MemberStack], teacher: Teacher, imitated: AdvantageFilter, batch: Batch
) -> dict[int, float]:
    """The share of the states of one batch `[B, ...]` at which each student would imitate."""
    shares: dict[int, float] = {}
    answer = teacher.answer(batch.obs, teacher.head.critic_inputs(batch))
    for stack, rows in students_of(stacks, teacher.member):
        outputs = stack.policy.select(rows)(batch.obs.expand(len(rows), -1, -1))
        by_student = imitated(batch.obs, answer.policy, outputs).mean(-1).tolist()
        shares |= {stack.members[row]: s for row, s in zip(rows, by_student, strict=True)}
    return shares


def policy_kl(
    head: PolicyHead,
    answer: TeacherAnswer,
    outputs: Tensor,
    obs: Tensor,
    imitated: AdvantageFilter | None = None,
) -> Tensor:
    """KL(teacher ‖ student) of S students with these outputs `[S, B, P]` at `[B, D]`: `[S]`.

    With a filter, of the states that are imitated.
    """
    weights = None if imitated is None else imitated(obs, answer.policy, outputs.detach())
    return head.kl(answer.policy, outputs, weights)
