"""PyTorch's fused Adam, stepped without the bookkeeping of `Optimizer.step`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adam import adam


class FusedAdam(torch.optim.Adam):
    """`torch.optim.Adam(fused=True)` for a few large tensors, all of which get a gradient.

    Same state, same checkpoint, same kernel. `Optimizer.step`'s hooks, profiler ranges and
    regrouping of tensors take as long as the kernel itself for networks of this size, so `descend`
    calls Adam's functional form.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float):
        super().__init__(parameters, lr=lr, fused=True)

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
