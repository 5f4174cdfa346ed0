"""The replay buffer that all members share (CIKD, phase 2): a preallocated ring of transitions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rllib_cikd.algorithm.memory import free_bytes


class Batch(NamedTuple):
    """Transitions ready for learning; the leading axes are those of the sampled rows."""

    obs: Tensor  #: s, `[..., D]`
    actions: Tensor  #: a in [-1, 1], `[..., A]`
    obs_and_actions: Tensor  #: both side by side, `[..., D + A]`
    rewards: Tensor  #: r, or the discounted sum of n rewards, `[...]`
    discounts: Tensor  #: factor of the bootstrap value, `[...]`: γ^n, 0 after a termination
    next_obs: Tensor  #: s' (n steps later), `[..., D]`


class ReplayBuffer:
    """Ring buffer of single transitions in one tensor, on the device that learns from it.

    A row is [obs, action, reward, terminated, next_obs]: a minibatch is one gather, and the
    critics' input [obs, action] is a slice of it. Each row knows the row of its successor in
    the same episode, so n-step returns are put together when a minibatch is drawn and no
    transition has to wait for the ones after it.

    On a CPU its memory is reserved at once but taken as it fills: what has never been written to
    costs nothing.

    Args:
        capacity: Number of transitions kept; the oldest is overwritten first.
        obs_dim, action_dim: D and A.
        device: Where the transitions live.
        n_step: Number of rewards in a return, 1 or more. Fewer are used where the episode
            ends, or has not gone further yet; the value of the state reached is bootstrapped.
        parts: Of how many equal parts of one buffer this is one (see `ReplayShard`). On a CPU they
            are taken to share its memory.

    Raises:
        MemoryError: If it would not fit, before anything is allocated.
    """

    def __init__(
        self,
        capacity: int,
        obs_dim: int,
        action_dim: int,
        device: torch.device | str = "cpu",
        n_step: int = 1,
        parts: int = 1,
    ):
        self.capacity = capacity
        self._parts = parts
        self.n_step = n_step
        self._obs_dim = obs_dim
        self._action_dim = action_dim
        width = 2 * obs_dim + action_dim + 2
        _check_fit(capacity, 4 * width + 8 * (n_step > 1), torch.device(device), parts)
        # Rows from `len(self)` on are never read.
        self._rows = torch.empty(capacity, width, device=device)
        self._successor = (
            torch.empty(capacity, dtype=torch.int64, device=device) if n_step > 1 else None
        )
        self._last_of_episode: dict[int, int] = {}
        self.num_added = 0  # over the buffer's whole life

    def __len__(self) -> int:
        return min(self.num_added, self.capacity)

    def add(
        self,
        obs: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        next_obs: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        episodes: np.ndarray,
    ) -> None:
        """Appends N transitions, in order.

        Args:
            obs, next_obs: `[N, D]`.
            actions: `[N, A]`, in [-1, 1].
            rewards: `[N]`.
            terminated: `[N]`, whether s' is terminal.
            truncated: `[N]`, whether the episode was cut after this step (a time limit); the
                value of s' is bootstrapped then.
            episodes: `[N]` integers that tell episodes apart; rows of one episode come in
                order, within a call and over calls.

        Raises:
            ValueError: If N is larger than the capacity.
        """
        count = len(rewards)
        if count > self.capacity:
            raise ValueError(f"{count} transitions do not fit into a capacity of {self.capacity}.")
        rows = np.concatenate(
            [obs, actions, rewards[:, None], terminated[:, None], next_obs], axis=1
        ).astype(np.float32)
        order = range(self.num_added, self.num_added + count)
        positions = torch.arange(order.start, order.stop, device=self._rows.device) % self.capacity
        self._rows[positions] = torch.from_numpy(rows).to(self._rows.device)
        self.num_added += count
        if self._successor is not None:
            done = np.logical_or(terminated, truncated)
            self._successor[positions] = -1
            self._link(order, episodes.tolist(), done.tolist())

    def _link(self, order: range, episodes: list[int], done: list[bool]) -> None:
        """Tells each row its successor; `order` counts transitions over the buffer's life."""
        assert self._successor is not None
        for number, episode, is_last in zip(order, episodes, done, strict=True):
            previous = self._last_of_episode.pop(episode, None)
            if previous is not None and previous >= self.num_added - self.capacity:
                self._successor[previous % self.capacity] = number % self.capacity
            if not is_last:
                self._last_of_episode[episode] = number

    def gather(self, indices: Tensor, gamma: float) -> Batch:
        """The transitions in these rows (any shape of int64 indices below `len(self)`)."""
        rows = self._rows.index_select(0, indices.flatten()).view(*indices.shape, -1)
        d, a = self._obs_dim, self._action_dim
        rewards, terminated = rows[..., d + a], rows[..., d + a + 1]
        discounts = torch.rsub(terminated, gamma, alpha=gamma)  # gamma * (1 - terminated)
        next_obs = rows[..., d + a + 2 :]
        if self._successor is not None:
            row = indices
            for _ in range(self.n_step - 1):
                successor = self._successor[row]
                goes_on = successor >= 0
                row = torch.where(goes_on, successor, row)
                step = self._rows[row]
                rewards = rewards + goes_on * discounts * step[..., d + a]
                factor = torch.where(goes_on, gamma * (1.0 - step[..., d + a + 1]), 1.0)
                discounts = discounts * factor
            next_obs = self._rows[row][..., d + a + 2 :]
        return Batch(
            obs=rows[..., :d],
            actions=rows[..., d : d + a],
            obs_and_actions=rows[..., : d + a],
            rewards=rewards,
            discounts=discounts,
            next_obs=next_obs,
        )

    def get_state(self) -> dict[str, Any]:
        """The transitions held and the ring's position, as numpy arrays."""
        size = len(self)
        state = {"num_added": self.num_added, "rows": self._rows[:size].cpu().numpy().copy()}
        if self._successor is not None:
            state["successor"] = self._successor[:size].cpu().numpy().copy()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores `get_state()`; episodes that were going on then are not continued.

        Raises:
            ValueError: If the stored transitions do not fit this buffer.
            MemoryError: If they would not fit into memory a second time.
        """
        state = fitted(state, self.capacity)
        rows = torch.from_numpy(np.ascontiguousarray(state["rows"]))
        if len(rows) > self.capacity or rows.shape[1] != self._rows.shape[1]:
            raise ValueError(
                f"The stored replay buffer holds rows of shape {list(rows.shape)}, this one of "
                f"capacity {self.capacity} takes rows of {self._rows.shape[1]}: capacity, "
                "observation or action dimension were changed since."
            )
        if self._rows.device.type == "cpu":  # what was reserved has not been taken yet
            row_bytes = rows.nbytes // max(1, len(rows))
            _check_fit(len(rows), row_bytes, self._rows.device, self._parts)
        self.num_added = int(state["num_added"])
        self._rows[: len(rows)] = rows.to(self._rows.device)
        self._last_of_episode.clear()
        if self._successor is not None:
            self._successor[: len(rows)] = -1
            if "successor" in state:
                successor = torch.from_numpy(state["successor"])
                self._successor[: len(rows)] = successor.to(self._rows.device)

    def clear(self) -> None:
        """Forgets all transitions."""
        self.num_added = 0
        self._last_of_episode.clear()


def fitted(state: dict[str, Any], capacity: int) -> dict[str, Any]:
    """The same transitions as a buffer of this capacity holds them.

    A full ring that goes into a larger one begins with its oldest transition there.
    """
    size, num_added = len(state["rows"]), int(state["num_added"])
    if size >= min(num_added, capacity):
        return state
    oldest = num_added % size
    moved = {"num_added": size, "rows": np.roll(state["rows"], -oldest, 0)}
    if "successor" in state:
        successor = np.roll(state["successor"], -oldest)
        moved["successor"] = np.where(successor < 0, successor, (successor - oldest) % size)
    return moved


def _check_fit(capacity: int, row_bytes: int, device: torch.device, parts: int) -> None:
    needed, free = capacity * row_bytes * parts, free_bytes(device)
    if device.type != "cpu":
        free *= parts  # each part has a device of its own
    if needed <= free:
        return
    gib = 2**30
    raise MemoryError(
        f"The replay buffer does not fit: {capacity * parts:,} transitions of {row_bytes:,} bytes "
        f"need {needed / gib:,.1f} GiB, and {free / gib:,.1f} GiB are free on {device}. Set "
        f"replay_buffer_config={{'capacity': …}} to at most {free // row_bytes:,} (better some "
        "less: networks and environments need memory, too), or make observations smaller."
    )
