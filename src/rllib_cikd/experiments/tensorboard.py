"""What TensorBoard shows of a run of CIKD: a few curves under their result's name, and charts."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Collection
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.logger import TBXLoggerCallback
from ray.tune.utils import flatten_dict

from rllib_cikd.common import result_keys as keys

#: Environment steps per second since the last result, with evaluation.
SPEED = "speed/env_steps_per_second"

_EVALUATION, _PHASE = f"evaluation/{keys.ENSEMBLE}/", f"{keys.ENSEMBLE}/{keys.DISTILLATION}/"
_TEACHER = f"{keys.ENSEMBLE}/{keys.TEACHER}"
_MEMBER = r"/policy_\d+$"

#: Results of RLlib, Tune and CIKD that nobody looks at as a curve; `result.json` has them.
_LEFT_OUT = re.compile(
    r"""
    # the time axis, and what is known of the process
    (?: done | trial_id | date | timestamp | pid | hostname | node_ip | iterations_since_restore
      | time_(?:this_iter_s|total_s|since_restore) | training_iteration | timesteps_total
      | num_env_steps_sampled_lifetime | num_training_step_calls_per_iteration )
    | (?: config | perf | fault_tolerance | env_runner_group ) / .*
    | timers / (?! (?:env_runner_sampling_timer|learner_update_timer|knowledge_sharing
                     |evaluation_iteration) $ ) .*
    # counts and insides of env runners
    | (?:evaluation/)? env_runners /
      (?: num_(?:env|agent|module)_steps_sampled\w* (?:/.*)? | num_episodes (?:_lifetime)?
        | (?:connector_pipeline|env_reset|env_step|rlmodule_inference)_timer | timers/.*
        | (?:env_to_module|module_to_env)_connector/.* | env_to_module_sum_episodes_\w+
        | sample | weights_seq_no | time_between_sampling | episode_duration_sec_mean
        | episode_(?:return|len)_(?:min|max) | agent_(?:steps|episode_returns_mean)/.*
        | module_episode_returns_mean/.* )
    | ensemble / (?: num_\w+ | episodes_lifetime/.* )
    | learners / (?: __all_modules__/num_\w+ | policy_\d+/alpha_loss )
    # of an evaluation what `evaluation/ensemble` says again
    | evaluation / (?: num_\w+ | actor_manager_\w+ | env_runners/episode_return_mean
                     | ensemble/(?:best_policy|num_\w+) )
    | evaluation_(?:best|worst|mean|elected)_return_mean
    """,
    re.VERBOSE,
)

#: By category and title, what is on a chart: regular expressions of tags.
_CHARTS = {
    "Returns": {
        "every member: R_k (ensemble) and evaluation": [
            rf"^(evaluation/)?ensemble/{keys.RETURN_MEAN}{_MEMBER}"
        ],
        "evaluation: best, worst, mean, elected": [
            f"^{_EVALUATION}(best|worst|mean|elected)_{keys.RETURN_MEAN}$"
        ],
    },
    "Distillation": {
        "teacher": [f"^{_TEACHER}$"],
        "KL to the teacher, before and after": [f"^{_PHASE}kl_(before|after)/"],
        "critics' distance to the teacher's, before and after": [
            f"^{_PHASE}critic_loss_(before|after)/"
        ],
        "returns, before and after": [f"^{_PHASE}return_(before|after)/"],
    },
    "Learning": {
        "critics' loss": [r"^learners/policy_\d+/qf_loss$"],
        "policy loss": [r"^learners/policy_\d+/policy_loss$"],
        "temperature": [r"^learners/policy_\d+/alpha_value$"],
        "mean Q": [r"^learners/policy_\d+/qf_mean$"],
    },
    "Speed": {
        "environment steps per second": [f"^{SPEED}$"],
        "seconds of one fragment, phase, evaluation": ["^timers/"],
    },
}


class TensorBoard(TBXLoggerCallback):
    """Ray's TensorBoard logger with few tags, which are the results' names, and with charts.

    A figure stands where it was taken: one of an evaluation or phase is not repeated in the results
    after it. Results of the user's own are all there. Arrays of images go Ray's way.
    Given to Tune, it takes the place of Ray's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[Trial, tuple[float, float]] = {}  # steps and phases of the last result

    def log_trial_start(self, trial: Trial) -> None:
        super().log_trial_start(trial)
        self._last.pop(trial, None)

    def log_trial_result(self, iteration: int, trial: Trial, result: dict) -> None:
        if trial not in self._trial_writer:
            self.log_trial_start(trial)
        flat = flatten_dict(
            {key: value for key, value in result.items() if key != "config"}, delimiter="/"
        )
        steps = int(flat.get(keys.TIMESTEPS_TOTAL) or flat[keys.ITERATION])
        if trial not in self._last:
            self._trial_writer[trial].add_custom_scalars(layout(flat))
        arrays = {key: value for key, value in flat.items() if isinstance(value, list | np.ndarray)}
        super().log_trial_result(iteration, trial, {keys.ITERATION: steps} | arrays)
        scalars = self._scalars(trial, flat)
        for tag, value in scalars.items():
            self._trial_writer[trial].add_scalar(tag, value, global_step=steps)
        self._trial_result[trial] = scalars  # the hyperparameters' metrics, in the end
        self._trial_writer[trial].flush()

    def _scalars(self, trial: Trial, flat: dict[str, Any]) -> dict[str, float]:
        """Of a flat result, those figures that are new and of use."""
        steps = _number(flat, keys.STEPS)
        phases = _number(flat, f"{keys.ENSEMBLE}/{keys.NUM_DISTILLATIONS}")
        unknown = (0.0, 0.0) if flat[keys.ITERATION] == 1 else (math.nan, phases)
        last_steps, last_phases = self._last.get(trial, unknown)
        self._last[trial] = steps, phases
        old: tuple[str, ...] = () if phases > last_phases else (_PHASE,)
        if math.isnan(_number(flat, keys.score_key("best"))):
            old += (_EVALUATION, "evaluation/env_runners/")
        seconds = _number(flat, "time_this_iter_s")
        scalars = {
            SPEED: (steps - last_steps) / seconds if seconds else math.nan,
            **{
                key: _number(flat, key)
                for key in flat
                if not _LEFT_OUT.fullmatch(key) and not key.startswith(old)
            },
        }
        return {key: value for key, value in scalars.items() if not math.isnan(value)}


def layout(results: Collection[str]) -> dict[str, dict[str, list[Any]]]:
    """The layout of TensorBoard's "Custom Scalars", of charts for which there are results.

    Args:
        results: Keys of a result, flattened; all are there from the first one on.
    """
    teaches = any(key.startswith(_PHASE) for key in results)
    tags = [key for key in results if teaches or key != _TEACHER] + [SPEED]
    charts = {
        category: {
            title: ["Multiline", patterns]
            for title, patterns in titles.items()
            if any(re.match(pattern, tag) for pattern in patterns for tag in tags)
        }
        for category, titles in _CHARTS.items()
    }
    return {category: titles for category, titles in charts.items() if titles}


def _number(flat: dict[str, Any], key: str) -> float:
    value = flat.get(key)
    return float(value) if isinstance(value, numbers.Real) else math.nan
