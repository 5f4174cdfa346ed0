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
        x = x.repeat(len(self) // len(x), 1, 1) - self.means[0]
        if self._native_shape is not None and self._is_natives(x):
            return super()._compute(x, _Folded.apply(parameters, self))
        weights, biases = zip(*(_fold(layer) for layer in self._layers(parameters)), strict=True)
        return self._plain(x, weights, biases)

    def _layers(self, parameters: Tensor) -> list[tuple[Tensor, ...]]:
        """Of each layer weights, biases, gains, offsets, means and variances.

        The first layer's inputs have come without their mean: as part of the biases, that of inputs
        which hardly vary would cost float32 all digits.
        """
        means = [torch.zeros_like(self.means[0]), *self.means[1:]]
        return list(zip(*self.by_kind(parameters), means, self.variances, strict=True))

    def learning(self, x: Tensor) -> Tensor:
        """As a call, by the statistics of `x` over its B rows; the running ones move to them."""
        self._check(x, self.parameters)
        mean = x.mean(1, keepdim=True)
        x, follow = x - mean, _Follow(self, x.shape[1])
        # Networks that share an input have the same statistics of it.
        variance = x.square().mean(1, keepdim=True).repeat(len(self) // len(x), 1, 1)
        follow(0, mean.repeat(len(self) // len(x), 1, 1), variance)
        if self.activation == "relu" and self._is_natives(x):
            return _Learning.apply(x, variance, self.parameters, self, follow)
        mean = torch.zeros_like(variance)
        for place, layer in enumerate(zip(*self.by_kind(self.parameters), strict=True)):
            if place > 0:
                x = ACTIVATIONS[self.activation][1](x)
                variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
                follow(place, mean, variance)
            x = linear(x, *_fold((*layer, mean, variance)))
        return x


class _Follow:
    """Moves running statistics to those of a minibatch; the first one sets them.

    Else a network would be wrong at first by as much as its inputs are far from 0, and where they
    hardly vary by a multiple of that.

    Args:
        stack: Whose statistics they are.
        rows: B, of the minibatch.
    """

    def __init__(self, stack: BatchNormalizedPerceptrons, rows: int):
        mean, variance = stack.means[0], stack.variances[0]
        new = (mean == 0.0).all(-1, keepdim=True) & (variance == 1.0).all(-1, keepdim=True)
        self._share = torch.full_like(mean[..., :1], MOMENTUM).masked_fill_(new, 1.0)
        self._stack, self._unbiased = stack, rows / max(1, rows - 1)

    @torch.no_grad()
    def __call__(self, place: int, mean: Tensor, variance: Tensor) -> None:
        """To mean and variance, the latter with bias, of a layer's inputs."""
        self._stack.means[place].lerp_(mean, self._share)
        self._stack.variances[place].lerp_(variance * self._unbiased, self._share)


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

    Layer by layer: statistics of the inputs x, the layer that they fold into, its outputs z. The
    first inputs have mean 0 and this variance.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        variance: Tensor,
        parameters: Tensor,
        stack: BatchNormalizedPerceptrons,
        follow: _Follow,
    ) -> Tensor:
        ctx.passes, ctx.stack = [], stack
        z, mean = x, torch.zeros_like(variance)
        for place, layer in enumerate(zip(*stack.by_kind(parameters), strict=True)):
            if place > 0:
                x, mean, variance = native_normalization.rectify(z)
                follow(place, mean, variance)
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
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (parameters,) = ctx.saved_tensors
        gradient, grad_z = torch.empty_like(parameters), grads[0]
        layers, gradients = (
            list(zip(*ctx.stack.by_kind(values), strict=True)) for values in (parameters, gradient)
        )
        for place in reversed(range(len(layers))):
            x, mean, variance, folded, kept = ctx.passes.pop()
            needs_x = place > 0 or ctx.needs_input_grad[0]
            grad_x, grad_folded = native.backward(kept, folded, grad_z, needs_x, True)
            assert grad_folded is not None
            by_mean, by_variance = torch.empty_like(mean), torch.empty_like(variance)
            native_normalization.fold_gradient(
                [*layers[place], mean, variance],
                EPSILON,
                grad_folded,
                (*gradients[place], by_mean, by_variance),
            )
            if place > 0:
                assert grad_x is not None
                # What mean and variance add to the gradient of x: scale · x + shift.
                scale = by_variance * (2.0 / x.shape[1])
                shift = by_mean / x.shape[1] - scale * mean
                grad_z = native_normalization.rectify_gradient(x, grad_x, scale, shift)
        return grad_x, by_variance, gradient, None, None


def _fold(layer: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Weights and biases for inputs that are not normalised, from all that a layer has."""
    weight, bias, gain, offset, mean, variance = layer
    scale = gain * (variance + EPSILON).rsqrt()
    bias = torch.baddbmm(bias, offset - mean * scale, weight)
    return weight * scale.transpose(1, 2), bias


def _norms(network: nn.Sequential) -> list[RunningNorm]:
    return [layer for layer in network if isinstance(layer, RunningNorm)]
