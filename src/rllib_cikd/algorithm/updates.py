"""Which gradient step the members of a stack take."""

from __future__ import annotations

from rllib_cikd.algorithm.categorical_update import CategoricalSACUpdate
from rllib_cikd.algorithm.crossq_update import CrossQUpdate
from rllib_cikd.algorithm.ensemble import MemberStack
from rllib_cikd.algorithm.learners import ALONE, Learners
from rllib_cikd.algorithm.policy_heads import CategoricalHead
from rllib_cikd.algorithm.sac_update import SACSettings, SACUpdate


def sac_update(stack: MemberStack, settings: SACSettings, learners: Learners = ALONE) -> SACUpdate:
    """The update for the actions and the networks that the members of a stack have.

    Raises:
        ValueError: If there is none for both.
    """
    categorical = isinstance(stack.head, CategoricalHead)
    if stack.critics.norm == "batch":
        if categorical:
            raise ValueError(
                "model_config: batch_norm=True is for continuous actions; this environment's are "
                "discrete. Leave it out."
            )
        return CrossQUpdate(stack, settings, learners)
    update = CategoricalSACUpdate if categorical else SACUpdate
    return update(stack, settings, learners)
