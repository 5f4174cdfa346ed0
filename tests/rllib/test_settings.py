"""Every setting of the installed RLlib and of CIKD is honoured or refused, whatever its value."""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ray import tune
from ray._common.deprecation import DEPRECATED_VALUE
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.policy.policy import PolicySpec

from rllib_cikd import CIKDConfig
from rllib_cikd.rllib.env_runner import CIKDEnvRunner
from rllib_cikd.rllib.sac_module import SACModule
from rllib_cikd.rllib.settings.arguments import METHODS, field_of
from rllib_cikd.rllib.settings.honoured import EVALUATION_OVERRIDES, HONOURED, PER_MEMBER
from rllib_cikd.rllib.settings.page import code, settings_page
from rllib_cikd.rllib.settings.refused import INTERNAL, OTHER_NAMES, UNSUPPORTED, WITHOUT_MEANING
from rllib_cikd.rllib.validation import check_settings

TABLES = {
    "honoured": HONOURED,
    "unsupported": UNSUPPORTED,
    "without meaning": WITHOUT_MEANING,
    "internal": INTERNAL,
}
REFUSED = UNSUPPORTED | WITHOUT_MEANING
DEFAULT = CIKDConfig()
PAGE = Path(__file__).parents[2] / "docs" / "SETTINGS.md"


def fields_of(config: Any) -> set[str]:
    """Fields of a config, by the names in the tables; without those that RLlib has removed."""
    names = {
        name
        for name, value in vars(config).items()
        if not (isinstance(value, int) and value == DEPRECATED_VALUE)
    }
    return {name.replace("_train_batch", "train_batch") for name in names}


def arguments(method: str) -> Iterator[tuple[str, Any]]:
    """Arguments of one of a config's methods, with their defaults."""
    for cls in CIKDConfig.__mro__:
        if method in vars(cls):
            function = inspect.unwrap(vars(cls)[method])
            for p in inspect.signature(function).parameters.values():
                if p.name != "self" and p.kind is not p.VAR_KEYWORD:
                    yield p.name, p.default


def outcome(field: str, value: Any) -> str | None:
    """What validation says of a value; None if it is accepted."""
    try:
        CIKDConfig().update_from_dict({field: value}).validate()
    except ValueError as error:
        return str(error)
    return None


# ------------------------------------------------------------------ all of them


def test_every_field_of_the_installed_rllib_is_in_exactly_one_table():
    fields = fields_of(SACConfig()) | fields_of(CIKDConfig())
    tables = {field: [name for name, table in TABLES.items() if field in table] for field in fields}
    assert {field: where for field, where in tables.items() if len(where) != 1} == {}
    names = {name for table in TABLES.values() for name in table}
    assert names - fields - set(vars(DEFAULT)) == set()


def test_a_field_of_a_new_rllib_would_be_noticed():
    config = SACConfig()
    config.brand_new = 1
    assert fields_of(config) - {name for table in TABLES.values() for name in table} == {
        "brand_new"
    }


def test_every_argument_of_a_method_sets_a_field_that_is_known():
    known = set(vars(CIKDConfig())) | {"train_batch_size_per_learner"}
    unknown = [
        (method, name)
        for method in METHODS
        for name, _ in arguments(method)
        if field_of(name) not in known and name not in OTHER_NAMES
    ]
    assert unknown == []


def test_every_method_that_returns_the_config_is_checked():
    public = [
        name
        for name, method in inspect.getmembers(SACConfig, inspect.isfunction)
        if not name.startswith("_") and "Self" in str(inspect.signature(method).return_annotation)
    ]
    others = {"copy", "get_config_for_module", "update_from_dict"}
    assert set(public) - others == set(METHODS)


def test_names_that_stand_for_others_name_real_ones():
    for name, here in OTHER_NAMES.items():
        first = re.match(r"\w+", here)
        assert first is not None
        assert hasattr(DEFAULT, first.group()), name


@pytest.mark.parametrize("field", sorted(REFUSED))
def test_a_refused_setting_names_itself_and_the_remedy(field):
    with pytest.raises(ValueError, match=rf"^{field}='something': .{{20,}}\.$"):
        check_settings({field: "something"}, DEFAULT)
    check_settings({field: getattr(DEFAULT, field)}, DEFAULT)


def test_the_page_is_current():
    """Made by `python -m rllib_cikd.rllib.settings.page`."""
    assert PAGE.read_text() == settings_page(CIKDConfig())
    assert [f for f in [*HONOURED, *REFUSED, *INTERNAL] if code(f) not in PAGE.read_text()] == []


def test_a_default_model_config_on_the_page_is_accepted():
    shown = re.search(r"^\| `model_config` \| `(.*?)` \|", PAGE.read_text(), re.MULTILINE)
    assert shown is not None
    CIKDConfig().rl_module(model_config=ast.literal_eval(shown.group(1))).validate()


# ------------------------------------------------------------------ values of all kinds


class Odd:
    """A value with which nothing can be done."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other):
        raise RuntimeError("cannot be compared")

    def __repr__(self):
        raise RuntimeError("cannot be shown")

    def __bool__(self):
        raise RuntimeError("neither true nor false")


ODD_VALUES = [
    None,
    -1,
    2**32,
    10**400,
    -(10**400),
    1e30,
    math.inf,
    -math.inf,
    math.nan,
    "",
    "2",
    "1e-4",
    "auto",
    b"bytes",
    1 + 2j,
    [],
    (),
    {},
    set(),
    [[0, -1], [10, -2]],
    [[0, 1e-3], [0, 1e-3]],
    [[0, "x"], [1, "y"]],
    [[0], [1]],
    [[0, [1]], [1, [1]]],
    {"type": "x"},
    {"capacity": "x"},
    {"capacity": 10**400},
    {"policy_0": 5},
    {"policy_0": {"actor_lr": "x"}},
    {"policy_0": {1: 2}},
    {"policy_9": {}},
    {1: 2},
    {"explore": True},
    {"fcnet_activation": []},
    {"fcnet_hiddens": ["x"]},
    {"fcnet_hiddens": 5},
    object(),
    Odd(),
    [Odd()],
    {"a": Odd()},
    int,
    print,
    np.zeros(3),
    np.array(1),
    np.array("x"),
    np.float32("nan"),
    np.bool_(True),
    gym.spaces.Discrete(2),
    DEFAULT,
    RLModuleSpec(),
    RLModuleSpec(module_class="x"),
    DefaultModelConfig(use_lstm=True),
    ...,
    range(3),
]
FIELDS = sorted(
    set(vars(DEFAULT))
    | set(DEFAULT.to_dict())
    | {"train_batch_size_per_learner", "model_config", "rl_module_spec", "learner_class"}
)


def plain_values() -> st.SearchStrategy[Any]:
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=3),
        st.sampled_from([np.int64(3), np.float32(0.5), np.bool_(False)]),
    )
    return st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.one_of(st.text(max_size=5), st.integers()), inner, max_size=2),
            st.tuples(inner, inner),
        ),
        max_leaves=5,
    )


def said_well(field: str, message: str) -> bool:
    """Whether a message names the field, has more to say than that, and is one line."""
    # RLlib has second names for a few fields; the two of the new API stack go together.
    real = CIKDConfig._translate_special_keys(field, warn_deprecated=False)
    names = {field, field.lstrip("_"), real, real.lstrip("_")}
    if field == "enable_env_runner_and_connector_v2":
        names.add("enable_rl_module_and_learner")
    return (
        any(name in message for name in names)
        and len(message) > len(field) + 20
        and "\n" not in message
        and len(message) < 700
    )


@pytest.mark.parametrize("field", FIELDS)
def test_odd_values_are_accepted_or_refused_in_words(field):
    # Those that are refused are compared with their defaults, one as the other.
    for value in [Odd(), np.zeros(3), {}, "2"] if field in REFUSED else ODD_VALUES:
        message = outcome(field, value)
        assert message is None or said_well(field, message), (field, type(value), message)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(field=st.sampled_from(FIELDS), value=plain_values())
def test_any_value_is_accepted_or_refused_in_words(field, value):
    message = outcome(field, value)
    assert message is None or said_well(field, message), message


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(field=st.sampled_from(sorted(HONOURED)), value=plain_values())
def test_a_value_that_is_accepted_stays_what_it_was(field, value):
    """Only numpy's numbers become Python's, and dicts are merged into defaults."""
    if outcome(field, value) is None and not isinstance(value, dict):
        config = CIKDConfig().update_from_dict({field: value})
        config.validate()
        kept = getattr(config, field)
        assert kept == value or value is None
        assert not isinstance(kept, np.generic)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_methods_refuse_any_value_in_words(data):
    method = data.draw(st.sampled_from(METHODS))
    name = data.draw(st.sampled_from(sorted({name for name, _ in arguments(method)})))
    value = data.draw(st.one_of(plain_values(), st.sampled_from(ODD_VALUES)))
    error = error_of(method, name, value)
    if isinstance(error, TypeError):
        assert name in OTHER_NAMES
        assert "Here it is" in str(error)
    elif error is not None:
        assert said_well(field_of(name), str(error)) or said_well(name, str(error))


def error_of(method: str, argument: str, value: Any) -> Exception | None:
    try:
        getattr(CIKDConfig(), method)(**{argument: value}).validate()
    except (TypeError, ValueError) as error:
        return error
    return None


# ------------------------------------------------------------------ values by hand

#: Field, wrong values, and words of the message.
WRONG = [
    ("num_env_runners", ["2", 2.0, -1, True, None, 10**9], "integer"),
    ("seed", [2**32, -1, "x", 1.5, True], "integer"),
    ("min_sample_timesteps_per_iteration", ["abc", -1, 1.5], "integer of at least 0, or None"),
    ("actor_lr", [[[0, -1], [10, -2]]], "each of its values must be a number above 0"),
    ("actor_lr", [[[5, 1e-3], [10, 1e-4]]], "begin with 0"),
    ("actor_lr", [[[0, 1e-3], [10, 1e-4], [5, 1e-5]]], "must increase"),
    ("actor_lr", [[[0, 1e-3]], [1e-3, 1e-4], []], "two or more pairs"),
    ("actor_lr", [[[0, 1e-3], [math.nan, 1e-4]]], "steps must be numbers"),
    ("critic_lr", [30, math.inf], "at most 1"),
    ("model_config", ["abc", 3], "a dict such as"),
    ("model_config", [{"fcnet_activation": []}], "fcnet_activation=[]: must be one of"),
    ("model_config", [{"fcnet_hiddens": [10**9]}], "list of layer widths"),
    ("policies", [2, "policy_0", ["cat"], {"policy_0": PolicySpec(config={"gamma": 0.5})}], "set"),
    ("policy_mapping_fn", [print], "policy_selection"),
    ("gamma", [math.nan, "0.99", True], "number of at least 0"),
    ("tau", [math.inf, 2], "at most 1"),
    ("distillation_lr", [1e30], "at most 1"),
    ("ensemble_size", [2**32], "at most 1000"),
    ("evaluation_config", [{"explore": True}], "evaluation always acts deterministically"),
    ("evaluation_config", [{"num_envs_per_env_runner": 4}], "cannot differ in evaluation"),
    ("evaluation_config", [{"env_config": 3}], "evaluation_config: env_config=3: must be a dict"),
    ("observation_filter", ["ConcurrentMeanStdFilter", None, True], "must be one of"),
    ("clip_rewards", [True, 1.0], "TransformReward"),
    ("explore", [False], "training explores"),
    ("num_gpus_per_env_runner", [1], "num_gpus_per_learner"),
    ("gym_env_vectorize_mode", ["async"], "take turns"),
    ("log_gradients", [True], "not logged"),
    ("torch_skip_nan_gradients", [True], "grad_clip"),
    ("input_", ["/data"], "not from recorded data"),
    ("output", ["/data"], "not recorded"),
    ("callbacks_class", [int, "x"], "subclass of `ray.rllib.callbacks.callbacks.RLlibCallback`"),
    ("callbacks_on_episode_end", [3, [3]], "a function"),
    ("env_runner_cls", [int], "subclass of `rllib_cikd.rllib.env_runner.CIKDEnvRunner`"),
    ("env", [3, "", int, print], "register_env"),
    ("env_config", ["x", {1: 2}], "a dict"),
    ("custom_resources_per_env_runner", [{"a": "x"}, 3], "a dict"),
    ("stats_cls_lookup", [{}], "which RLlib needs"),
    ("in_evaluation", [True], "evaluation_config"),
]


@pytest.mark.parametrize(("field", "values", "words"), WRONG)
def test_wrong_values(field, values, words):
    for value in values:
        message = outcome(field, value)
        assert message is not None, value
        assert words in message
        assert message.startswith(field) or message.startswith("_" + field)


GOOD = [
    ("seed", [0, 4_000_000_000, None, np.uint32(7)]),
    ("actor_lr", [1, 1e-3, [[0, 1e-3], [1e5, 1e-4]], ((0, 1e-3), (5, 1e-4)), np.float32(0.5)]),
    ("target_entropy", ["auto", None, -3, np.float64(-3)]),
    ("evaluation_interval", [None, 0, 5]),
    ("evaluation_config", [None, {}, {"env_config": {"n": 1}}, {"gamma": 0.99}]),
    ("num_cpus_per_env_runner", [0, 0.5, 2]),
    ("env", ["Pendulum-v1", gym.Env]),
    ("callbacks_class", [RLlibCallback, [RLlibCallback]]),
    ("callbacks_on_train_result", [print, [print, print]]),
    ("env_runner_cls", [CIKDEnvRunner]),
    ("clip_rewards", [None, False]),
    ("rl_module_spec", [None, RLModuleSpec(), RLModuleSpec(module_class=SACModule)]),
    ("learner_config_dict", [{"anything": 1}]),
]


@pytest.mark.parametrize(("field", "values"), GOOD)
def test_good_values(field, values):
    for value in values:
        assert outcome(field, value) is None, value


def test_numbers_of_numpy_become_pythons():
    config = CIKDConfig().training(ensemble_size=np.int64(2), gamma=np.float32(0.5))
    config.training(reset_students=np.bool_(True)).validate()
    assert type(config.ensemble_size) is int
    assert type(config.gamma) is float
    assert config.reset_students is True


@pytest.mark.parametrize("name", sorted(PER_MEMBER))
def test_overrides_by_member_are_checked_as_the_settings_are(name):
    config = CIKDConfig().rl_module(
        algorithm_config_overrides_per_module={"policy_1": {name: "wrong"}}
    )
    with pytest.raises(ValueError, match=rf"policy_1: {name}='wrong': must be"):
        config.validate()


def test_overrides_for_evaluation_are_honoured_settings():
    assert set(EVALUATION_OVERRIDES) <= set(HONOURED)


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("method", "argument", "words"),
    [
        ("training", "ensmble_size", "Did you mean 'ensemble_size'?"),
        ("training", "distilation_lr", "Did you mean 'distillation_lr'?"),
        ("training", "num_env_runners", "It is one of env_runners()."),
        ("training", "buffer_size", "Here it is `replay_buffer_config: {capacity: …}`."),
        ("training", "critic_layer_norm", "`model_config: {critic_layer_norm: true}`"),
        ("training", "zzz", "No argument of it has a name like that."),
        ("env_runners", "num_rollout_workers", "Here it is `num_env_runners`."),
        ("env_runners", "num_envs_per_env_runer", "Did you mean 'num_envs_per_env_runner'?"),
        ("evaluation", "evaluation_intervall", "Did you mean 'evaluation_interval'?"),
        ("environment", "env_confg", "Did you mean 'env_config'?"),
        ("rl_module", "model_confg", "Did you mean 'model_config'?"),
        ("callbacks", "on_episode_ends", "Did you mean 'on_episode_end'?"),
    ],
)
def test_an_unknown_argument_is_answered_with_the_right_one(method, argument, words):
    with pytest.raises(TypeError, match=re.escape(words)) as error:
        getattr(CIKDConfig(), method)(**{argument: 1})
    assert str(error.value).startswith(f"{method}() has no argument {argument!r}.")


def test_an_attribute_with_a_typo_is_noticed():
    config = CIKDConfig()
    config.ensmble_size = 5
    with pytest.raises(ValueError, match=r"'ensmble_size'. Did you mean 'ensemble_size'\?"):
        config.validate()


def test_fields_of_a_subclass_are_its_own():
    class Mine(CIKDConfig):
        def __init__(self, algo_class=None):
            super().__init__(algo_class)
            self.my_field = 1

    config = Mine().update_from_dict({"my_field": "anything"})
    config.validate()
    assert config.my_field == "anything"


def test_a_config_that_is_no_dict():
    with pytest.raises(ValueError, match="must be a dict of settings"):
        CIKDConfig().update_from_dict([1])


def test_search_spaces_are_arguments():
    """They are checked when Tune has drawn from them."""
    space = tune.loguniform(1e-5, 1e-3)
    config = CIKDConfig().environment("Pendulum-v1").training(actor_lr=space)
    assert isinstance(config.to_dict()["actor_lr"], type(space))
    with pytest.raises(ValueError, match="actor_lr"):
        config.validate()


# ------------------------------------------------------------------ together

COMBINATIONS = [
    ({"reset_students": True, "ensemble_size": 1}, "reset_students=True: needs ensemble_size"),
    ({"critic_targets": "shared", "ensemble_size": 1}, "critic_targets='shared': needs ensemble"),
    ({"n_step": 60}, "n_step=60: must be at most rollout_fragment_length (50)"),
    ({"sample_while_learning": True}, "needs num_env_runners of at least 1"),
    (
        {
            "num_env_runners": 1,
            "merge_env_runner_states": False,
            "broadcast_env_runner_states": False,
        },
        "broadcast_env_runner_states=False: cannot go with merge_env_runner_states=False",
    ),
    ({"local_gpu_idx": 1}, "needs num_gpus_per_learner above 0"),
    ({"local_gpu_idx": 1, "num_gpus_per_learner": 1, "num_learners": 1}, "num_learners=0"),
    (
        {
            "rollout_fragment_length": 1000,
            "num_envs_per_env_runner": 4,
            "num_env_runners": 3,
            "replay_buffer_config": {"capacity": 11_000},
        },
        "'capacity' must be at least 12000, so that it holds a round of sampling",
    ),
    ({"lr": 1e-3}, "lr=0.001: is not supported by CIKD: use `actor_lr`"),
]


@pytest.mark.parametrize(("values", "words"), COMBINATIONS)
def test_bad_combinations(values, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        CIKDConfig().update_from_dict(values).validate()


def test_good_combinations():
    for values in (
        {"ensemble_size": 1, "knowledge_sharing": "extra_updates", "assess_distillation": True},
        # A study gives it to all of its variants, also to those without phases.
        {"ensemble_size": 1, "knowledge_sharing": "none", "assess_distillation": True},
        {"reset_students": True},
        {
            "critic_targets": "shared",
            "algorithm_config_overrides_per_module": {"policy_0": {}, "policy_1": {"tau": 0.005}},
        },
        {"local_gpu_idx": 1, "num_gpus_per_learner": 1},
        {"n_step": 50},
        {"num_learners": 4, "num_gpus_per_learner": 1},
        {"num_learners": 2, "random_steps": 0, "num_steps_sampled_before_learning_starts": 1},
        {"sample_while_learning": True, "num_env_runners": 1},
        {"merge_env_runner_states": False, "num_env_runners": 1},
        {"broadcast_env_runner_states": False, "num_env_runners": 1},
    ):
        CIKDConfig().update_from_dict(values).validate()
