"""From RLlib's episode chunks to plain transitions and finished returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rllib_cikd.algorithm.history import FinishedEpisode
from rllib_cikd.algorithm.members import is_abandoned, member_of
from rllib_cikd.rllib.environment import AGENT_ID


@dataclass(frozen=True)
class Chunk:
    """T steps of an episode, as they travel from an env runner.

    Plain arrays, because RLlib's own path for episodes loses termination flags and order when it
    cuts or shards them; and without infos, which callbacks have seen by then.
    """

    episode_id: str
    start: int  #: steps of the episode before this chunk
    member: int  #: who acted
    observations: np.ndarray  #: `[T + 1, D]`, float32
    actions: np.ndarray  #: `[T, A]` in [-1, 1], float32
    rewards: np.ndarray  #: `[T]`, float64
    terminated: bool  #: whether the episode ended with the last step, in a terminal state
    truncated: bool  #: … or was cut there
    abandoned: bool = False  #: … or goes on no more: its environment raised, or is gone

    @classmethod
    def of(cls, episode: Any) -> Chunk | None:
        """The chunk in RLlib's `MultiAgentEpisode`, numpy'ized; None if there is no step in it."""
        agent = episode.agent_episodes.get(AGENT_ID)
        if agent is None or len(agent) == 0:
            return None
        return cls(
            episode_id=episode.id_,
            start=episode.env_t_started,
            member=member_of(episode),
            observations=np.asarray(agent.get_observations(), dtype=np.float32),
            actions=np.asarray(agent.get_actions(), dtype=np.float32),
            rewards=np.asarray(agent.get_rewards(), dtype=np.float64),
            terminated=agent.is_terminated,
            truncated=agent.is_truncated,
            abandoned=is_abandoned(episode),
        )

    def as_last(self) -> Chunk:
        """The same chunk, after which its episode does not go on."""
        return replace(self, abandoned=not (self.terminated or self.truncated))

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass
class _OngoingEpisode:
    number: int
    next_step: int
    return_so_far: float
    complete: bool  # whether every chunk since the episode's start arrived
    random: bool = False  # whether any of its actions were the warm-up's


class EpisodeReader:
    """Turns sampled chunks into transitions, and keeps account of episodes over chunks.

    RLlib delivers a long episode as chunks, and may drop one (a runner that died or timed
    out). The return of such an episode is unknown and never reported.

    Attributes:
        num_missing: Steps so far of which is known that they were dropped, as later ones of the
            same episode came.
    """

    def __init__(self) -> None:
        self.num_missing = 0
        self._ongoing: dict[str, _OngoingEpisode] = {}
        self._next_number = 0

    def read(
        self, chunks: Iterable[Chunk], random_actions: bool = False
    ) -> tuple[dict[str, np.ndarray], list[FinishedEpisode]]:
        """Reads the chunks of one sampling round.

        Args:
            chunks: As the env runners gave them.
            random_actions: Whether this round's actions were the warm-up's.

        Returns:
            The N transitions, arguments of `ReplayBuffer.add`; and the finished episodes.
        """
        parts: list[dict[str, np.ndarray]] = []
        finished = []
        for chunk in chunks:
            length = len(chunk)
            episode = self._account(chunk)
            terminated = np.zeros(length, dtype=bool)
            truncated = np.zeros(length, dtype=bool)
            terminated[-1] = chunk.terminated
            truncated[-1] = chunk.truncated
            parts.append(
                {
                    "obs": chunk.observations[:-1],
                    "actions": chunk.actions,
                    "rewards": chunk.rewards.astype(np.float32),
                    "next_obs": chunk.observations[1:],
                    "terminated": terminated,
                    "truncated": truncated,
                    "episodes": np.full(length, episode.number),
                }
            )
            episode.next_step += length
            episode.return_so_far += float(chunk.rewards.sum())
            episode.random |= random_actions
            if chunk.terminated or chunk.truncated or chunk.abandoned:
                if episode.complete and not chunk.abandoned:
                    finished.append(
                        FinishedEpisode(chunk.member, episode.return_so_far, episode.random)
                    )
                del self._ongoing[chunk.episode_id]
        if not parts:
            return {}, finished
        return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}, finished

    @property
    def longest_ongoing(self) -> int:
        """Steps so far of the longest episode that has not ended."""
        return max((episode.next_step for episode in self._ongoing.values()), default=0)

    def _account(self, chunk: Chunk) -> _OngoingEpisode:
        start = chunk.start
        episode = self._ongoing.get(chunk.episode_id)
        if episode is None or episode.next_step != start:
            # New; or a chunk is missing, then it is another episode as far as we can know.
            self.num_missing += max(0, start - (0 if episode is None else episode.next_step))
            episode = _OngoingEpisode(self._next_number, start, 0.0, complete=start == 0)
            self._ongoing[chunk.episode_id] = episode
            self._next_number += 1
        return episode

    def ongoing(self, chunks: Iterable[Chunk]) -> dict[str, dict[str, Any]]:
        """The accounts of the episodes that these chunks go on with, for `resume`."""
        ids = {chunk.episode_id for chunk in chunks}
        return {i: asdict(account) for i, account in self._ongoing.items() if i in ids}

    def resume(self, accounts: dict[str, dict[str, Any]]) -> None:
        """Takes up accounts of another reader's `ongoing`; the episodes get other numbers."""
        for episode_id, account in accounts.items():
            account = account | {"number": self._next_number}
            self._ongoing[episode_id] = _OngoingEpisode(**account)
            self._next_number += 1

    def forget_ongoing(self) -> None:
        """Drops the accounts of unfinished episodes, for example after a restore."""
        self._ongoing.clear()
