"""The methods of a config, `.training(…)` and the like: their arguments are settings, too."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from rllib_cikd.common.errors import did_you_mean
from rllib_cikd.rllib.settings.refused import OTHER_NAMES

C = TypeVar("C", bound=type)

#: The methods of `AlgorithmConfig` that set settings.
METHODS = (
    "api_stack",
    "callbacks",
    "checkpointing",
    "debugging",
    "env_runners",
    "environment",
    "evaluation",
    "experimental",
    "fault_tolerance",
    "framework",
    "learners",
    "multi_agent",
    "offline_data",
    "python_environment",
    "reporting",
    "resources",
    "rl_module",
    "training",
)

#: Arguments, and keys of plain dicts, whose field in a config has another name.
FIELD_OF = {
    "callbacks": "callbacks_class",
    "custom_stats_cls_lookup": "stats_cls_lookup",
    "dataset_num_iters_per_offline_eval_runner": "dataset_num_iters_per_eval_runner",
    "env_to_module_connector": "_env_to_module_connector",
    "framework": "framework_str",
    "is_atari": "_is_atari",
    "learner_class": "_learner_class",
    "learner_connector": "_learner_connector",
    "model_config": "_model_config",
    "module_to_env_connector": "_module_to_env_connector",
    "rl_module_spec": "_rl_module_spec",
    "synchronize_filter": "synchronize_filters",
}


def field_of(argument: str) -> str:
    """The field of a config that an argument of one of its methods sets."""
    prefix = "callbacks_" if argument.startswith("on_") else ""
    return FIELD_OF.get(argument, prefix + argument)


def checked_arguments(config_class: C) -> C:
    """Class decorator: methods refuse arguments that they do not know, or that RLlib trips over.

    The methods raise:

    - `TypeError` for an unknown argument, with the right name, or the right method for it.
    - `ValueError` for a value of the wrong type, where RLlib's method itself needs the type. All
      other values are checked by `validate()`, as some are `ray.tune` search spaces until then.
    """
    known = {name: _arguments(config_class, name) for name in METHODS}
    for name in METHODS:
        setattr(config_class, name, _checked(name, getattr(config_class, name), known))
    return config_class


def _checked(
    name: str, method: Callable[..., Any], known: dict[str, set[str]]
) -> Callable[..., Any]:
    @functools.wraps(method)
    def checked(self, *args: Any, **kwargs: Any) -> Any:
        for argument in kwargs:
            if argument in OTHER_NAMES or argument not in known[name]:
                raise TypeError(_unknown(name, argument, known))
        try:
            return method(self, *args, **kwargs)
        except Exception:
            self.check_settings({field_of(argument): v for argument, v in kwargs.items()})
            raise  # the values are fine: it is about something else

    return checked


def _unknown(method: str, argument: str, known: dict[str, set[str]]) -> str:
    message = f"{method}() has no argument {argument!r}."
    if argument in OTHER_NAMES:
        return f"{message} Here it is `{OTHER_NAMES[argument]}`."
    others = [other for other in METHODS if argument in known[other]]
    if others:
        return f"{message} It is one of {others[0]}()."
    usable = known[method] - set(OTHER_NAMES)
    return message + (did_you_mean(argument, usable) or " No argument of it has a name like that.")


def _arguments(config_class: type, method: str) -> set[str]:
    """Names of a method's arguments, with those that it hands on to the class above."""
    return {
        parameter.name
        for cls in config_class.__mro__
        if method in vars(cls)
        for parameter in inspect.signature(vars(cls)[method]).parameters.values()
        if parameter.name != "self" and parameter.kind is not parameter.VAR_KEYWORD
    }
