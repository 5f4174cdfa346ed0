"""One network, and what the policy's output means."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from rllib_cikd.engine.perceptrons import ACTIVATIONS

#: Bounds of the policy's log standard deviation (SAC's published program).
LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


def perceptron(
    in_dim: int, hiddens: Sequence[int], out_dim: int, activation: str, normalized: bool = False
) -> nn.Sequential:
    """A multi-layer perceptron with a linear last layer.

    Args:
        in_dim, hiddens, out_dim: Its widths.
        activation: One of `ACTIVATIONS`.
        normalized: Whether hidden layers are normalised before it, without parameters.
    """
    layers: list[nn.Module] = []
    for width in hiddens:
        norm = [nn.LayerNorm(width, elementwise_affine=False)] if normalized else []
        layers += [nn.Linear(in_dim, width), *norm, ACTIVATIONS[activation][0]()]
        in_dim = width
    return nn.Sequential(*layers, nn.Linear(in_dim, out_dim))


def split_policy_output(output: Tensor) -> tuple[Tensor, Tensor]:
    """Policy network output `[..., 2A]` -> mean and clipped log std of the Gaussian, `[..., A]`."""
    mean, log_std = output.chunk(2, dim=-1)
    return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
