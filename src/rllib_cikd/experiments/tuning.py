"""Which trials go on and which settings are tried: Tune's schedulers and searchers, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune.schedulers import SCHEDULER_IMPORT, TrialScheduler
from ray.tune.search import SEARCH_ALG_IMPORT, Searcher
from ray.tune.search.sample import Categorical, Float, Integer

from rllib_cikd.cikd import CIKD
from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.named import Kind, name_and_arguments
from rllib_cikd.experiments.search_space import domains, with_domains
from rllib_cikd.experiments.stop_criteria import check_metric, modern_key
from rllib_cikd.rllib.restore import KEPT

_POPULATION = ("pbt", "pb2")
_BESIDE = {"metric": "beside `scheduler`", "mode": "beside `scheduler`"}


def _scheduler(name: str) -> Callable[[], type]:
    entry = SCHEDULER_IMPORT[name]
    return (lambda: entry) if isinstance(entry, type) else entry


SCHEDULERS = Kind(
    field="scheduler",
    base=TrialScheduler,
    # Of Ray's, not what wraps another one or replays a run: no file can say that.
    load={
        "asha": _scheduler("async_hyperband"),
        "hyperband": _scheduler("hyperband"),
        "median_stopping_rule": _scheduler("median_stopping_rule"),
        "pbt": _scheduler("pbt"),
        "pb2": _scheduler("pb2"),
        "hb_bohb": _scheduler("hb_bohb"),
    },
    modules={"pb2": ("sklearn",)},
    pip={"pb2": "scikit-learn"},
    elsewhere=_BESIDE,
)
SEARCHERS = Kind(
    field="search_alg",
    base=Searcher,
    load={
        name: SEARCH_ALG_IMPORT[name]
        for name in ("optuna", "hyperopt", "bayesopt", "ax", "bohb", "nevergrad", "zoopt", "hebo")
    },
    modules={
        "optuna": ("optuna",),
        "hyperopt": ("hyperopt",),
        "bayesopt": ("bayes_opt",),
        "ax": ("ax",),
        "bohb": ("hpbandster", "ConfigSpace"),
        "nevergrad": ("nevergrad",),
        "zoopt": ("zoopt",),
        "hebo": ("hebo",),
    },
    pip={"bayesopt": "bayesian-optimization==1.4.3", "ax": "ax-platform", "hebo": "HEBO"},
    elsewhere={
        "metric": "beside `search_alg`",
        "mode": "beside `search_alg`",
        "space": "in `config`, as {tune.uniform: [0, 1]}",
        "dim_dict": "in `config`, as {tune.uniform: [0, 1]}",
    },
)


@dataclass(frozen=True)
class Tuning:
    """How an experiment's trials are chosen.

    Attributes:
        metric: The result that trials are compared by; None if they are not.
        mode: "max" or "min".
        scheduler: Tune's; None: each trial runs to its end.
        searcher: Tune's; None: the grid, and draws.
        mutated: Settings that the scheduler changes while trials run, with what it draws from.
    """

    metric: str | None = None
    mode: str | None = None
    scheduler: TrialScheduler | None = None
    searcher: Searcher | None = None
    mutated: Mapping[str, Any] | None = None


def read_tuning(spec: Mapping[str, Any], param_space: Mapping[str, Any], trials: int) -> Tuning:
    """What an experiment says of its scheduler and searcher; `check_tuning` is still to come.

    Args:
        spec: The experiment, with keys `scheduler`, `search_alg`, `metric` and `mode` or none.
        param_space: Its settings, with Tune's domains in them.
        trials: How many trials it has.

    Raises:
        CommandError: If they cannot be made, or do not go together.
    """
    metric, mode = spec.get("metric"), spec.get("mode", "max")
    if mode not in ("max", "min"):
        raise CommandError(f"`mode` is {mode!r}. Give max or min.")
    chosen = [key for key in ("scheduler", "search_alg") if spec.get(key) is not None]
    if not chosen:
        for key in ("metric", "mode"):
            if spec.get(key) is not None:
                raise CommandError(
                    f"`{key}` is {spec[key]!r}, but there is nothing that compares trials by it. "
                    "Give a `scheduler` or a `search_alg`, or leave it out."
                )
        return Tuning()
    if not isinstance(metric, str):
        raise CommandError(
            f"`{chosen[0]}` is {spec[chosen[0]]!r}, but `metric` is {metric!r}. Name the result "
            "that trials are compared by: `metric: evaluation/ensemble/best_return_mean`."
        )
    scheduler, scheduler_arguments = _named(spec, SCHEDULERS)
    searcher, searcher_arguments = _named(spec, SEARCHERS)
    _check_together(scheduler, searcher, param_space, trials)
    if "time_attr" in scheduler_arguments:
        scheduler_arguments["time_attr"] = modern_key(str(scheduler_arguments["time_attr"]))
    mutated: Mapping[str, Any] = {}
    if scheduler in _POPULATION:
        # Trials that wait for each other are of one age when they are compared, and none deletes
        # a checkpoint which another one has been told to go on from.
        scheduler_arguments.setdefault("synch", True)
        field = "hyperparam_mutations" if scheduler == "pbt" else "hyperparam_bounds"
        mutated = scheduler_arguments.get(field) or {}
        if not isinstance(mutated, Mapping) or not mutated:
            raise CommandError(
                f"`scheduler`: {scheduler}: {field} is {mutated!r}. Name the settings that it may "
                f"change: {{{field}: {{actor_lr: [1e-4, 1e-3]}}}}."
            )
    if scheduler == "pbt":
        scheduler_arguments.setdefault("custom_explore_fn", partial(_kept_within, mutated))
    return Tuning(
        modern_key(metric),
        mode,
        SCHEDULERS.build(scheduler, scheduler_arguments) if scheduler else None,
        SEARCHERS.build(searcher, searcher_arguments) if searcher else None,
        mutated,
    )


def _named(spec: Mapping[str, Any], kind: Kind) -> tuple[str | None, dict[str, Any]]:
    if spec.get(kind.field) is None:
        return None, {}
    name, arguments = name_and_arguments(kind.field, spec[kind.field], kind.load)
    return name, with_domains(f"`{kind.field}`: {name}", arguments)


def _check_together(
    scheduler: str | None, searcher: str | None, param_space: Mapping[str, Any], trials: int
) -> None:
    """Refuses what Tune would refuse with a traceback, and what would do nothing."""
    if searcher and _has_grid(param_space):
        raise CommandError(
            f"`search_alg` is {searcher}, which takes no `grid_search` in `config`. Write "
            "{tune.choice: [...]} in its place."
        )
    if searcher and not any(domains(param_space)):
        raise CommandError(
            f"`search_alg` is {searcher}, but no setting in `config` is left to it. Give one or "
            "more: `actor_lr: {tune.loguniform: [1e-5, 1e-3]}`."
        )
    if scheduler in _POPULATION and searcher:
        raise CommandError(
            f"`scheduler` is {scheduler}, which chooses settings itself: leave out `search_alg`."
        )
    if scheduler in _POPULATION and trials < 2:
        raise CommandError(
            f"`scheduler` is {scheduler}, which compares trials, but there is one. Give "
            "`num_samples: 4`."
        )
    if "bohb" in (searcher, str(scheduler).removeprefix("hb_")) and (scheduler, searcher) != (
        "hb_bohb",
        "bohb",
    ):
        raise CommandError(
            f"`scheduler` is {scheduler} and `search_alg` is {searcher}. hb_bohb and bohb belong "
            "together: give both or neither."
        )


def check_tuning(
    tuning: Tuning,
    config: AlgorithmConfig,
    settings: Mapping[str, Any],
    check: Callable[[dict[str, Any]], object],
) -> None:
    """Checks against one trial's settings what trials are compared by, and what is changed.

    Args:
        tuning: What `read_tuning` returned.
        config: Of a trial, validated.
        settings: What `config` was made of.
        check: Raises a CommandError for settings that the algorithm does not take.

    Raises:
        CommandError: If a result is never reported, or a setting that the scheduler would change
            is none, or takes a value that the algorithm does not.
    """
    if tuning.metric is None:
        return
    check_metric(
        tuning.metric, config, f"`metric`: {tuning.metric!r}", at_the_end=bool(tuning.searcher)
    )
    time = getattr(tuning.scheduler, "_time_attr", None)
    if isinstance(time, str):
        check_metric(time, config, f"`scheduler`: time_attr: {time!r}")
    for key, values in (tuning.mutated or {}).items():
        if key in KEPT and issubclass(config.algo_class, CIKD):
            raise CommandError(
                f"`scheduler`: {key} cannot change while a run goes on, as a trial does from "
                "another one's checkpoint. Leave it out; `grid_search` in `config` compares values."
            )
        if isinstance(values, Mapping) and not _has_keys(settings.get(key), values):
            raise CommandError(
                f"`scheduler`: {key} is {dict(values)!r}, but `config` has "
                f"{settings.get(key)!r} there. Set what is to be changed."
            )
        for value in _examples(values):
            over = value if not isinstance(value, Mapping) else {**settings[key], **value}
            try:
                check({**settings, key: over})
            except CommandError as error:
                raise CommandError(f"`scheduler`: {error}") from error


def _has_keys(settings: Any, values: Mapping[str, Any]) -> bool:
    return isinstance(settings, Mapping) and all(
        key in settings and (not isinstance(value, Mapping) or _has_keys(settings[key], value))
        for key, value in values.items()
    )


def _kept_within(mutated: Mapping[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """A trial's settings after PBT has multiplied them: within the range that each is drawn from.

    Args:
        mutated: What PBT may change, with what it draws from.
        config: All of a trial's settings; changed in place.
    """
    for key, values in mutated.items():
        if isinstance(values, Mapping):
            _kept_within(values, config[key])
        elif limits := _limits(values):
            config[key] = min(max(config[key], limits[0]), limits[1])
    return config


def _limits(values: Any) -> list[Any]:
    """The least and the greatest draw of a range; nothing of what is none."""
    if isinstance(values, Integer):
        return [values.lower, values.upper - 1]
    if isinstance(values, Float) and math.isfinite(values.upper - values.lower):
        return [values.lower, math.nextafter(values.upper, values.lower)]
    return []


def _examples(values: Any) -> list[Any]:
    """What may come of an entry of `hyperparam_mutations`: all of a list, the ends of a range."""
    if isinstance(values, Mapping):
        nested = {key: _examples(value) for key, value in values.items()}
        longest = max(map(len, nested.values()), default=0)
        return [{k: v[min(i, len(v) - 1)] for k, v in nested.items()} for i in range(longest)]
    if isinstance(values, list | tuple):
        return list(values)
    if isinstance(values, Categorical):
        return list(values.categories)
    if hasattr(values, "sample"):
        return _limits(values) or [values.sample()]
    return [values()]


def _has_grid(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "grid_search" in value or any(map(_has_grid, value.values()))
    return False
