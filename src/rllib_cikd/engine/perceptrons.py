"""n perceptrons of equal shape evaluated together, by the native engine or by plain PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rllib_cikd.engine import native, native_elementwise

#: Per activation, by RLlib's name: the module and the function.
ACTIVATIONS: dict[str, tuple[type[nn.Module], Callable[[Tensor], Tensor]]] = {
    "relu": (nn.ReLU, torch.relu),
    "tanh": (nn.Tanh, torch.tanh),
    "elu": (nn.ELU, nn.functional.elu),
}


class _Native(torch.autograd.Function):
    """The native engine's forward and backward pass, for autograd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameters: Tensor, shape: native.Shape) -> Tensor:
        keep = native.FOR_PARAMETERS if ctx.needs_input_grad[1] else native.FOR_INPUTS
        y, ctx.kept = native.forward(shape, parameters, x, keep)
        # For the backward pass, and for autograd's check that nobody has changed them since.
        ctx.save_for_backward(parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (parameters,) = ctx.saved_tensors
        return *native.backward(ctx.kept, parameters, grads[0], *ctx.needs_input_grad[:2]), None


class StackedPerceptrons:
    """n perceptrons of equal shape, evaluated together.

    All their weights and biases are one tensor, `parameters` `[P]`, so that the step of an
    optimiser or of target networks is one operation. `weights` and `biases` are views into it,
    and so become the n networks' own parameters (`adopt`): they stay ordinary modules for
    everyone who reads or loads them, as long as loading copies in place.

    Float32 parameters on the CPU are the native engine's, if it is there. All others go through
    batched products and autograd.

    Args:
        weights: Per layer `[n, in, out]`; their values are copied.
        biases: Per layer `[n, 1, out]`.
        activation: A key of `ACTIVATIONS`.
        trainable: Whether `parameters` requires a gradient.
        norm: "layer": each hidden layer is normalised before its activation, less its mean and
            divided by its deviation (layer normalisation, Ba et al. 2016, without parameters); or
            "none".
        more: Further kinds of parameters that a layer has, each per layer `[n, ...]`.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        activation: str,
        trainable: bool = False,
        norm: str = "none",
        more: Sequence[Sequence[Tensor]] = (),
    ):
        blocks = [block for layer in zip(weights, biases, *more, strict=True) for block in layer]
        self._kinds = 2 + len(more)
        self._shapes = [block.shape for block in blocks]
        self.activation, self.norm = activation, norm
        self.parameters = torch.cat([block.detach().flatten() for block in blocks])
        self._frozen = self.parameters.detach()
        self.weights, self.biases, *self._more = self.by_kind(self._frozen)
        self.parameters.requires_grad_(trainable)
        self._native_shape = None
        if len(weights) <= native.MAX_LAYERS:
            widths = [weights[0].shape[1], *(weight.shape[2] for weight in weights)]
            self._native_shape = native.Shape(len(weights[0]), widths, activation, norm == "layer")

    @classmethod
    def adopt(
        cls, networks: Sequence[nn.Sequential], activation: str, trainable: bool
    ) -> StackedPerceptrons:
        """Stacks the networks' parameters and turns the networks' own into views of the stack.

        Args:
            networks: Linear layers with the activation in between, or layer normalisation without
                parameters and the activation; all of the same shape.
            activation: Theirs, a key of `ACTIVATIONS`.
            trainable: Whether `parameters` requires a gradient.
        """
        norm = any(isinstance(layer, nn.LayerNorm) for layer in networks[0])
        stack = cls(*cls._stacked(networks), activation, trainable, "layer" if norm else "none")
        stack._own(networks)
        return stack

    @staticmethod
    def _stacked(networks: Sequence[nn.Sequential]) -> tuple[list[Tensor], list[Tensor]]:
        """Per layer the networks' weights `[n, in, out]` and biases `[n, 1, out]`."""
        layers = list(zip(*(linears(network) for network in networks), strict=True))
        weights = [torch.stack([linear.weight.t() for linear in layer]) for layer in layers]
        biases = [torch.stack([layer.bias for layer in of_one]).unsqueeze(1) for of_one in layers]
        return weights, biases

    def _own(self, networks: Sequence[nn.Sequential]) -> None:
        """The networks' weights and biases become views into this stack."""
        for i, network in enumerate(networks):
            for layer, weight, bias in zip(
                linears(network), self.weights, self.biases, strict=True
            ):
                layer.requires_grad_(False)
                layer.weight.data = weight[i].t()
                layer.bias.data = bias[i, 0]

    def holds(self, networks: Sequence[nn.Sequential]) -> bool:
        """Whether the networks' parameters still are views into this stack."""
        return all(
            layer.weight.data_ptr() == weight[i].data_ptr()
            and layer.bias.data_ptr() == bias[i].data_ptr()
            for i, network in enumerate(networks)
            for layer, weight, bias in zip(linears(network), self.weights, self.biases, strict=True)
        )

    def __len__(self) -> int:
        return len(self.weights[0])

    def split(self, flat: Tensor) -> list[Tensor]:
        """Views `[n, ...]` into a tensor like `parameters`, its gradient or moments of it."""
        blocks = flat.split([shape.numel() for shape in self._shapes])
        return [block.view(shape) for block, shape in zip(blocks, self._shapes, strict=True)]

    def by_kind(self, flat: Tensor) -> list[list[Tensor]]:
        """As `split`: per layer the weights `[n, in, out]`, then the biases `[n, 1, out]` …"""
        views = self.split(flat)
        return [views[kind :: self._kinds] for kind in range(self._kinds)]

    def __call__(self, x: Tensor, frozen: bool = False) -> Tensor:
        """`[n, B, in]` -> `[n, B, out]`.

        Args:
            x: Each network's own inputs; or `[m, B, in]` with n a multiple of m, of which network k
                gets number k modulo m.
            frozen: Whether the gradient passes to `x` only, none to the parameters. Rows whose
                gradient is 0 then cost nothing in the backward pass.

        Raises:
            ValueError: If `x` has another shape, type or device than the parameters ask for.
        """
        parameters = self._frozen if frozen else self.parameters
        self._check(x, parameters)
        return self._compute(x, parameters)

    def _check(self, x: Tensor, parameters: Tensor) -> None:
        n, width = len(self), self._shapes[0][1]
        if x.dim() != 3 or x.shape[2] != width or not x.shape[0] or n % x.shape[0]:
            raise ValueError(
                f"x has shape {list(x.shape)}, expected [{n}, B, {width}], or a divisor of {n} "
                "in its place."
            )
        if x.dtype != parameters.dtype or x.device != parameters.device:
            raise ValueError(
                f"x is {x.dtype} on {x.device}, the parameters are {parameters.dtype} on "
                f"{parameters.device}."
            )

    def _compute(self, x: Tensor, parameters: Tensor) -> Tensor:
        if self._native_shape is not None and self._is_natives(x):
            return _native(x, parameters, self._native_shape)
        return self._plain(x, *self.by_kind(parameters))

    @staticmethod
    def _is_natives(x: Tensor) -> bool:
        return x.shape[1] > 0 and native.computes(x)

    def learning(self, x: Tensor) -> Tensor:
        """As a call, while the parameters learn; networks that keep statistics see `x`."""
        return self(x)

    def _plain(self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
        activate = ACTIVATIONS[self.activation][1]
        *hidden, last = zip(weights, biases, strict=True)
        x = x.repeat(len(self) // x.shape[0], 1, 1)
        for weight, bias in hidden:
            x = torch.baddbmm(bias, x, weight)
            x = activate(nn.functional.layer_norm(x, x.shape[-1:]) if self.norm == "layer" else x)
        return torch.baddbmm(last[1], x, last[0])

    @torch.no_grad()
    def follow(self, source: StackedPerceptrons, tau: float) -> None:
        """Moves the parameters towards the source's: a step of target networks by τ."""
        if native.computes(self.parameters):
            native_elementwise.follow(self.parameters, source.parameters, tau)
        else:
            self.parameters.lerp_(source.parameters, tau)

    def select(self, networks: Sequence[int], trainable: bool = False) -> StackedPerceptrons:
        """Independent copies of some of the networks."""
        index = torch.as_tensor(list(networks), device=self.parameters.device)
        return StackedPerceptrons(
            [weight[index] for weight in self.weights],
            [bias[index] for bias in self.biases],
            self.activation,
            trainable,
            self.norm,
        )

    @torch.no_grad()
    def assign(self, networks: Sequence[int], source: StackedPerceptrons) -> None:
        """Overwrites some of the networks, in place; a source of one network serves them all.

        Raises:
            ValueError: If the source's networks have another shape.
        """
        if [shape[1:] for shape in self._shapes] != [shape[1:] for shape in source._shapes]:
            raise ValueError(
                "Networks of different shapes cannot be copied: "
                f"{[list(w.shape[1:]) for w in source.weights]} into "
                f"{[list(w.shape[1:]) for w in self.weights]}."
            )
        for own, other in zip(self.blocks, source.blocks, strict=True):
            own[list(networks)] = other.to(own.device)

    @property
    def blocks(self) -> list[Tensor]:
        """All that the networks consist of, as views `[n, ...]`."""
        return self.split(self._frozen) + self.statistics

    @property
    def statistics(self) -> list[Tensor]:
        """What they have seen of their inputs, as views `[n, ...]`."""
        return []


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """n linear layers: `[m, B, in]`, `[n, in, out]` and `[n, 1, out]` -> `[n, B, out]`.

    Of fewer inputs than layers, layer k gets number k modulo m.
    """
    n = len(weight)
    if x.shape[1] == 0 or not native.computes(x):
        return torch.baddbmm(bias, x.repeat(n // len(x), 1, 1), weight)
    parameters = torch.cat([weight.flatten(), bias.flatten()])
    return _native(x, parameters, linear_shape(*weight.shape))


@functools.cache
def linear_shape(n: int, inputs: int, outputs: int) -> native.Shape:
    """Of n linear layers, for the library."""
    return native.Shape(n, [inputs, outputs], "relu")


def _native(x: Tensor, parameters: Tensor, shape: native.Shape) -> Tensor:
    if torch.is_grad_enabled() and (x.requires_grad or parameters.requires_grad):
        return _Native.apply(x, parameters, shape)
    return native.forward(shape, parameters, x)[0]


def linears(network: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in network if isinstance(layer, nn.Linear)]
