"""Perceptrons by the engine's native library, on float32 tensors on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from rllib_cikd.engine.library import Integer, is_there, loaded, num_threads

#: What a forward pass keeps for the backward pass.
NOTHING, FOR_INPUTS, FOR_PARAMETERS = range(3)
#: Added to an activation where hidden layers are normalised before it.
_NORMALIZED = 16
#: Linear layers of one perceptron that the library takes.
MAX_LAYERS = 64

_ACTIVATIONS = ("relu", "tanh", "elu")


def computes(tensor: Tensor) -> bool:
    """Whether the library is there and computes with this tensor's type, on its device."""
    return (
        tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and type(tensor) in (Tensor, Parameter)  # others, such as fake ones, may have no memory
        and is_there()
    )


class Shape:
    """n perceptrons of equal shape, as the library is told of them.

    Args:
        networks: n.
        widths: Inputs, hidden units of each layer, outputs.
        activation: "relu", "tanh" or "elu".
        normalized: Whether hidden layers are normalised before it.

    Raises:
        ValueError: If there are none, more layers than the library takes, or layers without units.
    """

    def __init__(
        self, networks: int, widths: Sequence[int], activation: str, normalized: bool = False
    ):
        if networks < 1 or min(widths) < 1 or not 1 <= len(widths) - 1 <= MAX_LAYERS:
            raise ValueError(
                f"{networks} perceptrons of widths {list(widths)}: at least one, of 1 to "
                f"{MAX_LAYERS} layers of at least one unit, are expected."
            )
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation {activation!r} must be one of {list(_ACTIVATIONS)}.")
        self.networks, self.widths = networks, tuple(widths)
        pairs = list(zip(self.widths, self.widths[1:], strict=False))
        self.parameters = networks * sum((a + 1) * b for a, b in pairs)
        self._widths = (Integer * len(self.widths))(*self.widths)
        self._arguments = (
            networks,
            len(pairs),
            ctypes.addressof(self._widths),
            _ACTIVATIONS.index(activation) + _NORMALIZED * normalized,
        )
        self._spare: dict[int, list[Tensor]] = {}
        self._kept: dict[tuple[int, int], int] = {}

    def arguments(self, rows: int, keep: int) -> tuple[int, ...]:
        """The first arguments of the library's functions."""
        return (*self._arguments, rows, keep)

    def kept(self, library: ctypes.CDLL, rows: int, keep: int) -> int:
        """Floats that a forward pass keeps."""
        size = self._kept.get((rows, keep))
        if size is None:
            size = self._kept[rows, keep] = library.engine_kept(*self.arguments(rows, keep))
        return size


class Kept:
    """What a forward pass keeps until its backward pass; the next one uses its memory again."""

    def __init__(self, library: ctypes.CDLL, shape: Shape, inputs: int, rows: int, keep: int):
        self.shape, self.inputs, self.rows, self.keep = shape, inputs, rows, keep
        self._size = shape.kept(library, rows, keep)
        spare = shape._spare.setdefault(self._size, [])
        self._memory = spare.pop() if spare else torch.empty(self._size)
        self.address = self._memory.data_ptr()

    def __del__(self) -> None:
        spare = self.shape._spare
        if len(spare) > 4:  # as batch sizes come and go
            spare.clear()
        spare.setdefault(self._size, []).append(self._memory)


def check(name: str, tensor: Tensor, shape: Sequence[int], contiguous: bool = True) -> None:
    """The library reads and writes memory as told: nothing may be wrong with it."""
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {list(shape)}.")
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        raise ValueError(
            f"{name} is {tensor.dtype} on {tensor.device}, expected torch.float32 on cpu."
        )
    if contiguous and not tensor.is_contiguous():
        raise ValueError(f"{name} is not contiguous: its strides are {tensor.stride()}.")


def _done(code: int) -> None:
    if code != 0:
        raise MemoryError("The native engine got no memory.")


def forward(
    shape: Shape, parameters: Tensor, x: Tensor, keep: int = NOTHING
) -> tuple[Tensor, Kept | None]:
    """The perceptrons' outputs, `[n, B, out]`, and what `backward` needs.

    Args:
        shape: Theirs.
        parameters: `[P]`, per layer the weights `[n, in, out]` and the biases `[n, 1, out]`.
        x: `[m, B, in]` with B > 0 and n a multiple of m: network k gets number k modulo m. They
            and their rows may lie anywhere, or be expanded.
        keep: What to keep: `NOTHING`, `FOR_INPUTS` or `FOR_PARAMETERS`.

    Raises:
        ValueError: If a tensor has another shape, type or device.
    """
    library = loaded()
    inputs, outputs = shape.widths[0], shape.widths[-1]
    check("parameters", parameters, (shape.parameters,))
    if x.dim() != 3 or x.numel() == 0:
        raise ValueError(f"x has shape {list(x.shape)}, expected [m, B, in], none of them 0.")
    if shape.networks % x.shape[0] != 0:
        raise ValueError(f"{shape.networks} perceptrons cannot share {x.shape[0]} inputs.")
    rows = x.shape[1]
    if x.stride(2) != 1:
        x = x.contiguous()
    check("x", x, (x.shape[0], rows, inputs), contiguous=False)
    y = torch.empty(shape.networks, rows, outputs)
    kept = Kept(library, shape, x.shape[0], rows, keep) if keep != NOTHING else None
    code = library.engine_forward(
        *shape.arguments(rows, keep),
        parameters.data_ptr(),
        x.data_ptr(),
        x.shape[0],
        x.stride(0),
        x.stride(1),
        y.data_ptr(),
        kept.address if kept is not None else None,
        num_threads(),
    )
    _done(code)
    return y, kept


def backward(
    kept: Kept, parameters: Tensor, grad_y: Tensor, needs_x: bool, needs_parameters: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x, `[m, B, in]`, and of the parameters, `[P]`; None where not needed.

    Args:
        kept: From the forward pass.
        parameters: As in the forward pass.
        grad_y: `[n, B, out]`. Rows that are 0 give 0; without gradients of the parameters they
            cost nothing.

    Raises:
        ValueError: If a tensor has another shape, type or device, or if the forward pass did not
            keep what the parameters' gradient needs.
    """
    library, shape = loaded(), kept.shape
    grad_y = grad_y.contiguous()
    check("parameters", parameters, (shape.parameters,))
    check("the gradient of y", grad_y, (shape.networks, kept.rows, shape.widths[-1]))
    if needs_parameters and kept.keep != FOR_PARAMETERS:
        raise ValueError("The forward pass kept nothing for the parameters' gradient.")
    grad_x = torch.empty(kept.inputs, kept.rows, shape.widths[0]) if needs_x else None
    grad_parameters = torch.empty(shape.parameters) if needs_parameters else None
    if not (needs_x or needs_parameters):
        return None, None
    code = library.engine_backward(
        *shape.arguments(kept.rows, kept.keep),
        parameters.data_ptr(),
        grad_y.data_ptr(),
        kept.address,
        grad_parameters.data_ptr() if grad_parameters is not None else None,
        grad_x.data_ptr() if grad_x is not None else None,
        kept.inputs,
        num_threads(),
    )
    _done(code)
    return grad_x, grad_parameters
