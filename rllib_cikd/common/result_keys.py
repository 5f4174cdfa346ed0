"""Keys of result dicts that more than one room reads, flat, as Tune and TensorBoard see them."""

from __future__ import annotations

#: Environment steps of training so far.
STEPS = "num_env_steps_sampled_lifetime"
#: Calls of `Algorithm.train` so far.
ITERATION = "training_iteration"
#: Mean return of the last training episodes.
TRAINING_RETURN = "env_runners/episode_return_mean"
#: Mean return of the last evaluation; of an ensemble, its best member's.
EVALUATION_RETURN = "evaluation/env_runners/episode_return_mean"
#: Before a member's id: its R_k.
MEMBER_RETURN = "ensemble/return_mean/"
#: Number of the member that taught last.
TEACHER = "ensemble/teacher"
#: Phases of knowledge sharing so far.
NUM_DISTILLATIONS = "ensemble/num_distillations_lifetime"
#: In how many ways an evaluation of all members becomes one figure.
SUMMARIES = ("best", "worst", "mean", "elected")


def summary_key(who: str) -> str:
    """The key of one of `SUMMARIES` of the last evaluation's mean returns."""
    return f"evaluation/ensemble/{who}_return_mean"
