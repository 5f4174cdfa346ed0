"""Every key of a training result that CIKD adds, or that more than one room reads.

Nested keys are joined by "/", as Tune's loggers and stop criteria have them.
"""

from __future__ import annotations

#: Environment steps so far, those whose transitions were stored: the time axis of everything.
STEPS = "num_env_steps_sampled_lifetime"
#: Calls of `Algorithm.train` so far.
ITERATION = "training_iteration"
#: Tune's and TensorBoard's name for the time axis.
TIMESTEPS_TOTAL = "timesteps_total"

#: Mean return of the last training episodes, and of the last evaluation: RLlib's names.
TRAINING_RETURN = "env_runners/episode_return_mean"
EVALUATION_RETURN = "evaluation/env_runners/episode_return_mean"

#: Where CIKD's own figures stand, in a result and in its `evaluation`.
ENSEMBLE = "ensemble"
#: R_k of every member in training; the mean return of every member in an evaluation.
RETURN_MEAN = "return_mean"
TEACHER = "teacher"
NUM_DISTILLATIONS = "num_distillations_lifetime"
NUM_SKIPPED_PHASES = "num_skipped_phases_lifetime"
NUM_UPDATES = "num_updates_lifetime"
#: Environment steps that gave no transition (see `History.env_steps_lost`).
STEPS_LOST = "num_env_steps_lost_lifetime"
TIMES_TEACHER = "times_teacher"
EPISODES = "episodes_lifetime"

#: What a phase reports, below `ensemble/distillation`.
DISTILLATION = "distillation"
DISTANCES = ("kl_before", "kl_after", "critic_loss_before", "critic_loss_after")
PHASE_RETURNS = ("return_before", "return_after")
STUDENTS_ABOVE_TEACHER = "students_above_teacher"
TEACHER_WAS_BEST, ELECTION_REGRET = "teacher_was_best", "election_regret"
PHASE_ASSESSMENT = (STUDENTS_ABOVE_TEACHER, TEACHER_WAS_BEST, ELECTION_REGRET)
#: With a `distillation_filter`: the share of states at which a student imitates.
SHARE_IMITATED = "share_imitated"
PHASE_TIME = "time_s"

#: Summaries of the members of an evaluation. Elected: the one with the highest R_k.
SUMMARIES = ("best", "worst", "mean", "elected")
BEST_POLICY = "best_policy"


def summary_key(who: str) -> str:
    """The key of one of `SUMMARIES` within `evaluation/ensemble`: "best_return_mean"."""
    return f"{who}_{RETURN_MEAN}"


def evaluation_key(who: str) -> str:
    """The whole key of one of `SUMMARIES`: "evaluation/ensemble/best_return_mean"."""
    return f"evaluation/{ENSEMBLE}/{summary_key(who)}"


def score_key(who: str) -> str:
    """One of `SUMMARIES` at the top level of a result: "evaluation_best_return_mean".

    Of this iteration's evaluation, NaN in iterations without one; below `evaluation/…` the last
    evaluation's figures are repeated.
    """
    return f"evaluation_{summary_key(who)}"
