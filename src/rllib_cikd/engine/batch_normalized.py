"""n perceptrons with batch normalisation (Ioffe & Szegedy 2015), evaluated together.

The inputs x of every linear layer are normalised: less their mean μ, divided by their deviation σ,
times a gain γ, plus an offset β. As a linear layer comes next, all that goes into its weights and
biases, whatever engine computes it:

    ((x - μ) / σ · γ + β) · W + b  =  x · (γ / σ · W) + (b + (β - μ γ / σ) · W)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rllib_cikd.engine import native, native_normalization
from rllib_cikd.engine.perceptrons import ACTIVATIONS, StackedPerceptrons, linear, linear_shape

#: Added to variances.
EPSILON = 1e-5
#: How far the running statistics move to those of a minibatch.
MOMENTUM = 0.01


class RunningNorm(nn.Module):
    """Normalises by the running statistics, as batch normalisation does after training.

    It never updates them: the stacked networks do (`BatchNormalizedPerceptrons.learning`).

    Args:
        width: Of what is normalised, `[..., width]`.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.gain, self.offset = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * (self.variance + EPSILON).rsqrt() * self.gain + self.offset


class BatchNormalizedPerceptrons(StackedPerceptrons):
    """`StackedPerceptrons` whose linear layers get inputs that are normalised.

    A call uses the running statistics; `learning` those of its minibatch, and updates the running
    ones. Per layer, `parameters` are weights, biases, gains and offsets.

    Args:
        weights, biases, activation, trainable: As there.
        norms: Per layer gains, offsets, means and variances, `[n, 1, in]`; values are copied.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        activation: str,
        trainable: bool,
        norms: Sequence[Sequence[Tensor]],
    ):
        gains, offsets, means, variances = norms
        super().__init__(weights, biases, activation, trainable, "batch", (gains, offsets))
        self.gains, self.offsets = self._more
        self.means = [mean.clone() for mean in means]
        self.variances = [variance.clone() for variance in variances]

    @classmethod
    def adopt(
        cls, networks: Sequence[nn.Sequential], activation: str, trainable: bool
    ) -> BatchNormalizedPerceptrons:
        """As of the plain ones, of networks with a `RunningNorm` before each linear layer."""
        layers = list(zip(*(_norms(network) for network in networks), strict=True))
        norms = [
            [
                torch.stack([getattr(norm, name).detach() for norm in layer])[:, None]
                for layer in layers
            ]
            for name in ("gain", "offset", "mean", "variance")
        ]
        stack = cls(*cls._stacked(networks), activation, trainable, norms)
        stack._own(networks)
        for place, layer in enumerate(layers):
            for i, norm in enumerate(layer):
                norm.requires_grad_(False)
                norm.gain.data, norm.offset.data, norm.mean, norm.variance = (
                    blocks[place][i, 0] for blocks in stack._norms
                )
        return stack

    @property
    def _norms(self) -> list[list[Tensor]]:
        return [self.gains, self.offsets, self.means, self.variances]

    def holds(self, networks: Sequence[nn.Sequential]) -> bool:
        return super().holds(networks) and all(
            own.data_ptr() == block[i].data_ptr()
            for i, network in enumerate(networks)
            for norm, *blocks in zip(_norms(network), *self._norms, strict=True)
            for own, block in zip(
                (norm.gain, norm.offset, norm.mean, norm.variance), blocks, strict=True
            )
        )

    @property
    def statistics(self) -> list[Tensor]:
        return self.means + self.variances

    def select(
        self, networks: Sequence[int], trainable: bool = False
    ) -> BatchNormalizedPerceptrons:
        index = torch.as_tensor(list(networks), device=self.parameters.device)
        weights, biases, *norms = (
            [block[index] for block in blocks]
            for blocks in (self.weights, self.biases, *self._norms)
        )
        return BatchNormalizedPerceptrons(weights, biases, self.activation, trainable, norms)

    def _compute(self, x: Tensor, parameters: Tensor) -> Tensor:
        """By the running statistics, which are part of the weights then."""
        if self._native_shape is not None and self._is_natives(x):
            return super()._compute(x, _Folded.apply(parameters, self))
        weights, biases = zip(*(_fold(layer) for layer in self._layers(parameters)), strict=True)
        return self._plain(x, weights, biases)

    def _layers(self, parameters: Tensor) -> list[tuple[Tensor, ...]]:
        """Of each layer weights, biases, gains, offsets, means and variances."""
        return list(zip(*self.by_kind(parameters), self.means, self.variances, strict=True))

    def learning(self, x: Tensor) -> Tensor:
        """As a call, by the statistics of `x` over its B rows; the running ones move to them."""
        self._check(x, self.parameters)
        if self.activation == "relu" and self._is_natives(x):
            return _Learning.apply(x, self.parameters, self)
        copies = len(self) // len(x)  # networks that share an input
        for place, (*parameters, running_mean, running_variance) in enumerate(
            self._layers(self.parameters)
        ):
            if place > 0:
                x = ACTIVATIONS[self.activation][1](x)
            variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
            if place == 0:
                mean, variance = mean.repeat(copies, 1, 1), variance.repeat(copies, 1, 1)
            _follow(running_mean, running_variance, mean.detach(), variance.detach(), x.shape[1])
            x = linear(x, *_fold((*parameters, mean, variance)))
        return x


class _Folded(torch.autograd.Function):
    """Parameters of plain perceptrons that compute as these do by their running statistics."""

    @staticmethod
    def forward(ctx: Any, parameters: Tensor, stack: BatchNormalizedPerceptrons) -> Tensor:
        layers = stack._layers(parameters)
        folded = torch.empty(sum(weight.numel() + bias.numel() for weight, bias, *_ in layers))
        for layer, part in zip(layers, _parts(folded, layers), strict=True):
            native_normalization.fold(layer, EPSILON, part)
        ctx.stack = stack
        ctx.save_for_backward(parameters, *stack.statistics)
        return folded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        parameters, *_ = ctx.saved_tensors
        layers, gradient = ctx.stack._layers(parameters), torch.empty_like(parameters)
        kinds = zip(*ctx.stack.by_kind(gradient), strict=True)
        for layer, part, to in zip(layers, _parts(grads[0], layers), kinds, strict=True):
            native_normalization.fold_gradient(layer, EPSILON, part, to)
        return gradient, None


def _parts(folded: Tensor, layers: Sequence[tuple[Tensor, ...]]) -> Sequence[Tensor]:
    """Those of each layer."""
    return folded.split([weight.numel() + bias.numel() for weight, bias, *_ in layers])


class _Learning(torch.autograd.Function):
    """Perceptrons with ReLU by the statistics of their minibatch, by the native engine.

    Layer by layer: statistics of the inputs x, the layer that they fold into, its outputs z.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, parameters: Tensor, stack: BatchNormalizedPerceptrons
    ) -> Tensor:
        copies, ctx.passes, ctx.stack = len(stack) // len(x), [], stack
        z = x
        for place, (*layer, running_mean, running_variance) in enumerate(stack._layers(parameters)):
            if place == 0:
                variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
                mean, variance = mean.repeat(copies, 1, 1), variance.repeat(copies, 1, 1)
            else:
                x, mean, variance = native_normalization.rectify(z)
            _follow(running_mean, running_variance, mean, variance, x.shape[1])
            weight = layer[0]
            folded = torch.empty(weight.numel() + layer[1].numel())
            native_normalization.fold([*layer, mean, variance], EPSILON, folded)
            z, kept = native.forward(linear_shape(*weight.shape), folded, x, native.FOR_PARAMETERS)
            ctx.passes.append((x, mean, variance, folded, kept))
        # For autograd's check that nobody has changed them since.
        ctx.save_for_backward(parameters)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (parameters,) = ctx.saved_tensors
        stack, gradient, grad_z = ctx.stack, torch.empty_like(parameters), grads[0]
        layers = [layer[:4] for layer in stack._layers(parameters)]
        kinds = list(zip(*stack.by_kind(gradient), strict=True))
        for place in reversed(range(len(layers))):
            x, mean, variance, folded, kept = ctx.passes.pop()
            needs_x = place > 0 or ctx.needs_input_grad[0]
            grad_x, grad_folded = native.backward(kept, folded, grad_z, needs_x, True)
            assert grad_folded is not None
            statistics = torch.empty_like(mean), torch.empty_like(variance)
            native_normalization.fold_gradient(
                [*layers[place], mean, variance], EPSILON, grad_folded, (*kinds[place], *statistics)
            )
            if grad_x is None:
                return None, gradient, None
            # What mean and variance add to the gradient of x: scale · x + shift.
            scale = statistics[1] * (2.0 / x.shape[1])
            shift = statistics[0] / x.shape[1] - scale * mean
            if place > 0:
                grad_z = native_normalization.rectify_gradient(x, grad_x, scale, shift)
        # Networks that share an input had the same statistics of it.
        scale, shift = (part.view(-1, *x.shape[::2]).sum(0)[:, None] for part in (scale, shift))
        return torch.addcmul(grad_x + shift, x, scale), gradient, None


def _follow(
    running_mean: Tensor, running_variance: Tensor, mean: Tensor, variance: Tensor, rows: int
) -> None:
    """The running statistics move to those of a minibatch, the variance without bias."""
    running_mean.lerp_(mean, MOMENTUM)
    running_variance.lerp_(variance * (rows / max(1, rows - 1)), MOMENTUM)


def _fold(layer: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Weights and biases for inputs that are not normalised, from all that a layer has."""
    weight, bias, gain, offset, mean, variance = layer
    scale = gain * (variance + EPSILON).rsqrt()
    bias = torch.baddbmm(bias, offset - mean * scale, weight)
    return weight * scale.transpose(1, 2), bias


def _norms(network: nn.Sequential) -> list[RunningNorm]:
    return [layer for layer in network if isinstance(layer, RunningNorm)]
