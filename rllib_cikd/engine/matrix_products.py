"""The matrix products of n stacked perceptrons, by whichever of PyTorch's libraries is faster.

PyTorch multiplies float32 matrices with Intel's MKL, and on AMD's processors MKL leaves half of
AVX-512 unused. oneDNN, which is part of PyTorch as well, does not. Its only way in that takes
plain tensors as they are stored is an operator made for compiled models: not a public one, so it
is used in this file alone, and MKL where it is missing.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

#: Below this many multiplications a product is not worth splitting by hand (see `_bmm`).
_LARGE_PRODUCT = 2**23

#: A network is worth calls of its own from so many multiplications a thread in one product on.
_ONEDNN_MULTIPLICATIONS = 2**21


def one_by_one(x: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether to compute each network by itself, with oneDNN, instead of all together.

    oneDNN's operator takes one network at a time. All layers of a network in turn then find
    their operands in the processor's cache, which those of all networks do not fit into.

    Args:
        x: The networks' inputs, `[n, B, in]`.
        weights: Of all layers, `[n, in, out]` each.
    """
    product = x.shape[1] * max(weight.shape[1] * weight.shape[2] for weight in weights)
    return (
        product >= _ONEDNN_MULTIPLICATIONS * torch.get_num_threads()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and onednn_is_faster()
    )


def affine(x: Tensor, weight: Tensor, bias: Tensor, relu: bool = False) -> Tensor:
    """`x @ weight + bias`, cut off at 0 if `relu`: `[n, B, out]`; or of one network, `[B, out]`.

    Args:
        x: `[n, B, in]`, or `[B, in]`.
        weight: `[n, in, out]`, or `[in, out]`.
        bias: `[n, 1, out]`, or `[1, out]`.
    """
    if x.dim() == 2 and weight.shape[1] > 1:
        return _onednn(x, weight.t(), bias[0], "relu" if relu else "none")
    if x.dim() == 2:  # a matrix times a vector waits for memory: the shortest call is best
        y = torch.addmm(bias, x, weight)
        return y.relu_() if relu else y
    if weight.shape[2] == 1:  # one row times a matrix: a third of the time of the transposed
        y = torch.bmm(weight.transpose(1, 2), x.transpose(1, 2)).view(*x.shape[:2], 1)
    else:
        y = _bmm(x, weight)
    y.add_(bias)
    return y.relu_() if relu else y


def gradient_of_weight(x: Tensor, grad: Tensor, out: Tensor) -> None:
    """The gradient of `affine`'s weight, `[n, in, out]` or `[in, out]`, into `out`.

    Args:
        x: `[n, B, in]`, or `[B, in]`.
        grad: Of the layer's output, `[n, B, out]`, or `[B, out]`.
        out: Where to write it.
    """
    if x.dim() == 2:
        if grad.shape[1] == 1:
            torch.mm(x.t(), grad, out=out)
        # The narrower one goes first, for oneDNN copies it.
        elif x.shape[1] <= grad.shape[1]:
            out.copy_(_onednn(x.t(), grad.t()))
        else:
            out.copy_(_onednn(grad.t(), x.t()).t())
    elif grad.shape[2] == 1:
        torch.bmm(grad.transpose(1, 2), x, out=out.transpose(1, 2))
    else:
        _bmm(x.transpose(1, 2), grad, out=out)


def gradient_of_input(grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient of `affine`'s input, `[n, B, in]` or `[B, in]`.

    Args:
        grad: Of the layer's output, `[n, B, out]`, or `[B, out]`.
        weight: `[n, in, out]`, or `[in, out]`.
    """
    if weight.shape[-1] == 1:
        return grad * weight.mT
    return _onednn(grad, weight) if grad.dim() == 2 else _bmm(grad, weight.mT)


def _bmm(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """`[n, i, j] @ [n, j, k]`, over all threads also where n is no multiple of their number.

    On CPU, `torch.bmm` gives each thread whole products: with three networks on two threads,
    one of them works alone for half of the time.
    """
    n, i, j = a.shape
    if a.is_cuda or n % torch.get_num_threads() == 0 or i * j * b.shape[2] < _LARGE_PRODUCT:
        return torch.bmm(a, b) if out is None else torch.bmm(a, b, out=out)
    if out is None:
        out = a.new_empty(n, i, b.shape[2])
    for network in range(n):
        torch.mm(a[network], b[network], out=out[network])
    return out


def _onednn(a: Tensor, b: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """`a @ b.t() + bias` with the activation: `[i, j]`, `[k, j]`, `[k]` -> `[i, k]`.

    `b` may be a transposed view; `a` is copied unless it is contiguous.
    """
    return torch.ops.mkldnn._linear_pointwise.default(a, b, bias, activation, [], "")


@functools.cache
def onednn_is_faster() -> bool:
    """Whether large products go to oneDNN: on AMD's processors with AVX-512.

    It follows from the processor and never from timing, so that a seed gives the same run again.
    """
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "AuthenticAMD" in _processor()
        and onednn_is_there()
    )


def onednn_is_there() -> bool:
    """Whether this build of PyTorch has the operator."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _processor() -> str:
    """A description of the processor with its vendor's identification in it."""
    try:
        return Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:  # not Linux
        return platform.processor()
