"""CIKD whose members learn from more of their own data: an experiment, no part of the package.

    rllib train file benchmarks/own_data.py --config '{"seed": {"grid_search": [0, 1]}}' \
        --stop '{"num_env_steps_sampled_lifetime": 100000}'

Ensemble-SAC with `"knowledge_sharing": "none"`. Members of an ensemble that shares
its data fall behind a lone agent where only a K-th of the data is their own (Lin et al., The Curse
of Diversity, ICLR 2024). Here half of each member's minibatch is drawn from the transitions that it
collected itself, and half from all: two thirds are its own with three members, one third in CIKD.
Checkpoints do not hold who collected what.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rllib_cikd import CIKD, CIKDConfig
from rllib_cikd.algorithm.members import member_of
from rllib_cikd.rllib.environment import AGENT_ID
from rllib_cikd.rllib.learner import CIKDTorchLearner
from rllib_cikd.rllib.transitions import EpisodeReader

#: Of a minibatch, how much is drawn from a member's own transitions.
OWN_SHARE = 0.5


class OwnerReader(EpisodeReader):
    """Transitions know, beside all else, which member collected them."""

    def read(self, chunks: Iterable[Any], env_step: int):
        chunks = list(chunks)
        transitions, finished = super().read(chunks, env_step)
        if transitions:
            transitions["members"] = np.concatenate(
                [np.full(_length(chunk), member_of(chunk)) for chunk in chunks]
            )
        return transitions, finished


def _length(chunk: Any) -> int:
    agent = chunk.agent_episodes.get(AGENT_ID)
    return 0 if agent is None else len(agent)


class OwnDataLearner(CIKDTorchLearner):
    def build(self) -> None:
        super().build()
        self._collected_by = torch.full((self.replay_buffer.capacity,), -1)

    def update(self, *args, transitions: dict[str, np.ndarray], **kwargs):
        transitions = dict(transitions)
        members = torch.from_numpy(transitions.pop("members"))
        first = self.replay_buffer.num_added
        rows = torch.arange(first, first + len(members)) % self.replay_buffer.capacity
        self._collected_by[rows] = members
        return super().update(*args, transitions=transitions, **kwargs)

    def _draw_rows(self, num_updates: int, batch_size: int) -> Tensor:
        rows = super()._draw_rows(num_updates, batch_size)
        count = round(OWN_SHARE * batch_size)
        collected_by = self._collected_by[: len(self.replay_buffer)]
        for k in range(self.config.ensemble_size):
            (own,) = torch.nonzero(collected_by == k, as_tuple=True)
            if len(own):
                drawn = torch.randint(len(own), (num_updates, count), generator=self._generator)
                rows[:, k, :count] = own[drawn]
        return rows


class OwnDataCIKD(CIKD):
    def setup(self, config: CIKDConfig) -> None:
        super().setup(config)
        self._reader = OwnerReader()


config = (
    CIKDConfig(algo_class=OwnDataCIKD)
    .environment("HalfCheetah-v5")
    .learners(learner_class=OwnDataLearner)
    .evaluation(evaluation_interval=10, evaluation_duration=20)
)
