"""Adam over stacked parameters, by the native engine or by PyTorch's fused kernel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

from rllib_cikd.engine import native, native_elementwise

#: First and second moments below these are set to 0 (see `Adam`).
_VANISHED = {"exp_avg": 1e-30, "exp_avg_sq": 1e-32}
#: Gradient steps between two looks for them; the native engine looks at every step.
_STEPS_BETWEEN_FLUSHES = 100


class Adam(torch.optim.Adam):
    """`torch.optim.Adam` for a few large tensors, all of which get a gradient.

    Same rule, same state, same checkpoint. `Optimizer.step`'s hooks, profiler ranges and regrouping
    of tensors take as long as the kernel itself for networks of this size, so `descend` calls the
    native engine; or PyTorch's fused kernel, where that engine does not compute.

    A unit that has died gets no gradient any more. Its moments decay to subnormal numbers, below
    1e-38, and stay there, and processors are a hundred times slower with those. So vanishing
    moments are set to 0. That has no effect: a first moment of 1e-30 moves a weight by less than
    1e-25, and the root of a second moment of 1e-32 is nothing beside Adam's ε of 1e-8.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, beta1: float = 0.9):
        super().__init__(parameters, lr=lr, betas=(beta1, 0.999), fused=True)
        self._steps_since_flush = 0

    def descend(self) -> None:
        """What `step()` does."""
        (group,) = self.param_groups
        parameters = group["params"]
        for p in parameters:
            p.grad = p.grad.contiguous()  # PyTorch's fused kernel reads others wrongly
        if not self.state:  # the first step makes the state
            self.step()
            return
        if all(native.computes(p) for p in parameters):
            self._descend_natively(group)
        else:
            self._descend_plainly(group)

    def _descend_natively(self, group: dict[str, Any]) -> None:
        lr, betas, epsilon = float(group["lr"]), group["betas"], group["eps"]
        for p in group["params"]:
            state = self.state[p]
            state["step"] += 1
            native_elementwise.adam(
                p,
                p.grad,
                state["exp_avg"],
                state["exp_avg_sq"],
                int(state["step"]),
                lr,
                betas,
                epsilon,
            )

    @torch.no_grad()
    def _descend_plainly(self, group: dict[str, Any]) -> None:
        parameters = group["params"]
        states = [self.state[p] for p in parameters]
        beta1, beta2 = group["betas"]
        adam(
            parameters,
            [p.grad for p in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )
        self._steps_since_flush += 1
        if self._steps_since_flush >= _STEPS_BETWEEN_FLUSHES and not parameters[0].is_cuda:
            self._steps_since_flush = 0
            for state in states:
                for moment, vanished in _VANISHED.items():
                    torch.hardshrink(state[moment], vanished, out=state[moment])
