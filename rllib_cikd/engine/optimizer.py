"""Adam over stacked parameters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adam import adam

#: Gradient steps between two looks for moments that have vanished.
_STEPS_BETWEEN_FLUSHES = 100


class Adam(torch.optim.Adam):
    """`torch.optim.Adam(fused=True)` for a few large tensors, all of which get a gradient.

    Same state, same checkpoint, same kernel. `Optimizer.step`'s hooks, profiler ranges and
    regrouping of tensors take as long as the kernel itself for networks of this size, so `descend`
    calls Adam's functional form.

    A unit that has died gets no gradient any more. Its moments decay to denormal numbers, below
    1e-38, and stay there, and processors are a hundred times slower with those. So vanishing
    moments are set to 0 now and then. That has no effect: a first moment of 1e-30 moves a weight by
    less than 1e-25, and the root of a second moment of 1e-32 is nothing beside Adam's ε of 1e-8.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float):
        super().__init__(parameters, lr=lr, fused=True)
        self._steps_since_flush = 0

    @torch.no_grad()
    def descend(self) -> None:
        """What `step()` does."""
        (group,) = self.param_groups
        parameters = group["params"]
        if not self.state:  # the first step makes the state
            self.step()
            return
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
                for moment, vanished in (("exp_avg", 1e-30), ("exp_avg_sq", 1e-32)):
                    torch.hardshrink(state[moment], vanished, out=state[moment])
