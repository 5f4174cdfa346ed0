"""The engine's native library: what it computes, and whether it is there.

The library is C++ of this project (`native/`), compiled when the package is installed. It works on
float32 tensors on the CPU. Where it is missing, `perceptrons` and `optimizer` compute the same with
PyTorch's operations.

Two environment variables change what is chosen when the library is first needed:

- `RLLIB_CIKD_ENGINE`: `auto` (default), `native` (an error if it is missing), or `plain`.
- `RLLIB_CIKD_SIMD`: `avx512`, `avx2` or `baseline`; by default the first that the processor has.

Results do not depend on the number of threads, nor on whether AVX-512 or AVX2 is used.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter

#: What a forward pass keeps for the backward pass.
NOTHING, FOR_INPUTS, FOR_PARAMETERS = range(3)
#: Linear layers of one perceptron that the library takes.
MAX_LAYERS = 64

_ACTIVATIONS = ("relu", "tanh", "elu")
_SIMD = ("avx512", "avx2", "baseline")

_Integer, _Float, _Address = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
_SHAPE = [_Integer, _Integer, _Address, ctypes.c_int, _Integer, ctypes.c_int]
_FUNCTIONS = {
    "engine_choose": (ctypes.c_char_p, [ctypes.c_int]),
    "engine_kept": (_Integer, _SHAPE),
    "engine_forward": (
        ctypes.c_int,
        [*_SHAPE, *[_Address] * 2, *[_Integer] * 3, *[_Address] * 2, _Integer],
    ),
    "engine_backward": (ctypes.c_int, [*_SHAPE, *[_Address] * 5, *[_Integer] * 2]),
    "engine_adam": (None, [*[_Address] * 4, _Integer, *[_Float] * 6, _Integer]),
    "engine_follow": (None, [_Address, _Address, _Float, _Integer, _Integer]),
}


class Shape:
    """n perceptrons of equal shape, as the library is told of them.

    Args:
        networks: n.
        widths: Inputs, hidden units of each layer, outputs.
        activation: "relu", "tanh" or "elu".

    Raises:
        ValueError: If there are none, more layers than the library takes, or layers without units.
    """

    def __init__(self, networks: int, widths: Sequence[int], activation: str):
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
        self._widths = (_Integer * len(self.widths))(*self.widths)
        self._arguments = (
            networks,
            len(pairs),
            ctypes.addressof(self._widths),
            _ACTIVATIONS.index(activation),
        )
        self._spare: dict[int, list[Tensor]] = {}

    def arguments(self, rows: int, keep: int) -> tuple[int, ...]:
        """The first arguments of the library's functions."""
        return (*self._arguments, rows, keep)


class Kept:
    """What a forward pass keeps until its backward pass; the next one uses its memory again."""

    def __init__(self, library: ctypes.CDLL, shape: Shape, inputs: int, rows: int, keep: int):
        self.shape, self.inputs, self.rows, self.keep = shape, inputs, rows, keep
        self._size = library.engine_kept(*shape.arguments(rows, keep))
        spare = shape._spare.setdefault(self._size, [])
        self._memory = spare.pop() if spare else torch.empty(self._size)
        self.address = self._memory.data_ptr()

    def __del__(self) -> None:
        spare = self.shape._spare
        if len(spare) > 4:  # as batch sizes come and go
            spare.clear()
        spare.setdefault(self._size, []).append(self._memory)


def computes(tensor: Tensor) -> bool:
    """Whether the library is there and computes with this tensor's type, on its device."""
    return (
        tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and type(tensor) in (Tensor, Parameter)  # others, such as fake ones, may have no memory
        and _load()[0] is not None
    )


def describe() -> str:
    """One line: which engine computes on the CPU; if it is the plain one, why and what to do."""
    library, words = _load()
    if library is not None:
        return f"engine: native, {words}"
    return f"engine: plain PyTorch, slower than the native one: {words}"


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library and its kernels' name; or None and the reason."""
    wish = _choice("RLLIB_CIKD_ENGINE", ("auto", "native", "plain"))
    if wish == "plain":
        return None, "RLLIB_CIKD_ENGINE=plain is set."
    library, words = _open()
    if library is None and wish == "native":
        raise RuntimeError(f"RLLIB_CIKD_ENGINE=native is set, but {words}")
    return library, words


def _open() -> tuple[ctypes.CDLL | None, str]:
    path = Path(__file__).with_name("libengine.so")
    remedy = "install a C++ compiler (g++ or clang++) and then rllib-cikd again."
    if not path.exists():
        return None, f"it was not built when rllib-cikd was installed; {remedy}"
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        return None, f"{path} cannot be used ({error}); {remedy}"
    wish = _choice("RLLIB_CIKD_SIMD", ("", *_SIMD))
    for place, simd in enumerate(_SIMD):
        chosen = library.engine_choose(place) if wish in ("", simd) else None
        if chosen is not None:
            return library, chosen.decode()
    raise RuntimeError(f"RLLIB_CIKD_SIMD={wish}: this processor does not have it; unset it.")


def _choice(variable: str, choices: Sequence[str]) -> str:
    value = os.environ.get(variable, choices[0])
    if value not in choices:
        named = ", ".join(choice for choice in choices if choice)
        raise ValueError(f"{variable}={value} must be one of: {named}.")
    return value


_threads: ContextVar[int | None] = ContextVar("_threads", default=None)


@contextmanager
def all_threads() -> Iterator[None]:
    """PyTorch's threads are the library's; PyTorch's own operations take one meanwhile.

    What is left to PyTorch is small, and its threads spin for milliseconds after each piece, where
    the library's should run (two fifths of the speed on two processors). Nor do its sums then
    depend on the number of threads. Without the library nothing changes.
    """
    threads = torch.get_num_threads()
    if threads == 1 or _load()[0] is None:
        yield
        return
    _threads.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _threads.set(None)


def _library() -> ctypes.CDLL:
    library, words = _load()
    if library is None:
        raise RuntimeError(f"The native engine is not there: {words}")
    return library


def _check(name: str, tensor: Tensor, shape: Sequence[int], contiguous: bool = True) -> None:
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
    library = _library()
    inputs, outputs = shape.widths[0], shape.widths[-1]
    _check("parameters", parameters, (shape.parameters,))
    if x.dim() != 3 or x.numel() == 0:
        raise ValueError(f"x has shape {list(x.shape)}, expected [m, B, in], none of them 0.")
    if shape.networks % x.shape[0] != 0:
        raise ValueError(f"{shape.networks} perceptrons cannot share {x.shape[0]} inputs.")
    rows = x.shape[1]
    if x.stride(2) != 1:
        x = x.contiguous()
    _check("x", x, (x.shape[0], rows, inputs), contiguous=False)
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
        _threads.get() or torch.get_num_threads(),
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
    library, shape = _library(), kept.shape
    grad_y = grad_y.contiguous()
    _check("parameters", parameters, (shape.parameters,))
    _check("the gradient of y", grad_y, (shape.networks, kept.rows, shape.widths[-1]))
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
        _threads.get() or torch.get_num_threads(),
    )
    _done(code)
    return grad_x, grad_parameters


def adam(
    parameters: Tensor,
    gradient: Tensor,
    first_moments: Tensor,
    second_moments: Tensor,
    step: int,
    lr: float,
    betas: tuple[float, float],
    epsilon: float,
) -> None:
    """Adam's step number `step` (from 1 on), in place; tensors of equal shape.

    First moments below 1e-30 and second ones below 1e-32 become 0.

    Raises:
        ValueError: If a tensor has another shape, type or device.
    """
    library = _library()
    for name, tensor in (
        ("parameters", parameters),
        ("the gradient", gradient),
        ("first moments", first_moments),
        ("second moments", second_moments),
    ):
        _check(name, tensor, parameters.shape)
    if step < 1:
        raise ValueError(f"Adam's steps are counted from 1 on, not {step}.")
    beta1, beta2 = betas
    library.engine_adam(
        parameters.data_ptr(),
        gradient.data_ptr(),
        first_moments.data_ptr(),
        second_moments.data_ptr(),
        parameters.numel(),
        lr / (1.0 - beta1**step),
        beta2,
        1.0 - beta1,
        1.0 - beta2,
        1.0 / math.sqrt(1.0 - beta2**step),
        epsilon,
        _threads.get() or torch.get_num_threads(),
    )


def follow(target: Tensor, source: Tensor, tau: float) -> None:
    """`target += tau * (source - target)`, in place; tensors of equal shape.

    Raises:
        ValueError: If a tensor has another shape, type or device.
    """
    library = _library()
    _check("the source", source, target.shape)
    _check("the target", target, target.shape)
    threads = _threads.get() or torch.get_num_threads()
    library.engine_follow(target.data_ptr(), source.data_ptr(), tau, target.numel(), threads)
