"""The learners of a run as one: what is asked of all of them, and their common state."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from ray.rllib.core import COMPONENT_LEARNER
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.utils.annotations import override

from rllib_cikd.algorithm.learners import AnotherLearnerFailed
from rllib_cikd.algorithm.replay_shard import whole_of
from rllib_cikd.rllib.learner import GENERATOR, GENERATORS, REPLAY_BUFFER, CIKDTorchLearner

T = TypeVar("T")


class CIKDLearnerGroup(LearnerGroup):
    """RLlib's, with the state of all learners, where RLlib's has the first one's.

    Each learner has a part of the replay buffer and a generator of its own. The state holds the
    whole buffer, as one learner would have it, and all generators.
    """

    @override(LearnerGroup)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        first = state.get(COMPONENT_LEARNER, {})
        asked_for = [name for name in (GENERATOR, REPLAY_BUFFER) if name in first]
        if self.config.num_learners < 2 or not asked_for:
            return state
        others = ask_learners(
            self, lambda learner: learner.get_state(asked_for) if learner.learners.rank else {}
        )
        parts = [first, *others[1:]]
        if GENERATOR in asked_for:
            first[GENERATORS] = [part[GENERATOR] for part in parts]
        if REPLAY_BUFFER in asked_for:
            first[REPLAY_BUFFER] = whole_of([part[REPLAY_BUFFER] for part in parts])
        return state

    @override(LearnerGroup)
    def save_to_path(
        self, path: str | Path | None = None, *, state: dict[str, Any] | None = None, **kwargs
    ) -> str:
        # Without a state, RLlib would ask the first learner for its own.
        return super().save_to_path(path, state=state or self.get_state(), **kwargs)

    @override(LearnerGroup)
    def _get_results(self, results: Any) -> list[Any]:
        return _all_sound([result.get() for result in results])


def ask_learners(group: LearnerGroup, question: Callable[[CIKDTorchLearner], T]) -> list[T]:
    """Calls a function on every learner; returns their answers, the first learner's first.

    Raises:
        Exception: What a learner raised, which RLlib would hide.
        RuntimeError: If a learner is not alive.
    """
    answers = [answer.get() for answer in group.foreach_learner(question)]
    _all_sound(answers)
    if len(answers) < max(1, group.config.num_learners):
        raise RuntimeError("A learner is not alive; its error is in the worker's log above.")
    return answers


def _all_sound(answers: list[T]) -> list[T]:
    """Raises the error of the learner that failed first, if one did."""
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    # Ray's errors are subclasses of those that were raised.
    for error in sorted(errors, key=lambda error: isinstance(error, AnotherLearnerFailed)):
        raise error
    return answers


def ask_learner(group: LearnerGroup, question: Callable[[CIKDTorchLearner], T]) -> T:
    """As `ask_learners`, for what all answer alike: the first one's answer."""
    return ask_learners(group, question)[0]
