"""The check of every setting, before anything is built."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ray._common.deprecation import DEPRECATED_VALUE

from rllib_cikd.algorithm.members import policy_ids
from rllib_cikd.common.errors import did_you_mean
from rllib_cikd.rllib.settings.arguments import FIELD_OF
from rllib_cikd.rllib.settings.combinations import check_combinations
from rllib_cikd.rllib.settings.honoured import HONOURED
from rllib_cikd.rllib.settings.networks import check_model_config, check_networks
from rllib_cikd.rllib.settings.overrides import (
    check_evaluation_config,
    check_member_overrides,
    check_policies,
)
from rllib_cikd.rllib.settings.refused import INTERNAL, OTHER_NAMES, UNSUPPORTED, WITHOUT_MEANING
from rllib_cikd.rllib.settings.values import reject, same

#: RLlib's name for a field that has a property in front of it.
_BEHIND_PROPERTY = {"_train_batch_size_per_learner": "train_batch_size_per_learner"}

#: Without RLlib's new API stack it changes other settings, too: the cause is named first.
_FIRST = ("enable_rl_module_and_learner", "enable_env_runner_and_connector_v2")

#: Attributes that RLlib adds to a config when it makes one of another's state.
_ADDED_BY_RLLIB = {"class", "worker_index"}


def check_config(config: Any) -> None:
    """Checks every setting of a `CIKDConfig`; numbers of numpy's become Python's.

    Raises:
        ValueError: At the first bad value or combination; the message names the field, its value
            and the remedy.
    """
    default = type(config)()
    unknown = set(vars(config)) - set(vars(default)) - _ADDED_BY_RLLIB
    for field in sorted(f for f in unknown if not _is_note_of_tune(f)):
        raise ValueError(_unknown_key(field, vars(default)))
    for field in list(vars(config)):
        if isinstance(getattr(config, field), np.generic):
            setattr(config, field, getattr(config, field).item())
    if config._model_config is None:
        config._model_config = {}
    fields = sorted(vars(config), key=lambda name: name not in _FIRST)
    check_settings({f: getattr(config, f) for f in fields if f not in INTERNAL}, default)
    if not any(same(config.simple_optimizer, v) for v in (DEPRECATED_VALUE, True, False)):
        reject("simple_optimizer", config.simple_optimizer, INTERNAL["simple_optimizer"])
    ids = policy_ids(config.ensemble_size)
    check_policies(config)
    check_networks(config, ids)
    check_member_overrides(config, ids)
    check_evaluation_config(config)
    check_combinations(config, ids)


def check_settings(settings: Mapping[str, Any], default: Any) -> None:
    """Checks each of some settings for itself.

    Args:
        settings: Values by field.
        default: A config with all defaults.

    Raises:
        ValueError: At the first value of the wrong type or out of range, and at the first change
            of a setting that is refused.
    """
    for field, value in settings.items():
        name = _BEHIND_PROPERTY.get(field, field)
        if name in HONOURED:
            problem = HONOURED[name].problem(value)
            if problem:
                reject(name, value, problem)
        elif hasattr(default, name) and not same(value, getattr(default, name)):
            remedy = _refusal(name, getattr(default, name))
            if remedy is not None:
                reject(name, value, remedy)
        if name == "_model_config":
            check_model_config("model_config", value)


def _refusal(field: str, default: Any) -> str | None:
    """Why a field cannot be changed; None if nothing is known of it: a subclass's own."""
    if field in UNSUPPORTED:
        return f"is not supported by CIKD: {UNSUPPORTED[field]}"
    if field in WITHOUT_MEANING:
        return f"has no meaning for CIKD: {WITHOUT_MEANING[field]}"
    if field in INTERNAL:
        return f"is not for users: {INTERNAL[field]}"
    if same(default, DEPRECATED_VALUE):
        new = OTHER_NAMES.get(field)
        return "RLlib has removed it; " + (f"here it is `{new}`" if new else "leave it out")
    return None


def check_keys(config: Any, settings: Mapping[str, Any]) -> None:
    """Checks that keys of a plain dict are settings that a user may set.

    Raises:
        ValueError: If one is unknown, with the right one; or not for users.
    """
    known = {*vars(config), *FIELD_OF, *_BEHIND_PROPERTY.values(), "class"}
    for key, value in settings.items():
        if _is_note_of_tune(key):
            continue
        removed = isinstance(key, str) and key in OTHER_NAMES
        if removed and not same(value, DEPRECATED_VALUE):
            raise ValueError(f"Unknown config key {key!r}. Here it is `{OTHER_NAMES[key]}`.")
        if not isinstance(key, str) or (
            config._translate_special_keys(key, warn_deprecated=False) not in known and not removed
        ):
            raise ValueError(_unknown_key(key, known))
        if key in INTERNAL and key not in ("policies", "policy_mapping_fn", "simple_optimizer"):
            current = getattr(config, key)
            if not same(value, current):
                reject(key, value, f"is not for users: {INTERNAL[key]}")


def _is_note_of_tune(key: Any) -> bool:
    """Whether Tune tells its trials something by it, such as where to write."""
    return isinstance(key, str) and key.startswith("__")


def _unknown_key(key: Any, known: Iterable[str]) -> str:
    refused = {**UNSUPPORTED, **WITHOUT_MEANING, **INTERNAL}
    usable = [k for k in known if k not in refused and not k.startswith("_")]
    suggestion = did_you_mean(str(key), usable) or " No setting is close to it."
    return f"Unknown config key {key!r}.{suggestion}"


class _Banner(logging.Filter):
    """Holds back "You are running … on the new API stack": there is no other stack for CIKD."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "on the new API stack!" not in record.getMessage()


_BANNER = _Banner()


def hold_back_banner() -> None:
    """RLlib logs it at every validation of a config."""
    for module in ("algorithm_config", "sac.sac"):
        logging.getLogger(f"ray.rllib.algorithms.{module}").addFilter(_BANNER)
