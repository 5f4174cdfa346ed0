"""What a checkpoint is scored by, so that Tune can keep the best."""

from __future__ import annotations

import math
from typing import Any

from ray.tune.utils import flatten_dict

from rllib_cikd.common import result_keys as keys
from rllib_cikd.rllib.evaluation import not_a_number


def scores(result: dict[str, Any]) -> dict[str, float]:
    """The summaries of an iteration's evaluation under their names at the top level of a result.

    Args:
        result: Of one iteration; `evaluation` is in it if there was one.

    Returns:
        NaN for each if there was none: the next checkpoint must not get an older one's score.
    """
    found = result.get("evaluation", {}).get(keys.ENSEMBLE, {})
    return {
        keys.score_key(who): found.get(keys.summary_key(who), math.nan) for who in keys.SUMMARIES
    }


def checkpoint_metrics(result: dict[str, Any]) -> dict[str, Any]:
    """A result as the metrics of the checkpoint that is written after it.

    Tune looks for a `checkpoint_score_attribute` among the top-level keys alone, and keeps the last
    checkpoints if it is not there. So all nested keys are there as well, joined by "/". An
    evaluation that was repeated from an earlier iteration becomes NaN, which Tune ranks last.
    """
    metrics = dict(result)
    measured_at = metrics.get("evaluation", {}).get(keys.ENSEMBLE, {}).get(keys.STEPS)
    if measured_at is not None and measured_at != metrics.get(keys.STEPS):
        metrics["evaluation"] = not_a_number(metrics["evaluation"])
    nested = {k: v for k, v in metrics.items() if isinstance(v, dict) and k != "config"}
    return flatten_dict(nested) | metrics
