"""Batch normalisation by the engine's native library, on float32 tensors on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from rllib_cikd.engine.library import loaded, num_threads
from rllib_cikd.engine.native import check


def rectify(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """max(z, 0) of `[n, B, width]`, and mean and variance of its columns, `[n, 1, width]`.

    Raises:
        ValueError: If the tensor has another shape, type or device.
    """
    library, shape = loaded(), z.shape
    if z.dim() != 3 or z.numel() == 0:
        raise ValueError(f"z has shape {list(shape)}, expected [n, B, width], none of them 0.")
    z = z.contiguous()
    check("z", z, shape)
    x = torch.empty(shape)
    mean, variance = torch.empty(shape[0], 1, shape[2]), torch.empty(shape[0], 1, shape[2])
    library.engine_rectify(
        *shape, z.data_ptr(), x.data_ptr(), mean.data_ptr(), variance.data_ptr(), num_threads()
    )
    return x, mean, variance


def rectify_gradient(x: Tensor, grad_x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`grad_x + x scale + shift` where x is positive, else 0.

    Args:
        x, grad_x: `[n, B, width]`.
        scale, shift: `[n, 1, width]`.

    Raises:
        ValueError: If a tensor has another shape, type or device.
    """
    library, shape = loaded(), x.shape
    grad_x, scale, shift = grad_x.contiguous(), scale.contiguous(), shift.contiguous()
    check("x", x, shape)
    check("the gradient of x", grad_x, shape)
    check("scale", scale, (shape[0], 1, shape[2]))
    check("shift", shift, (shape[0], 1, shape[2]))
    grad_z = torch.empty(shape)
    library.engine_rectify_gradient(
        *shape,
        x.data_ptr(),
        grad_x.data_ptr(),
        scale.data_ptr(),
        shift.data_ptr(),
        grad_z.data_ptr(),
        num_threads(),
    )
    return grad_z


def fold(layer: Sequence[Tensor], epsilon: float, folded: Tensor) -> None:
    """Writes a linear layer that normalises its inputs as one that does not.

    Args:
        layer: Weights `[n, in, out]`, biases `[n, 1, out]`, and gains, offsets, means and variances
            of the inputs, `[n, 1, in]`.
        epsilon: Added to the variances.
        folded: Gets weights and then biases, `[n * (in + 1) * out]`.

    Raises:
        ValueError: If a tensor has another shape, type or device.
    """
    library, shape = loaded(), _check_layer(layer)
    check("the folded layer", folded, (_folded_size(shape),))
    library.engine_fold(*shape, _addresses(layer), epsilon, folded.data_ptr(), num_threads())


def fold_gradient(
    layer: Sequence[Tensor],
    epsilon: float,
    grad_folded: Tensor,
    gradients: Sequence[Tensor],
) -> None:
    """Writes the gradients of what `fold` was given, from that of what it wrote.

    Args:
        layer, epsilon: As there.
        grad_folded: `[n * (in + 1) * out]`.
        gradients: Get those of weights, biases, gains and offsets; where there are two more, of
            means and variances. Shapes as in `layer`.

    Raises:
        ValueError: If a tensor has another shape, type or device.
    """
    library, shape = loaded(), _check_layer(layer)
    n, inputs, outputs = shape
    check("the gradient", grad_folded, (_folded_size(shape),))
    for own, gradient in zip(layer, gradients, strict=False):
        check("a gradient", gradient, own.shape)
    weights, biases, *norms = gradients
    biases.copy_(grad_folded[n * inputs * outputs :].view_as(biases))
    addresses = _addresses([weights, *norms], 5)
    library.engine_fold_gradient(
        *shape, _addresses(layer), epsilon, grad_folded.data_ptr(), addresses, num_threads()
    )


def _check_layer(layer: Sequence[Tensor]) -> tuple[int, int, int]:
    if len(layer) != 6 or layer[0].dim() != 3 or layer[0].numel() == 0:
        raise ValueError("A layer has six tensors, the first one [n, in, out], none of them 0.")
    n, inputs, outputs = layer[0].shape
    check("weights", layer[0], (n, inputs, outputs))
    check("biases", layer[1], (n, 1, outputs))
    for tensor in layer[2:]:
        check("gains, offsets, means and variances", tensor, (n, 1, inputs))
    return n, inputs, outputs


def _folded_size(shape: tuple[int, int, int]) -> int:
    n, inputs, outputs = shape
    return n * (inputs + 1) * outputs


def _addresses(tensors: Sequence[Tensor], size: int = 6) -> ctypes.Array:
    return (ctypes.c_void_p * size)(*(tensor.data_ptr() for tensor in tensors))
