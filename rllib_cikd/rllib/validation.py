"""The check of every setting, before anything is built."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from numbers import Integral, Real
from typing import Any

from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_cikd.algorithm.knowledge_sharing import DISTILLATION_TARGETS, KNOWLEDGE_SHARINGS
from rllib_cikd.algorithm.members import policy_ids
from rllib_cikd.algorithm.policy_selection import POLICY_SELECTIONS
from rllib_cikd.algorithm.teacher_election import TEACHER_ELECTIONS
from rllib_cikd.engine.perceptrons import ACTIVATIONS
from rllib_cikd.rllib.sac_module import DEFAULT_MODEL_CONFIG, SACModule

#: SAC's settings that may differ between members (`algorithm_config_overrides_per_module`).
PER_MEMBER_SETTINGS = (
    "actor_lr",
    "critic_lr",
    "alpha_lr",
    "gamma",
    "tau",
    "target_entropy",
    "grad_clip",
)

#: RLlib settings that CIKD cannot honour, with what to do instead. They must keep their default.
UNSUPPORTED = {
    "train_batch_size": "use `train_batch_size_per_learner`",
    "num_gpus": "use `num_gpus_per_learner`",
    "optimization": "use `actor_lr`, `critic_lr` and `alpha_lr`",
    "q_model_config": "use `model_config`: {fcnet_hiddens: …, fcnet_activation: …}",
    "policy_model_config": "use `model_config`: {fcnet_hiddens: …, fcnet_activation: …}",
    "twin_q": "SAC's twin critics are part of the algorithm",
    "target_network_update_freq": "target networks follow by `tau` after every gradient step",
    "grad_clip_by": "gradients are clipped by each network's norm; set only `grad_clip`",
    "_use_beta_distribution": "policies are squashed Gaussians",
    "_deterministic_loss": "the loss samples actions from the policy",
    "policies_to_train": "all members are trained",
    "observation_fn": "wrap the environment with a `gymnasium.ObservationWrapper`",
    "count_steps_by": "all counters are environment steps",
    "batch_mode": "transitions are used as they come; leave it at 'truncate_episodes'",
    "normalize_actions": "policies act in [-1, 1] and are always mapped to the action bounds",
    "gym_env_vectorize_mode": "environments of one env runner are stepped one after the other",
    "create_local_env_runner": "the local env runner keeps the generators' state",
    "num_aggregator_actors_per_learner": "transitions go straight to the learner",
    "custom_evaluation_function": "use `evaluation_duration` and the `on_evaluate_end` callback",
    "evaluation_parallel_to_training": "members are evaluated between training iterations",
    "evaluation_duration_unit": "evaluation counts episodes of every member",
    "_env_to_module_connector": "wrap the environment with a `gymnasium.ObservationWrapper`",
    "_module_to_env_connector": "wrap the environment with a `gymnasium.ActionWrapper`",
    "_learner_connector": "wrap the environment; the learner reads transitions, not episodes",
}

#: Names that other programs, or RLlib's old API stack, use for settings CIKD has.
_OTHER_NAMES = {
    "buffer_size": "replay_buffer_config: {capacity: …}",
    "learning_starts": "num_steps_sampled_before_learning_starts",
    "timesteps_per_iteration": "min_sample_timesteps_per_iteration",
    "batch_size": "train_batch_size_per_learner",
    "fcnet_hiddens": "model_config: {fcnet_hiddens: …}",
    "fcnet_activation": "model_config: {fcnet_activation: …}",
}

#: Keys of RLlib's config dicts that are no attributes.
_SPECIAL_KEYS = {"class", "multiagent", "_enable_new_api_stack", "model_config"}


def check_config(config: Any) -> None:
    """Checks every setting of a `CIKDConfig`.

    Raises:
        ValueError: At the first bad value or combination; the message names the field, its value
            and the remedy.
    """
    _check_values(config)
    _check_combinations(config)
    _check_members(config)
    _check_unsupported(config)


def check_keys(config: Any, keys: Iterable[str]) -> None:
    """Checks that keys of a plain dict are settings.

    Raises:
        ValueError: If one is unknown; the message suggests the right one.
    """
    properties = {name for name in dir(type(config)) if _has_setter(type(config), name)}
    known = set(vars(config)) | set(config.to_dict()) | properties | _SPECIAL_KEYS
    for key in keys:
        if key.startswith("__"):  # Tune's own notes to its trials
            continue
        foreign = key in _OTHER_NAMES
        if not foreign and config._translate_special_keys(key, warn_deprecated=False) in known:
            continue
        if foreign:
            remedy = f"Here it is `{_OTHER_NAMES[key]}`."
        else:
            usable = [k for k in known - set(UNSUPPORTED) if not k.startswith("_")]
            close = difflib.get_close_matches(key, usable, n=1)
            remedy = f"Did you mean {close[0]!r}?" if close else "No setting is close to it."
        raise ValueError(f"Unknown config key {key!r}. {remedy}")


def _check_values(config: Any) -> None:
    _check_integer(config, "ensemble_size", 1)
    _check_choice(config, "policy_selection", POLICY_SELECTIONS)
    _check_integer(config, "return_window", 1)
    _check_integer(config, "distillation_interval", 1)
    _check_choice(config, "knowledge_sharing", KNOWLEDGE_SHARINGS)
    _check_choice(config, "distillation_targets", DISTILLATION_TARGETS)
    _check_choice(config, "teacher_election", TEACHER_ELECTIONS)
    _check_bool(config, "reset_students")
    _check_number(config, "distillation_lr", above=0.0)
    _check_integer(config, "distillation_batch_size", 1)
    _check_integer(config, "distillation_epochs", 1, optional=True)
    _check_integer(config, "distillation_updates", 1)
    _check_bool(config, "assess_distillation")
    _check_integer(config, "random_steps", 0)
    _check_integer(config, "max_evaluation_steps", 1)
    _check_integer(config, "num_steps_sampled_before_learning_starts", 0, optional=True)
    _check_integer(config, "train_batch_size_per_learner", 1)
    _check_integer(config, "n_step", 1)
    _check_integer(config, "evaluation_duration", 1)
    _check_bool(config, "store_buffer_in_checkpoints")
    _check_number(config, "training_intensity", above=0.0, optional=True)
    _check_number(config, "initial_alpha", above=0.0)
    if not isinstance(config.rollout_fragment_length, Integral):
        _reject(config, "rollout_fragment_length", "must be an integer of at least 1 (default 50)")
    _check_integer(config, "rollout_fragment_length", 1)
    _check_sac_settings(config)


def _check_sac_settings(config: Any) -> None:
    for name in ("actor_lr", "critic_lr", "alpha_lr"):
        if not isinstance(getattr(config, name), (list, tuple)):  # a schedule: RLlib checks it
            _check_number(config, name, above=0.0)
    _check_number(config, "gamma", above=-1e-12, at_most=1.0)
    _check_number(config, "tau", above=0.0, at_most=1.0)
    _check_number(config, "grad_clip", above=0.0, optional=True)
    if config.target_entropy not in (None, "auto"):
        _check_number(config, "target_entropy")


def _check_combinations(config: Any) -> None:
    if config.reset_students and config.knowledge_sharing != "distillation":
        _reject(
            config,
            "reset_students",
            f"needs knowledge_sharing='distillation', not {config.knowledge_sharing!r}: "
            "students would be reset without being taught",
        )
    buffer = config.replay_buffer_config
    other = sorted(set(buffer) - {"type", "capacity"})
    if other or buffer.get("type") != "EpisodeReplayBuffer":
        _reject(
            config,
            "replay_buffer_config",
            "only {'capacity': N} can be set; the shared buffer is part of the algorithm and "
            "samples uniformly",
        )
    capacity = buffer.get("capacity")
    needed = max(1, config.learning_starts_at, config.train_batch_size_per_learner)
    if not _is_integer(capacity) or capacity < needed:
        _reject(
            config,
            "replay_buffer_config",
            f"'capacity' must be an integer of at least {needed}, so that it holds "
            f"`num_steps_sampled_before_learning_starts` ({config.learning_starts_at}) and a "
            f"minibatch ({config.train_batch_size_per_learner}){_as_integer(capacity)}",
        )
    if config.num_learners > 1:
        _reject(config, "num_learners", "more than one learner is not supported; set 0 or 1")
    if config.framework_str != "torch":
        _reject(config, "framework_str", "CIKD needs 'torch'")


def _check_members(config: Any) -> None:
    generated = policy_ids(len(config.policies))
    if list(config.policies) not in (generated, ["default_policy"]):
        _reject(
            config,
            "policies",
            "the ensemble's policies are generated; set `ensemble_size`, and per-member "
            "differences with `rl_module(algorithm_config_overrides_per_module=…)`",
        )
    ids = policy_ids(config.ensemble_size)
    for member, overrides in config.algorithm_config_overrides_per_module.items():
        field = "algorithm_config_overrides_per_module"
        if member not in ids:
            _reject(config, field, f"{member!r} is no member; members are {ids}")
        settings = overrides if isinstance(overrides, dict) else dict(overrides)
        unknown = sorted(set(settings) - set(PER_MEMBER_SETTINGS))
        if unknown:
            _reject(
                config, field, f"{unknown} cannot differ by member; {list(PER_MEMBER_SETTINGS)} can"
            )
        member_config = type(config)()
        for name, value in settings.items():
            setattr(member_config, name, value)
        _check_sac_settings(member_config)
    _check_model_config("model_config", config._model_config)
    spec = config._rl_module_spec
    specs = {}
    if isinstance(spec, MultiRLModuleSpec):
        specs = dict(spec.rl_module_specs or {})
        strangers = sorted(set(specs) - set(ids))
        if strangers:
            _reject(config, "rl_module_spec", f"{strangers} are no members; members are {ids}")
    elif isinstance(spec, RLModuleSpec):
        specs = {"all members": spec}
    for member, member_spec in specs.items():
        if member_spec.module_class not in (None, SACModule):
            _reject(
                config,
                "rl_module_spec",
                f"members must be `SACModule`s, but {member} is a "
                f"{member_spec.module_class.__name__}; change its shape with `model_config`",
            )
        _check_model_config(f"model_config of {member}", member_spec.model_config)


def _check_model_config(field: str, model_config: Any) -> None:
    if model_config is None:
        return
    allowed = {*DEFAULT_MODEL_CONFIG, "initial_alpha"}
    if is_dataclass(model_config) and not isinstance(model_config, type):
        defaults = asdict(DefaultModelConfig())
        settings = asdict(model_config)
        unknown = [k for k, v in settings.items() if k not in allowed and v != defaults[k]]
    else:
        settings = dict(model_config)
        unknown = [k for k in settings if k not in allowed]
    if unknown:
        raise ValueError(
            f"{field}={model_config!r}: {sorted(unknown)} not supported; members are "
            f"perceptrons with the settings {list(DEFAULT_MODEL_CONFIG)}."
        )
    hiddens = settings.get("fcnet_hiddens", [256, 256])
    if not isinstance(hiddens, (list, tuple)) or not all(
        _is_integer(width) and width >= 1 for width in hiddens
    ):
        raise ValueError(
            f"{field}: fcnet_hiddens={hiddens!r} must be a list of layer widths, such as "
            "[256, 256]."
        )
    activation = settings.get("fcnet_activation", "relu")
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{field}: fcnet_activation={activation!r} must be one of {list(ACTIVATIONS)}."
        )


def _check_unsupported(config: Any) -> None:
    default = type(config)()
    for field, remedy in UNSUPPORTED.items():
        if getattr(config, field, None) != getattr(default, field, None):
            _reject(config, field, f"is not supported by CIKD: {remedy}")


def _reject(config: Any, field: str, reason: str) -> None:
    raise ValueError(f"{field}={getattr(config, field)!r}: {reason}.")


def _check_choice(config: Any, field: str, choices: tuple[str, ...]) -> None:
    if getattr(config, field) not in choices:
        _reject(config, field, f"must be one of {list(choices)}")


def _check_bool(config: Any, field: str) -> None:
    if not isinstance(getattr(config, field), bool):
        _reject(config, field, "must be True or False")


def _check_integer(config: Any, field: str, minimum: int, optional: bool = False) -> None:
    value = getattr(config, field)
    if optional and value is None:
        return
    if not _is_integer(value) or value < minimum:
        none = ", or None" if optional else ""
        hint = _as_integer(value)
        _reject(config, field, f"must be an integer of at least {minimum}{none}{hint}")


def _check_number(
    config: Any,
    field: str,
    above: float | None = None,
    at_most: float | None = None,
    optional: bool = False,
) -> None:
    value = getattr(config, field)
    if optional and value is None:
        return
    good = isinstance(value, Real) and not isinstance(value, bool)
    good = good and (above is None or value > above) and (at_most is None or value <= at_most)
    if good:
        return
    bounds = [] if above is None else [f"above {max(above, 0.0):g}" if above >= 0 else "at least 0"]
    bounds += [] if at_most is None else [f"at most {at_most:g}"]
    none = ", or None" if optional else ""
    hint = " (write 1.0e-3, not 1e-3, in YAML)" if isinstance(value, str) else ""
    _reject(config, field, f"must be a number {' and '.join(bounds)}{none}{hint}".strip())


def _has_setter(cls: type, name: str) -> bool:
    member = getattr(cls, name, None)
    return isinstance(member, property) and member.fset is not None


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _as_integer(value: Any) -> str:
    """How to write 1e6 and the like, which Python and YAML read as floats."""
    whole = isinstance(value, float) and value.is_integer()
    return f" (write {int(value)})" if whole else ""


class _Banner(logging.Filter):
    """Holds back "You are running … on the new API stack": there is no other stack for CIKD."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "on the new API stack!" not in record.getMessage()


_BANNER = _Banner()


def hold_back_banner() -> None:
    """RLlib logs it at every validation of a config."""
    for module in ("algorithm_config", "sac.sac"):
        logging.getLogger(f"ray.rllib.algorithms.{module}").addFilter(_BANNER)
