"""`CIKDConfig`: defaults, every check's words, and the ways in which configs are made."""

from __future__ import annotations

import re

import envs
import gymnasium as gym
import numpy as np
import pytest
import yaml
from gymnasium.spaces import Box, Discrete
from helpers import small_config
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.core.rl_module import MultiRLModuleSpec, RLModuleSpec
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.multi_agent_env import MultiAgentEnv, make_multi_agent
from ray.tune.registry import get_trainable_cls, register_env

from rllib_cikd import CIKD, CIKDConfig

DEFAULTS = {
    # The ensemble.
    "ensemble_size": 3,
    "policy_selection": "uniform",
    "return_window": 5,
    "distillation_interval": 5000,
    "knowledge_sharing": "distillation",
    "distillation_targets": "policy_and_critic",
    "teacher_election": "best",
    "reset_students": False,
    "distillation_lr": 1e-3,
    "distillation_batch_size": 256,
    "distillation_epochs": None,
    "distillation_updates": 300,
    "assess_distillation": False,
    "random_steps": 10_000,
    # SAC, as published.
    "actor_lr": 3e-4,
    "critic_lr": 3e-4,
    "alpha_lr": 3e-4,
    "lr": None,
    "gamma": 0.99,
    "tau": 0.005,
    "n_step": 1,
    "initial_alpha": 1.0,
    "target_entropy": "auto",
    "train_batch_size_per_learner": 256,
    "training_intensity": None,
    "grad_clip": None,
    "store_buffer_in_checkpoints": True,
}


def config_with(**settings) -> CIKDConfig:
    """A config with attributes set without any check, as Tune sets them."""
    config = CIKDConfig().environment("Pendulum-v1")
    for name, value in settings.items():
        setattr(config, name, value)
    return config


@pytest.mark.parametrize("field", DEFAULTS)
def test_default(field):
    assert getattr(CIKDConfig(), field) == DEFAULTS[field]


def test_defaults_that_follow_from_others():
    config = CIKDConfig()
    config.validate()
    assert config.learning_starts_at == config.random_steps
    assert config.updates_per_step == 1.0
    assert config.replay_buffer_config["capacity"] == 1_000_000
    assert config.model_config["fcnet_hiddens"] == [256, 256]
    assert config.model_config["fcnet_activation"] == "relu"
    config.training(num_steps_sampled_before_learning_starts=500, training_intensity=512)
    assert config.learning_starts_at == 500
    assert config.updates_per_step == 2.0


@pytest.mark.parametrize("field", [name for name in DEFAULTS if name != "lr"])
def test_every_field_is_an_argument_of_training_and_a_plain_key(field):
    value = {
        "policy_selection": "softmax",
        "knowledge_sharing": "none",
        "distillation_targets": "critic",
        "teacher_election": "worst",
        "target_entropy": -2.5,
        "reset_students": True,
        "assess_distillation": True,
        "store_buffer_in_checkpoints": False,
        "gamma": 0.5,
    }.get(field, 2)
    assert getattr(CIKDConfig().training(**{field: value}), field) == value
    assert getattr(CIKDConfig().update_from_dict({field: value}), field) == value


#: Field, bad value, and words the message must have besides the field and the value.
BAD_VALUES = [
    ("ensemble_size", 0, "integer of at least 1"),
    ("ensemble_size", 2.0, "integer of at least 1 (write 2)"),
    ("ensemble_size", True, "integer of at least 1"),
    ("ensemble_size", "3", "integer of at least 1"),
    ("policy_selection", "greedy", "'epsilon_greedy'"),
    ("return_window", 0, "integer of at least 1"),
    ("distillation_interval", 0, "integer of at least 1"),
    ("distillation_interval", 1e3, "integer of at least 1"),
    ("knowledge_sharing", "soft_copy", "'hard_copy'"),
    ("knowledge_sharing", None, "'none'"),
    ("distillation_targets", "actor", "'policy_and_critic'"),
    ("teacher_election", "median", "'worst'"),
    ("reset_students", 1, "True or False"),
    ("distillation_lr", 0.0, "above 0"),
    ("distillation_lr", "1e-3", "1.0e-3"),
    ("distillation_lr", float("nan"), "above 0"),
    ("distillation_batch_size", 0, "integer of at least 1"),
    ("distillation_epochs", 0, "at least 1, or None"),
    ("distillation_updates", 0, "integer of at least 1"),
    ("distillation_updates", None, "integer of at least 1"),
    ("assess_distillation", "yes", "True or False"),
    ("random_steps", -1, "integer of at least 0"),
    ("num_steps_sampled_before_learning_starts", -1, "at least 0, or None"),
    ("train_batch_size_per_learner", 0, "integer of at least 1"),
    ("n_step", 0, "integer of at least 1"),
    ("n_step", (2, 5), "integer of at least 1"),
    ("evaluation_duration", 0, "integer of at least 1"),
    ("evaluation_duration", "auto", "integer of at least 1"),
    ("store_buffer_in_checkpoints", None, "True or False"),
    ("training_intensity", 0, "above 0, or None"),
    ("initial_alpha", 0.0, "above 0"),
    ("initial_alpha", "auto", "above 0"),
    ("rollout_fragment_length", "auto", "integer of at least 1"),
    ("rollout_fragment_length", 0, "integer of at least 1"),
    ("actor_lr", 0.0, "above 0"),
    ("critic_lr", "3e-4", "3e-4"),
    ("alpha_lr", None, "above 0"),
    ("gamma", 1.5, "at most 1"),
    ("gamma", -0.1, "at least 0"),
    ("tau", 0.0, "above 0"),
    ("tau", 2.0, "at most 1"),
    ("grad_clip", 0.0, "above 0"),
    ("target_entropy", "high", "a number"),
    ("num_learners", 2, "set 0 or 1"),
    ("framework_str", "tf2", "'torch'"),
    ("replay_buffer_config", {"type": "EpisodeReplayBuffer"}, "capacity"),
    ("replay_buffer_config", {"type": "EpisodeReplayBuffer", "capacity": 1e6}, "write 1000000"),
    ("replay_buffer_config", {"type": "PrioritizedEpisodeReplayBuffer", "capacity": 10**6}, "only"),
    (
        "replay_buffer_config",
        {"type": "EpisodeReplayBuffer", "capacity": 10**6, "alpha": 0.6},
        "only {'capacity': N}",
    ),
    # RLlib's settings that would do nothing here.
    ("train_batch_size", 32, "train_batch_size_per_learner"),
    ("num_gpus", 1, "num_gpus_per_learner"),
    ("twin_q", False, "twin critics"),
    ("target_network_update_freq", 100, "tau"),
    ("q_model_config", {"fcnet_hiddens": [8]}, "model_config"),
    ("policy_model_config", {"fcnet_hiddens": [8]}, "model_config"),
    ("batch_mode", "complete_episodes", "truncate_episodes"),
    ("normalize_actions", False, "action bounds"),
    ("observation_fn", print, "ObservationWrapper"),
    ("evaluation_duration_unit", "timesteps", "episodes of every member"),
    ("evaluation_parallel_to_training", True, "between training iterations"),
    ("_env_to_module_connector", lambda env, spaces, device: [], "ObservationWrapper"),
    ("count_steps_by", "agent_steps", "environment steps"),
    ("num_aggregator_actors_per_learner", 1, "learner"),
]


@pytest.mark.parametrize(("field", "value", "words"), BAD_VALUES)
def test_bad_value_names_field_value_and_remedy(field, value, words):
    with pytest.raises(ValueError, match=f"^{field}=") as error:
        config_with(**{field: value}).validate()
    assert repr(value) in str(error.value)
    assert words in str(error.value)


#: Settings that are fine one by one, and words that the message must have.
BAD_COMBINATIONS = [
    (
        {"reset_students": True, "knowledge_sharing": "hard_copy"},
        ("reset_students=True", "'hard_copy'", "knowledge_sharing='distillation'"),
    ),
    (
        {"reset_students": True, "knowledge_sharing": "none"},
        ("reset_students=True", "'none'", "knowledge_sharing='distillation'"),
    ),
    (
        {"replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 5000}},
        ("capacity", "10000", "num_steps_sampled_before_learning_starts"),
    ),
    (
        {
            "random_steps": 10,
            "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 100},
        },
        ("capacity", "256", "minibatch"),
    ),
    ({"lr": 1e-3}, ("lr", "actor_lr")),
]


@pytest.mark.parametrize(("settings", "words"), BAD_COMBINATIONS)
def test_bad_combination(settings, words):
    with pytest.raises(ValueError, match=re.escape(words[0])) as error:
        config_with(**settings).validate()
    assert all(word in str(error.value) for word in words), error.value


def test_policies_of_the_user_are_rejected():
    config = CIKDConfig().multi_agent(policies={"cat", "dog"})
    with pytest.raises(ValueError, match="set `ensemble_size`"):
        config.validate()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"policy_3": {"actor_lr": 1e-4}}, "'policy_3' is no member"),
        ({"policy_1": {"n_step": 3}}, r"\['n_step'\] cannot differ by member"),
        ({"policy_1": {"actor_lr": -1.0}}, "actor_lr=-1.0: must be a number above 0"),
        ({"policy_1": {"gamma": 2}}, "gamma=2: must be a number"),
    ],
)
def test_bad_overrides_per_member(overrides, words):
    config = CIKDConfig().rl_module(algorithm_config_overrides_per_module=overrides)
    with pytest.raises(ValueError, match=words):
        config.validate()


def test_overrides_per_member_may_be_rllibs_own_form():
    config = CIKDConfig().rl_module(
        algorithm_config_overrides_per_module={
            "policy_1": CIKDConfig.overrides(actor_lr=1e-4, gamma=0.9)
        }
    )
    config.validate()
    assert config.get_config_for_module("policy_1").actor_lr == 1e-4
    assert config.get_config_for_module("policy_0").actor_lr == 3e-4


@pytest.mark.parametrize(
    ("model_config", "words"),
    [
        ({"fcnet_hidden": [8]}, "fcnet_hidden.* not supported"),
        ({"use_lstm": True}, "use_lstm.* not supported"),
        (DefaultModelConfig(use_lstm=True), "use_lstm.* not supported"),
        ({"fcnet_hiddens": 256}, "list of layer widths"),
        ({"fcnet_hiddens": [0]}, "list of layer widths"),
        ({"fcnet_activation": "gelu"}, r"must be one of \['relu', 'tanh', 'elu'\]"),
    ],
)
def test_bad_model_config(model_config, words):
    config = CIKDConfig().rl_module(model_config=model_config)
    with pytest.raises(ValueError, match=words):
        config.validate()


def test_bad_module_specs():
    foreign = CIKDConfig().rl_module(
        rl_module_spec=RLModuleSpec(
            module_class=DQNConfig().get_default_rl_module_spec().module_class
        )
    )
    with pytest.raises(ValueError, match="members must be `SACModule`s"):
        foreign.validate()
    strangers = CIKDConfig().rl_module(
        rl_module_spec=MultiRLModuleSpec(rl_module_specs={"policy_7": RLModuleSpec()})
    )
    with pytest.raises(ValueError, match=r"\['policy_7'\] are no members"):
        strangers.validate()


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("ensmble_size", "'ensemble_size'"),
        ("distilation_interval", "'distillation_interval'"),
        ("evaluation_intervall", "'evaluation_interval'"),
        ("random_step", "'random_steps'"),
        ("learning_starts", "num_steps_sampled_before_learning_starts"),
        ("buffer_size", "replay_buffer_config: {capacity"),
        ("timesteps_per_iteration", "min_sample_timesteps_per_iteration"),
        ("batch_size", "train_batch_size_per_learner"),
        ("fcnet_hiddens", "model_config: {fcnet_hiddens"),
    ],
)
def test_unknown_key_is_rejected_with_a_suggestion(key, suggestion):
    with pytest.raises(ValueError, match="Unknown config key") as error:
        CIKDConfig().update_from_dict({"env": "Pendulum-v1", key: 5})
    assert repr(key) in str(error.value)
    assert suggestion in str(error.value)


def test_unknown_argument_of_training_is_rejected():
    with pytest.raises(TypeError, match="ensmble_size"):
        CIKDConfig().training(ensmble_size=5)


def test_keys_of_other_rllib_sections_are_known():
    config = CIKDConfig().update_from_dict(
        {
            "env": "Pendulum-v1",
            "env_config": {"g": 9.0},
            "num_env_runners": 1,
            "num_envs_per_env_runner": 2,
            "num_learners": 1,
            "num_gpus_per_learner": 0,
            "evaluation_interval": 5,
            "evaluation_num_env_runners": 1,
            "model_config": {"fcnet_hiddens": [32]},
            "min_sample_timesteps_per_iteration": 500,
            "replay_buffer_config": {"capacity": 50_000},
            "framework": "torch",
            "seed": 3,
            "log_level": "ERROR",
        }
    )
    config.validate()
    assert config.env_config == {"g": 9.0}
    assert config.model_config["fcnet_hiddens"] == [32]
    assert config.replay_buffer_config["capacity"] == 50_000
    assert (config.num_env_runners, config.num_learners, config.seed) == (1, 1, 3)
    assert (config.evaluation_interval, config.evaluation_num_env_runners) == (5, 1)


def test_keys_as_yaml_gives_them():
    text = """
        ensemble_size: 2
        actor_lr: 1.0e-4
        distillation_lr: 0.01
        train_batch_size_per_learner: 64
        random_steps: 100
        replay_buffer_config: {capacity: 1000}
        model_config: {fcnet_hiddens: [32, 32]}
    """
    config = CIKDConfig().update_from_dict(yaml.safe_load(text))
    config.validate()
    assert config.train_batch_size_per_learner == 64
    assert list(config.policies) == ["policy_0", "policy_1"]


def test_a_step_size_that_yaml_reads_as_text_is_rejected():
    config = CIKDConfig().update_from_dict(yaml.safe_load("actor_lr: 1e-4"))
    with pytest.raises(ValueError, match="actor_lr='1e-4'"):
        config.validate()


def comparable(config: AlgorithmConfig) -> dict:
    """The config's values without functions and classes."""
    return {
        key: repr(value)
        for key, value in vars(config).items()
        if "0x" not in repr(value) and key != "policies"
    } | {"policies": list(config.policies)}


def test_validate_is_idempotent():
    config = CIKDConfig().environment("Pendulum-v1").training(ensemble_size=4)
    config.validate()
    once = comparable(config)
    config.validate()
    assert comparable(config) == once
    copy = config.copy(copy_frozen=False)
    copy.validate()
    assert comparable(copy) == once


def test_ensemble_size_may_change_on_a_validated_copy():
    config = CIKDConfig().environment("Pendulum-v1").training(ensemble_size=12)
    config.validate()
    assert list(config.policies) == [f"policy_{k}" for k in range(12)]
    smaller = config.copy(copy_frozen=False).training(ensemble_size=2)
    smaller.validate()
    assert list(smaller.policies) == ["policy_0", "policy_1"]
    assert len(config.policies) == 12
    larger = smaller.copy(copy_frozen=False).training(ensemble_size=3)
    larger.validate()
    assert list(larger.policies) == ["policy_0", "policy_1", "policy_2"]


def test_single_member_is_still_an_ensemble():
    config = CIKDConfig().environment("Pendulum-v1").training(ensemble_size=1)
    config.validate()
    assert list(config.policies) == ["policy_0"]
    assert config.is_multi_agent


def test_the_algorithm_is_registered_by_name():
    assert get_trainable_cls("CIKD") is CIKD
    assert isinstance(CIKD.get_default_config(), CIKDConfig)


def test_three_ways_to_construct_agree(build, tmp_path):
    config = small_config(envs.DriftEnv, ensemble_size=2, actor_lr=1e-3)
    built = build(config)
    path = built.save_to_path(str(tmp_path / "checkpoint"))
    from_dict = CIKD(
        config={
            "env": envs.DriftEnv,
            "ensemble_size": 2,
            "actor_lr": 1e-3,
            "random_steps": 50,
            "distillation_interval": 100,
            "distillation_updates": 3,
            "distillation_batch_size": 8,
            "replay_buffer_config": {"capacity": 5000},
            "train_batch_size_per_learner": 8,
            "model_config": {"fcnet_hiddens": [16, 16]},
            "min_sample_timesteps_per_iteration": 100,
            "evaluation_duration": 3,
            "delay_between_env_runner_restarts_s": 1.0,
            "seed": 0,
            "log_level": "ERROR",
            "log_sys_usage": False,
        }
    )
    from_whole_dict = CIKD(config=config.to_dict())
    restored = CIKD.from_checkpoint(path)
    expected = comparable(built.config)
    for other in (from_dict, from_whole_dict, restored):
        assert isinstance(other.config, CIKDConfig)
        assert comparable(other.config) | {"class": ""} == expected | {"class": ""}
        result = other.train()
        assert result["num_env_steps_sampled_lifetime"] == 100
        assert set(result["ensemble"]["return_mean"]) == {"policy_0", "policy_1"}
        other.stop()


class TwoAgents(MultiAgentEnv):
    def __init__(self, config=None):
        super().__init__()
        self.agents = self.possible_agents = ["a", "b"]
        box = Box(-1.0, 1.0, (2,), np.float32)
        self.observation_spaces = {"a": box, "b": box}
        self.action_spaces = {"a": box, "b": box}


BOX = Box(-1.0, 1.0, (3,), np.float32)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "words"),
    [
        (BOX, Discrete(4), "Discrete.*continuous `Box` actions"),
        (Box(0, 255, (8, 8, 3), np.uint8), BOX, "images are not supported"),
        (BOX, Box(-np.inf, np.inf, (2,), np.float32), "unbounded action space.*TransformAction"),
    ],
)
def test_unsupported_spaces(ray_cluster, observation_space, action_space, words):
    config = small_config(envs.SpacesEnv).environment(
        env_config={"observation_space": observation_space, "action_space": action_space}
    )
    with pytest.raises(ValueError, match=words):
        config.build_algo()


@pytest.mark.parametrize("env", [TwoAgents, make_multi_agent("Pendulum-v1")])
def test_multi_agent_env_is_rejected(ray_cluster, env):
    with pytest.raises(ValueError, match="not a single-agent"):
        small_config(env).build_algo()


def test_unknown_env_is_rejected(ray_cluster):
    with pytest.raises(ValueError, match="'Pendulumm-v1' is neither a Gymnasium id nor a name"):
        small_config("Pendulumm-v1").build_algo()


def test_missing_env_is_rejected(ray_cluster):
    with pytest.raises(ValueError, match="env"):
        small_config(None).build_algo()


def test_env_that_is_no_gymnasium_env_is_rejected(ray_cluster):
    register_env("a-list", lambda context: [])
    with pytest.raises(ValueError, match="makes a list, not a single-agent"):
        small_config("a-list").build_algo()


def test_hard_copy_between_networks_of_different_shape_is_rejected(ray_cluster):
    config = small_config(ensemble_size=2, knowledge_sharing="hard_copy").rl_module(
        rl_module_spec=MultiRLModuleSpec(
            rl_module_specs={
                "policy_0": RLModuleSpec(model_config={"fcnet_hiddens": [8]}),
                "policy_1": RLModuleSpec(model_config={"fcnet_hiddens": [16]}),
            }
        )
    )
    with pytest.raises(ValueError, match=r"hard_copy.*differ.*fcnet_hiddens"):
        config.build_algo()


def test_real_task_is_accepted_as_it_is(build):
    config = CIKDConfig().environment("HalfCheetah-v5").debugging(log_level="ERROR")
    algo = build(config)
    member = algo.get_module("policy_2")
    assert isinstance(gym.make("HalfCheetah-v5").action_space, Box)
    assert [layer.out_features for layer in member.policy if hasattr(layer, "weight")] == [
        256,
        256,
        12,
    ]
