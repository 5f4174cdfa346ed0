"""The ensemble's parameters, stacked: one batched pass computes all members of equal shape.

Layer l of n networks is one tensor `[n, out, in]`, the real parameter that an optimiser
steps; each member module's own parameters become views into it. Members therefore stay
ordinary modules for everyone who reads or loads them, as long as loading copies in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rllib_cikd.sac_module import SACModule, split_policy_output


class StackedMLP:
    """n perceptrons of equal shape, evaluated together.

    Args:
        weights: Per layer `[n, out, in]`.
        biases: Per layer `[n, 1, out]`.
        activation: Elementwise function between the layers.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        activation: Callable[[Tensor], Tensor],
    ):
        self.weights = list(weights)
        self.biases = list(biases)
        self.activation = activation

    @classmethod
    def adopt(cls, networks: Sequence[nn.Sequential], trainable: bool) -> StackedMLP:
        """Stacks the networks' parameters and turns the networks' own into views of the stack.

        Args:
            networks: As made by `sac_module.mlp`, all of the same shape.
            trainable: Whether the stacked tensors require gradients.
        """
        weights, biases = [], []
        for layers in zip(*networks, strict=True):
            if not isinstance(layers[0], nn.Linear):
                continue
            weight = torch.stack([layer.weight.detach() for layer in layers])
            bias = torch.stack([layer.bias.detach() for layer in layers]).unsqueeze(1)
            for i, layer in enumerate(layers):
                layer.requires_grad_(False)
                layer.weight.data = weight[i]
                layer.bias.data = bias[i, 0]
            weights.append(weight.requires_grad_(trainable))
            biases.append(bias.requires_grad_(trainable))
        return cls(weights, biases, networks[0][1] if len(networks[0]) > 1 else nn.Identity())

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.weights, *self.biases]

    def __call__(self, x: Tensor) -> Tensor:
        """`[n, B, in]` -> `[n, B, out]`."""
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight.transpose(1, 2))
            if layer < last:
                x = self.activation(x)
        return x

    def frozen(self) -> StackedMLP:
        """The same networks (shared memory) with no gradient to their parameters."""
        return StackedMLP(
            [w.detach() for w in self.weights], [b.detach() for b in self.biases], self.activation
        )

    def select(self, networks: Sequence[int], trainable: bool = False) -> StackedMLP:
        """Independent copies of some of the networks."""
        index = torch.as_tensor(list(networks), device=self.weights[0].device)
        return StackedMLP(
            [w.detach()[index].requires_grad_(trainable) for w in self.weights],
            [b.detach()[index].requires_grad_(trainable) for b in self.biases],
            self.activation,
        )

    @torch.no_grad()
    def assign(self, networks: Sequence[int], source: StackedMLP) -> None:
        """Overwrites some of the networks, in place; a source of one network serves them all."""
        for own, other in zip(self.parameters, source.parameters, strict=True):
            for i, network in enumerate(networks):
                own[network].copy_(other[i if len(other) > 1 else 0])


class MemberStack:
    """Members of equal shapes: policies, twin critics, target critics, temperatures.

    Args:
        members: Their places in the ensemble, for example [0, 1, 2].
        modules: The members themselves; their parameters become views of the stack.
    """

    def __init__(self, members: Sequence[int], modules: Sequence[SACModule]):
        self.members = list(members)
        self._modules = list(modules)
        self.policy = StackedMLP.adopt([m.policy for m in modules], trainable=True)
        # Twin-major: networks 0..n-1 are the members' first critics, n..2n-1 their second.
        self.critics = StackedMLP.adopt(
            [m.qf1 for m in modules] + [m.qf2 for m in modules], trainable=True
        )
        self.target_critics = StackedMLP.adopt(
            [m.target_qf1 for m in modules] + [m.target_qf2 for m in modules], trainable=False
        )
        self.log_alpha = torch.stack([m.log_alpha.detach() for m in modules])
        for i, module in enumerate(modules):
            module.log_alpha.requires_grad_(False)
            module.log_alpha.data = self.log_alpha[i]
        self.log_alpha.requires_grad_(True)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def alpha(self) -> Tensor:
        """Temperatures, `[n, 1]`, without gradient."""
        return self.log_alpha.detach().exp()

    def twins(self, rows: Sequence[int]) -> list[int]:
        """Where the critics of the members in these rows of the stack are: firsts, then seconds."""
        return [*rows, *(row + len(self) for row in rows)]

    def is_attached(self) -> bool:
        """Whether every member's parameters still are views of the stack."""
        pairs = [(self.policy, [m.policy for m in self._modules])]
        pairs.append(
            (self.critics, [m.qf1 for m in self._modules] + [m.qf2 for m in self._modules])
        )
        targets = [m.target_qf1 for m in self._modules] + [m.target_qf2 for m in self._modules]
        pairs.append((self.target_critics, targets))
        for stack, networks in pairs:
            for i, network in enumerate(networks):
                linears = [layer for layer in network if isinstance(layer, nn.Linear)]
                for linear, weight, bias in zip(linears, stack.weights, stack.biases, strict=True):
                    if linear.weight.data_ptr() != weight[i].data_ptr():
                        return False
                    if linear.bias.data_ptr() != bias[i].data_ptr():
                        return False
        return all(
            m.log_alpha.data_ptr() == self.log_alpha[i].data_ptr()
            for i, m in enumerate(self._modules)
        )


def policy_distribution(policy: StackedMLP, obs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log std before the squashing, each `[n, B, A]`, at `obs` `[n, B, D]`."""
    return split_policy_output(policy(obs))


def q_values(critics: StackedMLP, obs_and_actions: Tensor) -> Tensor:
    """Both critics of n members at `[n, B, D + A]`: `[2, n, B]`."""
    q = critics(obs_and_actions.repeat(2, 1, 1))
    return q.view(2, *obs_and_actions.shape[:2])


def group_members(modules: Sequence[SACModule], settings: Sequence[object]) -> list[MemberStack]:
    """Stacks members that have equal network shapes and equal settings.

    A homogeneous ensemble becomes one stack, so one batched pass. An ensemble whose members
    all differ becomes K stacks of one: the same code, as a plain loop over members.
    """
    groups: dict[str, list[int]] = {}
    for k, (module, setting) in enumerate(zip(modules, settings, strict=True)):
        shapes = [tuple(p.shape) for p in module.parameters()]
        activations = [type(layer).__name__ for layer in module.policy]
        groups.setdefault(repr((shapes, activations, setting)), []).append(k)
    return [MemberStack(members, [modules[k] for k in members]) for members in groups.values()]
