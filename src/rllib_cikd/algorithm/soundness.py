"""Whether what has been learned is finite: nothing else may be taught or saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from rllib_cikd.algorithm.sac_update import SACUpdate


def first_unsound(updates: Iterable[SACUpdate]) -> tuple[int, str] | None:
    """The first quantity that is not finite.

    Args:
        updates: Of all members: their networks, temperatures and optimisers are looked at.

    Returns:
        Whose it is, as a place in the ensemble, and what: "policy", "critics", "target critics",
        "temperature", or "moments of the actor optimiser" and so on. None if all is finite.
    """
    quantities = [(update, *quantity) for update in updates for quantity in _quantities(update)]
    finite = [torch.isfinite(tensor).all() for *_, tensor in quantities]
    if bool(torch.stack(finite).all()):
        return None
    found = [
        (update.stack.members[row % len(update.stack)], what)
        for update, kind, what, tensor in quantities
        for row in _unsound_rows(update, kind, tensor)
    ]
    return min(found, key=lambda item: item[0])


def _quantities(update: SACUpdate) -> Iterator[tuple[str, str, Tensor]]:
    """Whose optimiser's parameters they are like, what they are, and the numbers."""
    stack = update.stack
    yield "actor", "policy", stack.policy.parameters.detach()
    yield "critic", "critics", stack.critics.parameters.detach()
    yield "critic", "target critics", stack.target_critics.parameters.detach()
    yield "alpha", "temperature", stack.log_alpha.detach()
    for kind, networks in (("actor", stack.policy), ("critic", stack.critics)):
        for statistics in networks.statistics:
            yield kind, "statistics of batch normalisation", statistics
    for name, optimizer in update.optimizers.items():
        for state in optimizer.state.values():
            for moment in ("exp_avg", "exp_avg_sq"):
                yield name, f"moments of the {name} optimiser", state[moment]


def _unsound_rows(update: SACUpdate, kind: str, tensor: Tensor) -> list[int]:
    """The networks, or temperatures, of which a number is not finite."""
    blocks = [tensor]
    if tensor.dim() == 1:  # of a stack of networks
        networks = update.stack.policy if kind == "actor" else update.stack.critics
        blocks = networks.split(tensor)
    finite = [torch.isfinite(block).reshape(len(block), -1).all(1) for block in blocks]
    return torch.stack(finite).all(0).logical_not().nonzero().flatten().tolist()
