"""Names that users' stop criteria, plots and programs rely on."""

from __future__ import annotations

from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune.result import TIMESTEPS_TOTAL

from rllib_cikd.common import result_keys as keys


def test_the_time_axes_have_the_names_of_rllib_and_tune():
    assert keys.STEPS == NUM_ENV_STEPS_SAMPLED_LIFETIME == "num_env_steps_sampled_lifetime"
    assert keys.TIMESTEPS_TOTAL == TIMESTEPS_TOTAL == "timesteps_total"


def test_summaries_of_an_evaluation():
    assert [keys.summary_key(who) for who in keys.SUMMARIES] == [
        "best_return_mean",
        "worst_return_mean",
        "mean_return_mean",
        "elected_return_mean",
    ]
