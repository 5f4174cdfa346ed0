"""Questions to the learners, wherever they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ray.rllib.core.learner.learner_group import LearnerGroup

from rllib_cikd.rllib.learner import CIKDTorchLearner

T = TypeVar("T")


def ask_learner(group: LearnerGroup, question: Callable[[CIKDTorchLearner], T]) -> T:
    """Calls a function on every learner; returns the first one's answer.

    Raises:
        Exception: What a learner raised, which RLlib would hide.
        RuntimeError: If a learner is not alive.
    """
    answers = [answer.get() for answer in group.foreach_learner(question)]
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    if len(answers) < max(1, group.config.num_learners):
        raise RuntimeError("A learner is not alive; its error is in the worker's log above.")
    return answers[0]
