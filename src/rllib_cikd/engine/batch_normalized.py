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

from rllib_cikd.engine import native_elementwise
from rllib_cikd.engine.perceptrons import ACTIVATIONS, StackedPerceptrons, linear

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
        layers = zip(*self.by_kind(parameters), self.means, self.variances, strict=True)
        folded = [_fold(layer) for layer in layers]
        if self._native_shape is not None and self._is_natives(x):
            flat = torch.cat([block.flatten() for layer in folded for block in layer])
            return super()._compute(x, flat)
        weights, biases = zip(*folded, strict=True)
        return self._plain(x, weights, biases)

    def learning(self, x: Tensor) -> Tensor:
        """As a call, by the statistics of `x` over its B rows; the running ones move to them."""
        self._check(x, self.parameters)
        rows = x.shape[1]
        layers = zip(*self.by_kind(self.parameters), self.means, self.variances, strict=True)
        for place, (*parameters, running_mean, running_variance) in enumerate(layers):
            if place == 0:
                copies = len(self) // len(x)  # networks that share an input
                mean, variance = (s.repeat(copies, 1, 1) for s in _BatchStatistics.apply(x))
            else:
                x, mean, variance = self._activate(x)
            running_mean.lerp_(mean.detach(), MOMENTUM)
            running_variance.lerp_(variance.detach() * (rows / max(1, rows - 1)), MOMENTUM)
            x = linear(x, *_fold((*parameters, mean, variance)))
        return x

    def _activate(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A hidden layer's activations, and their mean and variance."""
        if self.activation == "relu" and self._is_natives(z):
            return _Rectified.apply(z)
        x = ACTIVATIONS[self.activation][1](z)
        return x, *_BatchStatistics.apply(x)


class _BatchStatistics(torch.autograd.Function):
    """Mean and variance over the rows of `[m, B, width]`: `[m, 1, width]` each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        ctx.save_for_backward(x, mean)
        return mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        scale, shift = _scale_and_shift(mean, grads[0], grads[1], x.shape[1])
        return torch.addcmul(shift, x, scale)


class _Rectified(torch.autograd.Function):
    """max(z, 0), and its `_BatchStatistics`, by the native engine."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, mean, variance = native_elementwise.rectify(z)
        ctx.save_for_backward(x, mean)
        return x, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        scale, shift = _scale_and_shift(mean, grads[1], grads[2], x.shape[1])
        return native_elementwise.rectify_gradient(x, grads[0], scale, shift)


def _scale_and_shift(
    mean: Tensor, grad_mean: Tensor, grad_variance: Tensor, rows: int
) -> tuple[Tensor, Tensor]:
    """What mean and variance add to the gradient of x: scale · x + shift."""
    scale = grad_variance * (2.0 / rows)
    return scale, grad_mean / rows - scale * mean


def _fold(layer: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Weights and biases for inputs that are not normalised, from all that a layer has."""
    weight, bias, gain, offset, mean, variance = layer
    scale = gain * (variance + EPSILON).rsqrt()
    bias = torch.baddbmm(bias, offset - mean * scale, weight)
    return weight * scale.transpose(1, 2), bias


def _norms(network: nn.Sequential) -> list[RunningNorm]:
    return [layer for layer in network if isinstance(layer, RunningNorm)]
