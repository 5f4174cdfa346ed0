"""The engine's native library: whether it is there, which kernels it uses, and its threads.

The library is C++ of this project (`native/`), compiled when the package is installed. Where it is
missing, PyTorch's operations compute the same.

Two environment variables change what is chosen when the library is first needed:

- `RLLIB_CIKD_ENGINE`: `auto` (default), `native` (an error if it is missing), or `plain`.
- `RLLIB_CIKD_SIMD`: `avx512`, `avx2` or `baseline`; by default the first that the processor has.

Results do not depend on the number of threads, nor on whether AVX-512 or AVX2 is used.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch

#: Of the functions below, as the library has it (`native/api.h`).
_INTERFACE = 4

_SIMD = ("avx512", "avx2", "baseline")

Integer, _Float, _Address = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
_SHAPE = [Integer, Integer, _Address, ctypes.c_int, Integer, ctypes.c_int]
_FUNCTIONS = {
    "engine_interface": (ctypes.c_int, []),
    "engine_choose": (ctypes.c_char_p, [ctypes.c_int]),
    "engine_kept": (Integer, _SHAPE),
    "engine_forward": (
        ctypes.c_int,
        [*_SHAPE, *[_Address] * 2, *[Integer] * 3, *[_Address] * 2, Integer],
    ),
    "engine_backward": (ctypes.c_int, [*_SHAPE, *[_Address] * 5, *[Integer] * 2]),
    "engine_adam": (None, [*[_Address] * 4, Integer, *[_Float] * 6, Integer]),
    "engine_follow": (None, [_Address, _Address, _Float, Integer, Integer]),
    "engine_rectify": (None, [*[Integer] * 3, *[_Address] * 4, Integer]),
    "engine_rectify_gradient": (None, [*[Integer] * 3, *[_Address] * 5, Integer]),
    "engine_fold": (None, [*[Integer] * 3, _Address, _Float, _Address, Integer]),
    "engine_fold_gradient": (None, [*[Integer] * 3, _Address, _Float, *[_Address] * 2, Integer]),
    "engine_sample": (
        None,
        [*[Integer] * 3, _Address, *[_Float] * 2, _Address, *[Integer] * 2, *[_Address] * 3],
    ),
    "engine_td_target": (
        None,
        [*[Integer] * 2, *[_Address, Integer, Integer] * 2, *[_Address] * 4],
    ),
    "engine_critic_loss": (None, [*[Integer] * 2, *[_Address] * 4]),
    "engine_actor_loss": (None, [*[Integer] * 2, *[_Address] * 5]),
    "engine_sample_gradient": (None, [*[Integer] * 2, _Address, *[_Float] * 2, *[_Address] * 5]),
}


def describe() -> str:
    """One line: which engine computes on the CPU; if it is the plain one, why and what to do."""
    library, words = load()
    if library is not None:
        return f"engine: native, {words}"
    return f"engine: plain PyTorch, slower than the native one: {words}"


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str]:
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
        if library.engine_interface() != _INTERFACE:
            raise AttributeError("it was built from other sources")
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
    if threads == 1 or load()[0] is None:
        yield
        return
    _threads.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _threads.set(None)


def is_there() -> bool:
    """Whether the library can be used."""
    return load()[0] is not None


def loaded() -> ctypes.CDLL:
    """The library.

    Raises:
        RuntimeError: If it is not there.
    """
    library, words = load()
    if library is None:
        raise RuntimeError(f"The native engine is not there: {words}")
    return library


def num_threads() -> int:
    """How many threads the library may use."""
    return _threads.get() or torch.get_num_threads()
