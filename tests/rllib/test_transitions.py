"""From RLlib's episode chunks, real ones made by hand, to transitions and finished returns."""

from __future__ import annotations

import numpy as np
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from rllib_cikd.algorithm.history import FinishedEpisode
from rllib_cikd.algorithm.members import acting_member, assign_member
from rllib_cikd.rllib.environment import AGENT_ID
from rllib_cikd.rllib.transitions import Chunk, EpisodeReader


class Play:
    """An episode of one member whose observation counts up from `first`, in chunks.

    Step t (from 1) has the action -t / 100 and, if no other is given, the reward t.
    """

    def __init__(self, member: int = 0, first: int = 0):
        self._episode = MultiAgentEpisode(agent_to_module_mapping_fn=acting_member)
        self._first, self._t = first, 0
        self._episode.add_env_reset(observations={AGENT_ID: self._observation()})
        assign_member(self._episode, member)

    def _observation(self) -> np.ndarray:
        return np.array([self._first + self._t], np.float64)

    def steps(self, count: int, end: str = "", **broken) -> None:
        """Goes on for `count` steps; the last one has what is `broken`, and the `end`."""
        for left in reversed(range(count)):
            self._t += 1
            last = left == 0
            values = {
                "observation": self._observation(),
                "action": np.array([-self._t / 100], np.float32),
                "reward": float(self._t),
            } | (broken if last else {})
            self._episode.add_env_step(
                observations={AGENT_ID: values["observation"]},
                actions={AGENT_ID: values["action"]},
                rewards={AGENT_ID: values["reward"]},
                terminateds={"__all__": last and end == "terminates"},
                truncateds={"__all__": last and end == "truncates"},
            )

    def chunk(self, count: int, end: str = "", **broken) -> Chunk:
        """The next `count` steps, cut off as the env runner does."""
        self.steps(count, end, **broken)
        chunk = self._episode
        if not end:
            self._episode = chunk.cut()
        taken = Chunk.of(chunk.to_numpy())
        assert taken is not None
        return taken


def test_transitions_of_a_round_in_their_order():
    """Three steps of an episode that is cut by the time limit, then two of one that goes on."""
    chunks = [Play(first=10).chunk(3, "truncates"), Play(first=50).chunk(2)]
    transitions, _ = EpisodeReader().read(chunks)
    assert transitions["obs"].tolist() == [[10], [11], [12], [50], [51]]
    assert transitions["next_obs"].tolist() == [[11], [12], [13], [51], [52]]
    actions = np.array([[-0.01], [-0.02], [-0.03], [-0.01], [-0.02]], np.float32)
    assert np.array_equal(transitions["actions"], actions)
    assert transitions["rewards"].tolist() == [1, 2, 3, 1, 2]
    assert transitions["truncated"].tolist() == [False, False, True, False, False]
    assert not transitions["terminated"].any()
    assert transitions["episodes"].tolist() == [0, 0, 0, 1, 1]
    for name in ("obs", "actions", "rewards", "next_obs"):
        assert transitions[name].dtype == np.float32


def test_only_the_last_step_of_a_terminated_episode_is_terminal():
    transitions, _ = EpisodeReader().read([Play().chunk(3, "terminates")])
    assert transitions["terminated"].tolist() == [False, False, True]
    assert not transitions["truncated"].any()


def test_nothing_sampled_is_nothing_read():
    assert EpisodeReader().read([]) == ({}, [])
    fresh = MultiAgentEpisode(agent_to_module_mapping_fn=acting_member)
    fresh.add_env_reset(observations={AGENT_ID: np.zeros(1)})
    assert Chunk.of(fresh.to_numpy()) is None


# ---------------------------------------------------------------- returns over chunks


def test_return_of_an_episode_over_chunks():
    """1 + 2 + … + 7 = 28, by member 2. Another one of member 0 comes in between: 1 + 2 = 3."""
    reader, play, other = EpisodeReader(), Play(member=2), Play(member=0)
    assert reader.read([play.chunk(3)])[1] == []
    assert reader.read([play.chunk(1), other.chunk(2, "terminates")])[1] == [
        FinishedEpisode(0, 3.0)
    ]
    transitions, finished = reader.read([play.chunk(3, "truncates")])
    assert finished == [FinishedEpisode(2, 28.0)]
    # The buffer is told that these rows follow on the first four.
    assert transitions["episodes"].tolist() == [0, 0, 0]


def test_a_return_is_summed_in_double_precision():
    """2^24 + 1 is no float32."""
    chunk = Play().chunk(1, "terminates", reward=2.0**24 + 1)
    _, (episode,) = EpisodeReader().read([chunk])
    assert episode.episode_return == 2**24 + 1


def test_return_of_an_episode_with_a_lost_chunk_is_not_reported():
    """A runner's sample that timed out leaves a hole. What comes after it is another episode
    for the buffer, whose n-step returns must not reach over the hole."""
    reader, play = EpisodeReader(), Play()
    before, _ = reader.read([play.chunk(3)])
    play.chunk(3)
    after, _ = reader.read([play.chunk(3)])
    last, finished = reader.read([play.chunk(3, "terminates")])
    assert finished == []
    assert before["episodes"].tolist() == [0, 0, 0]
    assert after["episodes"].tolist() == last["episodes"].tolist() == [1, 1, 1]
    # The next episode is whole again.
    assert reader.read([Play(member=1).chunk(2, "terminates")])[1] == [FinishedEpisode(1, 3.0)]


def test_return_of_an_episode_whose_start_was_lost_is_not_reported():
    play = Play()
    play.chunk(3)
    assert EpisodeReader().read([play.chunk(3, "truncates")])[1] == []


def test_forgotten_episodes_are_not_continued():
    """After a restore, env runners start anew."""
    reader, play = EpisodeReader(), Play()
    reader.read([play.chunk(3)])
    reader.forget_ongoing()
    transitions, finished = reader.read([play.chunk(3, "terminates")])
    assert finished == []
    assert transitions["episodes"].tolist() == [1, 1, 1]
    assert reader.read([Play().chunk(2, "terminates")])[1] == [FinishedEpisode(0, 3.0)]


# ---------------------------------------------------------------- random actions


def test_an_episode_with_any_random_action_says_so():
    """The warm-up ends within an episode: it counts for no R_k; the next one does."""
    reader, play = EpisodeReader(), Play(member=1)
    reader.read([play.chunk(3)], random_actions=True)
    assert reader.read([play.chunk(2, "terminates")])[1] == [FinishedEpisode(1, 15.0, random=True)]
    assert reader.read([Play().chunk(2, "terminates")])[1] == [FinishedEpisode(0, 3.0)]
