"""From RLlib's episode chunks to plain transitions and finished returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rllib_cikd.algorithm.history import FinishedEpisode
from rllib_cikd.algorithm.members import member_of, policy_id
from rllib_cikd.rllib.environment import AGENT_ID


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

    Transitions are sent on as plain arrays because RLlib's own path for episodes loses
    termination flags and order when it cuts or shards them.
    """

    def __init__(self) -> None:
        self._ongoing: dict[str, _OngoingEpisode] = {}
        self._next_number = 0

    def read(
        self, chunks: Iterable[Any], env_step: int, random_actions: bool = False
    ) -> tuple[dict[str, np.ndarray], list[FinishedEpisode]]:
        """Reads the chunks of one sampling round.

        Args:
            chunks: `MultiAgentEpisode`s as returned by the env runners, already numpy'ized.
            env_step: Environment steps before this round, for messages.
            random_actions: Whether this round's actions were the warm-up's.

        Returns:
            The N transitions, arguments of `ReplayBuffer.add`; and the finished episodes.

        Raises:
            ValueError: If an observation, action or reward is not finite.
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
            actions = np.asarray(agent.get_actions(), dtype=np.float32)
            returned = np.asarray(agent.get_rewards(), dtype=np.float64)
            with np.errstate(over="ignore"):  # too large for float32 is not finite
                rewards = returned.astype(np.float32)
            # What went wrong first: a bad observation makes a bad action, and the other way round.
            bad = _first_bad(observation=observations, action=actions, reward=rewards)
            if bad is not None:
                step, quantity = bad
                raise ValueError(
                    f"There was a non-finite {quantity} near environment step {env_step + step}, "
                    f"while {policy_id(member_of(chunk))} was acting. Nothing of it was stored "
                    "and training stops here: check the environment for a diverging simulation, "
                    "and the learning rates."
                )
            terminated = np.zeros(length, dtype=bool)
            truncated = np.zeros(length, dtype=bool)
            terminated[-1] = agent.is_terminated
            truncated[-1] = agent.is_truncated
            parts.append(
                {
                    "obs": observations[:-1],
                    "actions": actions,
                    "rewards": rewards,
                    "next_obs": observations[1:],
                    "terminated": terminated,
                    "truncated": truncated,
                    "episodes": np.full(length, episode.number),
                }
            )
            env_step += length
            episode.next_step += length
            episode.return_so_far += float(returned.sum())
            episode.random |= random_actions
            if agent.is_done:
                if episode.complete:
                    finished.append(
                        FinishedEpisode(member_of(chunk), episode.return_so_far, episode.random)
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


def _first_bad(**quantities: np.ndarray) -> tuple[int, str] | None:
    """The first step that holds something not finite, and what; None if there is none."""
    bad = [
        (int(np.argwhere(~np.isfinite(values))[0][0]), name)
        for name, values in quantities.items()
        if not np.isfinite(values).all()
    ]
    return min(bad, key=lambda step_and_name: step_and_name[0], default=None)
