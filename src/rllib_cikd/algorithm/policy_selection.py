"""Who acts in the next episode (CIKD, phase 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Values of `CIKDConfig.policy_selection`.
POLICY_SELECTIONS = ("uniform", "round", "softmax", "epsilon_greedy")

#: Exploration rate of "epsilon_greedy": linear from the first to the second value over this
#: many environment steps (the authors' program).
EPSILON_START, EPSILON_END, EPSILON_STEPS = 1.0, 0.1, 500_000


def selection_probabilities(rule: str, returns: Sequence[float], env_steps: int = 0) -> np.ndarray:
    """With what probability each member acts in the next episode.

    Args:
        rule: "uniform" (the paper's), and "round", which does not go by these probabilities (see
            `next_in_round`); "softmax" over R_k, standardised over the members
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
    if rule in ("uniform", "round") or not known.any():
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


def next_in_round(left: list[int], ensemble_size: int, rng: np.random.Generator) -> int:
    """Who acts in the next episode if all members act equally often ("round").

    In each round of K episodes every member acts once, in an order that is drawn anew.

    Args:
        left: Who has not acted yet in this round; the member that is returned is taken out, and
            the next round put in if it is empty.
        ensemble_size: K.
        rng: Source of the order.
    """
    if not left:
        left.extend(rng.permutation(ensemble_size).tolist())
    return left.pop()
