"""The ensemble's parameters, stacked: one batched pass computes all members of equal shape.

The stacked tensors are the real parameters, which optimisers step; each member module's own
parameters are views into them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from rllib_cikd.algorithm.policy_heads import PolicyHead
from rllib_cikd.engine.batch_normalized import BatchNormalizedPerceptrons
from rllib_cikd.engine.perceptrons import StackedPerceptrons


class Member(Protocol):
    """The networks of one SAC agent, as its module has them."""

    policy: nn.Sequential
    qf1: nn.Sequential
    qf2: nn.Sequential
    target_qf1: nn.Sequential
    target_qf2: nn.Sequential
    log_alpha: nn.Parameter
    activation: str
    batch_norm: bool
    head: PolicyHead

    def parameters(self) -> Iterable[Tensor]: ...


class MemberStack:
    """Members of equal shapes: policies, twin critics, target critics, temperatures.

    Args:
        members: Their places in the ensemble, for example [0, 1, 2].
        modules: The members themselves; their parameters become views of the stack.
    """

    def __init__(self, members: Sequence[int], modules: Sequence[Member]):
        self.members = list(members)
        self._modules = list(modules)
        activation = modules[0].activation
        self.head = modules[0].head
        # Twin-major: networks 0..n-1 are the members' first critics, n..2n-1 their second.
        policies, critics, targets = self._networks()
        kind = BatchNormalizedPerceptrons if modules[0].batch_norm else StackedPerceptrons
        self.policy = kind.adopt(policies, activation, trainable=True)
        self.critics = kind.adopt(critics, activation, trainable=True)
        self.target_critics = kind.adopt(targets, activation, trainable=False)
        self.log_alpha = torch.stack([m.log_alpha.detach() for m in modules])
        for i, module in enumerate(modules):
            module.log_alpha.requires_grad_(False)
            module.log_alpha.data = self.log_alpha[i]
        self.log_alpha.requires_grad_(True)

    def _networks(self) -> tuple[list, list, list]:
        """The members' own policies, critics and target critics, in the order of the stacks."""
        modules = self._modules
        return (
            [m.policy for m in modules],
            [m.qf1 for m in modules] + [m.qf2 for m in modules],
            [m.target_qf1 for m in modules] + [m.target_qf2 for m in modules],
        )

    def __len__(self) -> int:
        return len(self.members)

    @property
    def tensors(self) -> list[Tensor]:
        """All that the members consist of."""
        networks = (self.policy, self.critics, self.target_critics)
        tensors = [t for stacked in networks for t in (stacked.parameters, *stacked.statistics)]
        return [*tensors, self.log_alpha]

    @property
    def alpha(self) -> Tensor:
        """Temperatures, `[n, 1]`, without gradient."""
        return self.log_alpha.detach().exp()

    def twins(self, rows: Sequence[int]) -> list[int]:
        """Where the critics of the members in these rows of the stack are: firsts, then seconds."""
        return [*rows, *(row + len(self) for row in rows)]

    def is_attached(self) -> bool:
        """Whether every member's parameters still are views of the stack."""
        policies, critics, targets = self._networks()
        return (
            self.policy.holds(policies)
            and self.critics.holds(critics)
            and self.target_critics.holds(targets)
            and all(
                m.log_alpha.data_ptr() == self.log_alpha[i].data_ptr()
                for i, m in enumerate(self._modules)
            )
        )


def q_values(critics: StackedPerceptrons, obs_and_actions: Tensor, frozen: bool = False) -> Tensor:
    """Both critics of n members at `[n, B, D + A]`: `[2, n, B]`.

    With discrete actions, at `[n, B, D]`: the values of all A actions, `[2, n, B * A]`. With
    `frozen`, the critics' parameters get no gradient.
    """
    # Both critics of a member share its inputs.
    return by_twins(critics(obs_and_actions, frozen=frozen))


def by_twins(outputs: Tensor) -> Tensor:
    """Outputs of twin critics `[2n, B, ...]`, first all firsts, then all seconds: `[2, n, B]`."""
    return outputs.view(2, len(outputs) // 2, -1)


def q_values_of_pairs(
    critics: StackedPerceptrons, obs_and_actions: Tensor, pairs: Tensor
) -> Tensor:
    """As `q_values`, each member judged by two of all 2n critics, whosever they are.

    Args:
        critics: Of n members.
        obs_and_actions: `[n, B, ...]`.
        pairs: A permutation of the 2n critics, `[2, n]`: columns are the members' critics. So each
            critic judges once, and it costs no more than with their own.
    """
    n, order = len(obs_and_actions), pairs.flatten()
    whom_it_judges = order.argsort() % n  # of each critic
    return critics(obs_and_actions[whom_it_judges])[order].view(2, n, -1)


def group_members(modules: Sequence[Member], settings: Sequence[object]) -> list[MemberStack]:
    """Stacks members that have equal network shapes and equal settings.

    A homogeneous ensemble becomes one stack, so one batched pass. An ensemble whose members
    all differ becomes K stacks of one: the same code, as a plain loop over members.
    """
    groups: dict[str, list[int]] = {}
    for k, (module, setting) in enumerate(zip(modules, settings, strict=True)):
        shapes = [tuple(p.shape) for p in module.parameters()]
        layers = [type(layer).__name__ for layer in module.qf1]
        key = repr((shapes, layers, module.activation, setting))
        groups.setdefault(key, []).append(k)
    return [MemberStack(members, [modules[k] for k in members]) for members in groups.values()]
