"""The replay buffer of several learners: each holds every N-th transition.

Transition number g of the run is with learner g mod N. Side by side, the N rings are the ring that
one learner would have, row for row: so a checkpoint holds one buffer, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rllib_cikd.algorithm.learners import ALONE, Learners
from rllib_cikd.algorithm.replay_buffer import ReplayBuffer, fitted


class ReplayShard(ReplayBuffer):
    """One learner's part of a replay buffer; alone, the whole of it.

    Args:
        capacity: Of the whole buffer; a multiple of the number of learners.
        obs_dim, action_dim, device, n_step: As `ReplayBuffer` has them. Successors may be with
            another learner: with several, `n_step` must be 1.
        learners: Who shares it.

    Raises:
        MemoryError: If the part would not fit, before anything is allocated.
    """

    def __init__(
        self,
        capacity: int,
        obs_dim: int,
        action_dim: int,
        device: torch.device | str = "cpu",
        n_step: int = 1,
        learners: Learners = ALONE,
    ):
        self.learners = learners
        super().__init__(
            capacity // learners.size, obs_dim, action_dim, device, n_step, parts=learners.size
        )
        self.num_added_to_all = 0  # transitions, over the whole buffer's life

    @property
    def len_of_all(self) -> int:
        """Transitions in the whole buffer."""
        return min(self.num_added_to_all, self.capacity * self.learners.size)

    @property
    def len_of_shortest(self) -> int:
        """Transitions in the shortest part, one less than in the longest at most."""
        return self.len_of_all // self.learners.size

    def add(self, **transitions: np.ndarray) -> None:  # type: ignore[override]
        """Takes its own of N transitions that come in order; see `ReplayBuffer.add`."""
        rank, size = self.learners.rank, self.learners.size
        own = slice((rank - self.num_added_to_all) % size, None, size)
        self.num_added_to_all += len(transitions["rewards"])
        super().add(**{name: values[own] for name, values in transitions.items()})

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes its part of a whole buffer's state; see `ReplayBuffer.set_state`."""
        state = fitted(state, self.capacity * self.learners.size)
        self.num_added_to_all = int(state["num_added"])
        super().set_state(part_of(state, self.learners))

    def clear(self) -> None:
        """Forgets all transitions, also those of the other parts."""
        self.num_added_to_all = 0
        super().clear()


def part_of(state: dict[str, Any], learners: Learners) -> dict[str, Any]:
    """A learner's part of the state of a whole buffer whose capacity is a multiple of N."""
    if learners.size == 1:
        return state
    own = slice(learners.rank, None, learners.size)
    return {
        "num_added": len(range(int(state["num_added"]))[own]),
        "rows": state["rows"][own],
    }


def whole_of(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The state of the whole buffer from those of its parts, in the order of the learners."""
    if len(parts) == 1:
        return parts[0]
    length = sum(len(part["rows"]) for part in parts)
    rows = np.empty((length, parts[0]["rows"].shape[1]), parts[0]["rows"].dtype)
    for rank, part in enumerate(parts):
        rows[rank :: len(parts)] = part["rows"]
    return {"num_added": sum(part["num_added"] for part in parts), "rows": rows}
