"""A step, recorded once on a GPU and then launched as a whole (a CUDA graph).

A SAC update is 250 operations, and a GPU is done with each of them before Python has launched the
next: launched together, they cost almost the same for one member as for many.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from rllib_cikd.engine import library

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Ordinary calls before the recording: they make what a step makes once (optimiser state, cuBLAS).
_CALLS_BEFORE_RECORDING = 3


class RecordedStep(Generic[T]):
    """A function of tensors that, on a GPU, is recorded and then replayed.

    On a CPU it is called, with all threads for the native engine.

    Args:
        step: Takes tensors, returns one or none. On a GPU it must not wait for the device's
            results, and may read and write only its arguments and tensors that stay in place.
        optimizers: Those that `step` steps. A recording keeps where their states are and their step
            sizes; restoring a checkpoint makes new states, a schedule changes step sizes, and then
            `step` is recorded anew.
        records: False if `step` waits for other processes: then it is called on a GPU as well.
    """

    #: Set for all steps when one could not be recorded.
    _cannot_record = False

    def __init__(
        self,
        step: Callable[..., T],
        optimizers: Sequence[torch.optim.Optimizer] = (),
        records: bool = True,
    ):
        self._step = step
        self._records = records
        self._optimizers = optimizers
        self._valid_for: Hashable = None
        self._calls = 0
        self._graph: Any = None
        self._arguments: list[Tensor] = []
        self._result: Any = None

    def __call__(self, *arguments: Tensor) -> T:
        """`step(*arguments)`; a replay's result is overwritten by the next call."""
        if not _on_gpu(arguments):
            with library.all_threads():
                return self._step(*arguments)
        if not self._records or RecordedStep._cannot_record:
            return self._step(*arguments)
        with torch.cuda.device(arguments[0].device):
            return self._call_on_gpu(arguments)

    def _call_on_gpu(self, arguments: tuple[Tensor, ...]) -> T:
        valid_for = (self._kept_by_a_recording(), tuple(a.shape for a in arguments))
        if valid_for != self._valid_for:
            self._valid_for, self._graph, self._calls = valid_for, None, 0
        if self._graph is None:
            if self._calls < _CALLS_BEFORE_RECORDING:
                self._calls += 1
                return self._call_aside(arguments)
            if not self._record(arguments):
                return self._step(*arguments)
        for own, given in zip(self._arguments, arguments, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._result

    def _kept_by_a_recording(self) -> tuple[Hashable, ...]:
        kept: list[Hashable] = []
        for optimizer in self._optimizers:
            kept += [float(group["lr"]) for group in optimizer.param_groups]
            for state in optimizer.state.values():
                kept += [tensor.data_ptr() for tensor in state.values()]
        return tuple(kept)

    def _call_aside(self, arguments: tuple[Tensor, ...]) -> T:
        """An ordinary call, on a stream of its own, as PyTorch asks for before a recording."""
        current, aside = torch.cuda.current_stream(), _side_stream(arguments[0].device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            result = self._step(*arguments)
        current.wait_stream(aside)
        if isinstance(result, Tensor):
            result.record_stream(current)
        return result

    def _record(self, arguments: tuple[Tensor, ...]) -> bool:
        """Records `step` without computing anything; False if it cannot be recorded here."""
        self._arguments = [a.clone() for a in arguments]
        current = torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        # cuBLAS's workspace belongs to a stream: cleared before and after, so that each graph has
        # one of its own, which no other graph can take with it.
        _clear_workspaces()
        try:
            with torch.cuda.graph(graph, stream=_side_stream(arguments[0].device)):
                self._result = self._step(*self._arguments)
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # a recording that fails leaves its own behind
            logger.warning("Updates are slower than they could be: no CUDA graph (%s).", error)
            RecordedStep._cannot_record = True
            return False
        finally:
            _clear_workspaces()
        self._graph = graph
        return True


def _on_gpu(arguments: tuple[Tensor, ...]) -> bool:
    return arguments[0].is_cuda


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _clear_workspaces() -> None:
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
