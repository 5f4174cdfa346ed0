"""The members' networks: `model_config` and `rl_module_spec`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule, MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_cikd.engine.perceptrons import ACTIVATIONS
from rllib_cikd.rllib.sac_module import DEFAULT_MODEL_CONFIG, SACModule
from rllib_cikd.rllib.settings.honoured import HONOURED
from rllib_cikd.rllib.settings.values import Integer, reject, show

_WIDTH = Integer(at_least=1, at_most=1_000_000)

#: What members find in their model config, but users set in the config itself.
_SET_ELSEWHERE = {
    "initial_alpha": "`initial_alpha` of `.training(…)`",
    "normalize_observations": "`observation_filter` of `.env_runners(…)`",
}


def check_networks(config: Any, ids: Sequence[str]) -> None:
    """Checks `model_config` and `rl_module_spec` of a config with these members.

    Raises:
        ValueError: If one is not what a member can be made of.
    """
    check_model_config("model_config", config._model_config)
    specs = _specs(config, ids)
    paths = [spec.load_state_path for spec in (config._rl_module_spec, *specs.values()) if spec]
    if config.observation_filter != "NoFilter" and any(paths):
        reject(
            "rl_module_spec",
            config._rl_module_spec,
            f"`load_state_path` cannot go with observation_filter={config.observation_filter!r}: "
            "the statistics of observations are not among what it loads. Begin with a whole "
            "checkpoint, `CIKD.from_checkpoint(…)`",
        )
    if isinstance(config._rl_module_spec, MultiRLModuleSpec):
        _check_multi_spec(config._rl_module_spec)
    for member, spec in specs.items():
        module_class = spec.module_class
        if module_class is not None and not (
            inspect.isclass(module_class) and issubclass(module_class, SACModule)
        ):
            name = getattr(module_class, "__name__", show(module_class))
            reject(
                "rl_module_spec",
                config._rl_module_spec,
                f"members must be `SACModule`s, but {member} is a {name}; change its shape with "
                "`model_config`",
            )
        check_model_config(f"model_config of {member}", spec.model_config)


def check_actions(config: Any, ids: Sequence[str], discrete: bool) -> None:
    """Checks the networks of a checked config against an environment's actions.

    Raises:
        ValueError: If members cannot learn such actions.
    """
    if discrete and any(networks["batch_norm"] for networks in shapes(config, ids).values()):
        reject(
            "model_config",
            {"batch_norm": True},
            "is for continuous actions, and this environment's are discrete. Leave it out",
        )


def _check_multi_spec(spec: MultiRLModuleSpec) -> None:
    if spec.model_config:
        reject(
            "rl_module_spec",
            spec,
            "the `model_config` of a `MultiRLModuleSpec` reaches no member. Give it to "
            "`.rl_module(model_config=…)`, or to the members' `RLModuleSpec`s",
        )
    if spec.multi_rl_module_class is not MultiRLModule:
        reject(
            "rl_module_spec",
            spec,
            "members share nothing that another `multi_rl_module_class` could hold: leave it out",
        )


def shapes(config: Any, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each member's networks will be, by member id: the settings of `DEFAULT_MODEL_CONFIG`.

    The config has been checked.
    """
    common = DEFAULT_MODEL_CONFIG | _settings(config._model_config)
    specs = _specs(config, ids)
    result = {}
    for member in ids:
        spec = specs.get(member, specs.get("all members"))
        own = common | (_settings(spec.model_config) if spec is not None else {})
        result[member] = {
            "fcnet_hiddens": [int(width) for width in own["fcnet_hiddens"]],
            "fcnet_activation": own["fcnet_activation"],
            "critic_layer_norm": own["critic_layer_norm"],
            "batch_norm": own["batch_norm"],
        }
    return result


def check_model_config(field: str, model_config: Any) -> None:
    """Checks a `model_config`: None, a dict, or RLlib's `DefaultModelConfig`."""
    if model_config is None:
        return
    problem = HONOURED["_model_config"].problem(model_config)
    if problem:
        reject(field, model_config, problem)
    settings = _settings(model_config)
    for name, instead in _SET_ELSEWHERE.items():
        if name in settings:
            reject(f"{field}: {name}", settings[name], f"is set with {instead}")
    unknown = sorted(show(name) for name in settings if name not in DEFAULT_MODEL_CONFIG)
    if unknown:
        reject(
            field,
            model_config,
            f"{', '.join(unknown)} not supported; members are perceptrons with the settings "
            f"{list(DEFAULT_MODEL_CONFIG)}",
        )
    hiddens = settings.get("fcnet_hiddens", [])
    if (
        not isinstance(hiddens, (list, tuple))
        or len(hiddens) > 100
        or any(_WIDTH.problem(width) for width in hiddens)
    ):
        reject(
            f"{field}: fcnet_hiddens",
            hiddens,
            "must be a list of layer widths, such as [256, 256]: at most 100 integers from 1 to "
            "1000000",
        )
    activation = settings.get("fcnet_activation", "relu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        reject(f"{field}: fcnet_activation", activation, f"must be one of {list(ACTIVATIONS)}")
    for name in ("critic_layer_norm", "batch_norm"):
        if not isinstance(settings.get(name, False), bool):
            reject(f"{field}: {name}", settings[name], "must be True or False")
    if settings.get("critic_layer_norm") and settings.get("batch_norm"):
        reject(f"{field}: critic_layer_norm", True, "cannot go with batch_norm: choose one")


def _specs(config: Any, ids: Sequence[str]) -> dict[str, RLModuleSpec]:
    """The user's specs by member id; one for all is that of "all members"."""
    spec = config._rl_module_spec
    if spec is None:
        return {}
    if isinstance(spec, RLModuleSpec):
        return {"all members": spec}
    specs = spec.rl_module_specs or {}
    if isinstance(specs, RLModuleSpec):
        return {"all members": specs}
    strangers = sorted(set(specs) - set(ids))
    if strangers:
        reject("rl_module_spec", spec, f"{strangers} are no members; members are {list(ids)}")
    return dict(specs)


def _settings(model_config: Any) -> dict[str, Any]:
    """A model config as a dict; of RLlib's dataclass, what differs from its defaults."""
    if model_config is None:
        return {}
    if isinstance(model_config, dict):
        return model_config
    defaults = asdict(DefaultModelConfig())
    settings = asdict(model_config)
    return {k: v for k, v in settings.items() if k in DEFAULT_MODEL_CONFIG or v != defaults.get(k)}
