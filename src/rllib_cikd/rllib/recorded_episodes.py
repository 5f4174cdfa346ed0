"""Evaluation episodes whose transitions are kept, for the buffer."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rllib_cikd.rllib.transitions import Chunk


@dataclass
class _Episode:
    observations: list[np.ndarray]
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False


class RecordedEpisodes:
    """An `EpisodeObserver` that keeps what it sees.

    Of an episode that is played again, as its environment raised, the last attempt counts.
    """

    def __init__(self) -> None:
        self._episodes: dict[tuple[int, int], _Episode] = {}
        self._ended: list[tuple[int, _Episode]] = []

    def start(self, k: int, e: int, observation: np.ndarray, info: dict[str, Any]) -> None:
        self._episodes[k, e] = _Episode([observation])

    def step(self, k: int, e: int, action: np.ndarray, result: tuple[Any, ...]) -> None:
        episode = self._episodes[k, e]
        observation, reward, episode.terminated, episode.truncated, _ = result
        episode.observations.append(observation)
        episode.actions.append(action)
        episode.rewards.append(reward)
        if episode.terminated or episode.truncated:
            self._ended.append((k, self._episodes.pop((k, e))))

    def end(self) -> None:
        """Nothing is left to do."""

    def chunks(self) -> list[Chunk]:
        """The episodes, each whole, in the order in which they ended."""
        return [
            Chunk(
                episode_id=uuid.uuid4().hex,
                start=0,
                member=k,
                observations=np.array(episode.observations, dtype=np.float32),
                actions=np.array(episode.actions, dtype=np.float32),
                rewards=np.array(episode.rewards, dtype=np.float64),
                terminated=episode.terminated,
                truncated=episode.truncated and not episode.terminated,
            )
            for k, episode in self._ended
        ]
