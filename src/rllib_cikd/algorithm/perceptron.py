"""One network, and what the policy's output means."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from rllib_cikd.engine.batch_normalized import RunningNorm
from rllib_cikd.engine.perceptrons import ACTIVATIONS

#: Bounds of the policy's log standard deviation (SAC's published program).
LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


def perceptron(
    in_dim: int, hiddens: Sequence[int], out_dim: int, activation: str, norm: str = "none"
) -> nn.Sequential:
    """A multi-layer perceptron with a linear last layer.

    Args:
        in_dim, hiddens, out_dim: Its widths.
        activation: One of `ACTIVATIONS`.
        norm: What is normalised, without parameters: "layer", hidden layers before it, each
            sample by itself; "batch", the inputs of each linear layer, by running statistics; or
            "none".
    """
    layers: list[nn.Module] = []
    for width in hiddens:
        layers += [*_norm("batch", norm, in_dim), nn.Linear(in_dim, width)]
        layers += [*_norm("layer", norm, width), ACTIVATIONS[activation][0]()]
        in_dim = width
    return nn.Sequential(*layers, *_norm("batch", norm, in_dim), nn.Linear(in_dim, out_dim))


def _norm(kind: str, norm: str, width: int) -> list[nn.Module]:
    """A layer that normalises, if this is the kind asked for."""
    if norm != kind:
        return []
    return [
        RunningNorm(width) if kind == "batch" else nn.LayerNorm(width, elementwise_affine=False)
    ]


def split_policy_output(output: Tensor) -> tuple[Tensor, Tensor]:
    """Policy network output `[..., 2A]` -> mean and clipped log std of the Gaussian, `[..., A]`."""
    mean, log_std = output.chunk(2, dim=-1)
    return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
