"""Observation normalisation, one for all members: a running mean and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from rllib_cikd.algorithm.replay_buffer import Batch

#: Normalised observations stay within this, as in RLlib's own filter.
LIMIT = 10.0
#: Added to the standard deviation, for numbers that never change.
EPSILON = 1e-8


def normalize(obs: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """(obs - mean) / deviation within [-10, 10]; `[..., D]` with `[D]` and `[D]`."""
    return ((obs - mean) / deviation).clamp(-LIMIT, LIMIT)


class ObservationStatistics:
    """Mean and standard deviation of all observations added so far.

    Kept in float64 and merged batch by batch (Chan, Golub and LeVeque 1979, eq. 2.1), so that a
    large mean beside a small deviation loses no digits.

    Args:
        dim: D, numbers in an observation.
    """

    def __init__(self, dim: int):
        self.count = 0
        self._mean = np.zeros(dim)
        self._squares = np.zeros(dim)  # the sum of squared distances to the mean

    def add(self, obs: np.ndarray) -> None:
        """Adds N observations, `[N, D]`."""
        n = len(obs)
        if n == 0:
            return
        mean = obs.mean(axis=0, dtype=np.float64)
        distance = mean - self._mean
        total = self.count + n
        self._squares += np.square(obs - mean).sum(axis=0)
        self._squares += np.square(distance) * (self.count * n / total)
        self._mean += distance * (n / total)
        self.count = total

    @property
    def mean(self) -> Tensor:
        """`[D]`, float32; 0 before the first observation."""
        return torch.from_numpy(self._mean.astype(np.float32))

    @property
    def deviation(self) -> Tensor:
        """`[D]`, float32, `EPSILON` included; 1 before the second observation."""
        if self.count < 2:
            return torch.ones(len(self._mean))
        deviation = np.sqrt(self._squares / (self.count - 1)) + EPSILON
        return torch.from_numpy(deviation.astype(np.float32))

    def get_state(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self._mean.copy(), "squares": self._squares.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])
        self._mean = np.array(state["mean"], dtype=np.float64)
        self._squares = np.array(state["squares"], dtype=np.float64)


class Normalized(Protocol):
    """A member that normalises observations."""

    obs_mean: Tensor
    obs_deviation: Tensor


class ObservationNormalizer:
    """Keeps the statistics and gives them to all members, which act with them.

    Args:
        members: At least one.
    """

    def __init__(self, members: Sequence[Normalized]):
        self._members = list(members)
        self.statistics = ObservationStatistics(len(members[0].obs_mean))

    def add(self, obs: np.ndarray) -> None:
        """Adds N observations, `[N, D]`, as the environment gives them."""
        self.statistics.add(obs)
        mean, deviation = self.statistics.mean, self.statistics.deviation
        for member in self._members:
            member.obs_mean.copy_(mean)
            member.obs_deviation.copy_(deviation)

    def __call__(self, batch: Batch) -> Batch:
        """Transitions of the replay buffer, as the networks see them."""
        member = self._members[0]
        obs, next_obs = (
            normalize(o, member.obs_mean, member.obs_deviation) for o in (batch.obs, batch.next_obs)
        )
        obs_and_actions = torch.cat([obs, batch.actions], -1)
        return batch._replace(obs=obs, next_obs=next_obs, obs_and_actions=obs_and_actions)
