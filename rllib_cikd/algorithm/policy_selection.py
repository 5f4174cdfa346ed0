"""Who acts in the next episode (CIKD, phase 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

#: Values of `CIKDConfig.policy_selection`.
POLICY_SELECTIONS = ("uniform", "softmax", "epsilon_greedy")

#: Exploration rate of "epsilon_greedy": linear from the first to the second value over this
#: many environment steps (the authors' program).
EPSILON_START, EPSILON_END, EPSILON_STEPS = 1.0, 0.1, 500_000

#: Where an episode keeps the id of the member that acts in it.
_MEMBER_KEY = "cikd_member"


def policy_id(k: int) -> str:
    """Id of member k: "policy_k"."""
    return f"policy_{k}"


def policy_ids(ensemble_size: int) -> list[str]:
    """Ids of all members, in order."""
    return [policy_id(k) for k in range(ensemble_size)]


def selection_probabilities(rule: str, returns: Sequence[float], env_steps: int = 0) -> np.ndarray:
    """With what probability each member acts in the next episode.

    Args:
        rule: "uniform" (the paper's); "softmax" over R_k, standardised over the members
            because returns in the thousands would make it an argmax; "epsilon_greedy": the
            member with the highest R_k, or with probability ε any member.
        returns: R_k, NaN for a member with no finished episode. Under "softmax" it counts as
            an average member, under "epsilon_greedy" it is chosen by ε alone.
        env_steps: Environment steps so far, for the schedule of ε.

    Returns:
        `[K]`, sums to 1.
    """
    r = np.asarray(returns, dtype=np.float64)
    known = ~np.isnan(r)
    uniform = np.full(len(r), 1.0 / len(r))
    if rule == "uniform" or not known.any():
        return uniform
    if rule == "softmax":
        scores = np.zeros(len(r))
        if np.ptp(r[known]) > 0.0:
            scores[known] = (r[known] - r[known].mean()) / r[known].std()
        weights = np.exp(scores - scores.max())
        return weights / weights.sum()
    fraction = min(1.0, env_steps / EPSILON_STEPS)
    epsilon = EPSILON_START + fraction * (EPSILON_END - EPSILON_START)
    greedy = np.zeros(len(r))
    greedy[int(np.nanargmax(r))] = 1.0
    return (1.0 - epsilon) * greedy + epsilon * uniform


def assign_member(episode: Any, member: int) -> None:
    """Makes `member` act through the whole of a new `MultiAgentEpisode`."""
    episode.custom_data[_MEMBER_KEY] = policy_id(member)


def member_of(episode: Any) -> int:
    """Index of the member that acts in `episode`."""
    return int(episode.custom_data[_MEMBER_KEY].rpartition("_")[2])


def acting_member(agent_id: Any, episode: Any, **kwargs: Any) -> str:
    """RLlib's `policy_mapping_fn`: reads who was assigned to the episode.

    RLlib calls it again at every cut of an episode, once on a half-built object, so it must
    neither draw nor count.
    """
    return getattr(episode, "_custom_data", {}).get(_MEMBER_KEY, policy_id(0))
