"""Settings that differ by member, or for evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.policy.policy import PolicySpec

from rllib_cikd.algorithm.members import acting_member, policy_ids
from rllib_cikd.rllib.settings.honoured import EVALUATION_OVERRIDES, HONOURED, PER_MEMBER
from rllib_cikd.rllib.settings.refused import INTERNAL
from rllib_cikd.rllib.settings.values import reject, same, show

#: What RLlib writes for functions where it makes plain data of a config.
_NOT_SERIALIZABLE = "__not_serializable__"


def check_policies(config: Any) -> None:
    """Checks that policies and their mapping are the generated ones, or RLlib's defaults."""
    policies = config.policies
    ids = list(policies) if isinstance(policies, (dict, list, tuple)) else []
    specs = policies.values() if isinstance(policies, dict) else []
    plain = (None, PolicySpec(), PolicySpec().get_state())
    generated_ids = (["default_policy"], policy_ids(max(1, len(ids))))
    if not _one_of(ids, generated_ids) or not all(_one_of(spec, plain) for spec in specs):
        reject("policies", policies, INTERNAL["policies"])
    generated = (acting_member, AlgorithmConfig.DEFAULT_POLICY_MAPPING_FN, _NOT_SERIALIZABLE)
    if not _one_of(config.policy_mapping_fn, generated):
        reject("policy_mapping_fn", config.policy_mapping_fn, INTERNAL["policy_mapping_fn"])


def check_member_overrides(config: Any, ids: Sequence[str]) -> None:
    """Checks `algorithm_config_overrides_per_module`.

    Raises:
        ValueError: If it is of no use; the message names member, setting, value and remedy.
    """
    field = "algorithm_config_overrides_per_module"
    overrides = getattr(config, field)
    for member, settings in overrides.items():
        if member not in ids:
            reject(field, overrides, f"{show(member)} is no member; members are {list(ids)}")
        if not isinstance(settings, dict):
            reject(field, overrides, f"must be {HONOURED[field].words}")
        unknown = sorted(show(name) for name in settings if name not in PER_MEMBER)
        if unknown:
            reject(
                field,
                overrides,
                f"[{', '.join(unknown)}] cannot differ by member; {list(PER_MEMBER)} can",
            )
        for name, value in settings.items():
            problem = PER_MEMBER[name].problem(value)
            if problem:
                reject(f"{field}: {member}: {name}", value, problem)


def settings_by_member(config: Any, ids: Sequence[str]) -> list[dict[str, Any]]:
    """What members may differ in, as each of them has it."""
    common = {name: getattr(config, name) for name in PER_MEMBER}
    overrides = config.algorithm_config_overrides_per_module
    return [common | dict(overrides.get(member, {})) for member in ids]


def check_evaluation_config(config: Any) -> None:
    """Checks `evaluation_config`: what would do nothing in an evaluation is refused."""
    overrides = config.evaluation_config
    if overrides is None:
        return
    if isinstance(overrides, AlgorithmConfig):
        overrides = overrides.to_dict()
    for name, value in overrides.items():
        if name == "explore" and value is False:
            continue
        if name in EVALUATION_OVERRIDES:
            problem = HONOURED[name].problem(value)
            if problem:
                reject(f"evaluation_config: {name}", value, problem)
        elif name == "explore":
            reject("evaluation_config: explore", value, "evaluation always acts deterministically")
        elif not hasattr(config, str(name)) or not same(value, getattr(config, name)):
            reject(
                f"evaluation_config: {name}",
                value,
                f"cannot differ in evaluation; {list(EVALUATION_OVERRIDES)} can",
            )


def _one_of(value: Any, candidates: Iterable[Any]) -> bool:
    return any(same(value, candidate) for candidate in candidates)
