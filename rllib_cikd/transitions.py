"""From RLlib's episode chunks to plain transitions and finished returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rllib_cikd.environment import AGENT_ID
from rllib_cikd.policy_selection import member_of, policy_id


class FinishedEpisode(NamedTuple):
    """A training episode that came to its end."""

    member: int
    episode_return: float
    length: int


@dataclass
class _OngoingEpisode:
    number: int
    next_step: int
    return_so_far: float
    complete: bool  # whether every chunk since the episode's start arrived


class EpisodeReader:
    """Turns sampled chunks into transitions, and keeps account of episodes over chunks.

    RLlib delivers a long episode as chunks, and may drop one (a runner that died or timed
    out). The return of such an episode is unknown and never reported.

    Transitions are sent on as plain arrays because RLlib's own path for episodes loses
    termination flags and order when it cuts or shards them.
    """

    def __init__(self) -> None:
        self._ongoing: dict[str, _OngoingEpisode] = {}
        self._next_number = 0

    def read(
        self, chunks: Iterable[Any], env_step: int
    ) -> tuple[dict[str, np.ndarray], list[FinishedEpisode]]:
        """Reads the chunks of one sampling round.

        Args:
            chunks: `MultiAgentEpisode`s as returned by the env runners, already numpy'ized.
            env_step: Environment steps before this round, for messages.

        Returns:
            The N transitions, arguments of `ReplayBuffer.add`; and the finished episodes.

        Raises:
            ValueError: If an observation or reward is not finite.
        """
        parts: list[dict[str, np.ndarray]] = []
        finished = []
        for chunk in chunks:
            agent = chunk.agent_episodes.get(AGENT_ID)
            length = 0 if agent is None else len(agent)
            if length == 0:
                continue
            episode = self._account(chunk, length)
            observations = np.asarray(agent.get_observations(), dtype=np.float32)
            rewards = np.asarray(agent.get_rewards(), dtype=np.float64)
            member = member_of(chunk)
            _check_finite("observation", observations, member, env_step)
            _check_finite("reward", rewards, member, env_step)
            terminated = np.zeros(length, dtype=bool)
            truncated = np.zeros(length, dtype=bool)
            terminated[-1] = agent.is_terminated
            truncated[-1] = agent.is_truncated
            parts.append(
                {
                    "obs": observations[:-1],
                    "actions": np.asarray(agent.get_actions(), dtype=np.float32),
                    "rewards": rewards.astype(np.float32),
                    "next_obs": observations[1:],
                    "terminated": terminated,
                    "truncated": truncated,
                    "episodes": np.full(length, episode.number),
                }
            )
            env_step += length
            episode.next_step += length
            episode.return_so_far += float(rewards.sum())
            if agent.is_done:
                if episode.complete:
                    finished.append(
                        FinishedEpisode(member, episode.return_so_far, episode.next_step)
                    )
                del self._ongoing[chunk.id_]
        if not parts:
            return {}, finished
        return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}, finished

    def _account(self, chunk: Any, length: int) -> _OngoingEpisode:
        start = chunk.env_t_started
        episode = self._ongoing.get(chunk.id_)
        if episode is None or episode.next_step != start:
            # New; or a chunk is missing, then it is another episode as far as we can know.
            episode = _OngoingEpisode(self._next_number, start, 0.0, complete=start == 0)
            self._ongoing[chunk.id_] = episode
            self._next_number += 1
        return episode

    def forget_ongoing(self) -> None:
        """Drops the accounts of unfinished episodes, for example after a restore."""
        self._ongoing.clear()


def _check_finite(quantity: str, values: np.ndarray, member: int, env_step: int) -> None:
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise ValueError(
            f"The environment returned a non-finite {quantity} ({values[row]}) near environment "
            f"step {env_step + row}, while {policy_id(member)} was acting. It was not stored and "
            "training stops here: check the environment for a diverging simulation."
        )
