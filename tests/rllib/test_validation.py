"""Every check's words: the field, its value and the remedy, before anything is built."""

from __future__ import annotations

import re

import pytest
import yaml
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.core.rl_module import MultiRLModule, MultiRLModuleSpec, RLModuleSpec
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_cikd import CIKDConfig


def config_with(**settings) -> CIKDConfig:
    """A config with attributes set without any check, as Tune sets them."""
    config = CIKDConfig().environment("Pendulum-v1")
    for name, value in settings.items():
        setattr(config, name, value)
    return config


#: Field, bad value, and words the message must have besides the field and the value.
BAD_VALUES = [
    ("ensemble_size", 0, "integer of at least 1"),
    ("ensemble_size", 2.0, "integer of at least 1 (write 2)"),
    ("ensemble_size", True, "integer of at least 1"),
    ("ensemble_size", "3", "integer of at least 1"),
    ("policy_selection", "greedy", "'epsilon_greedy'"),
    ("return_window", 0, "integer of at least 1"),
    ("return_horizon", 0, "integer of at least 1, or None"),
    ("election_episodes", 0, "integer of at least 1"),
    ("distillation_interval", 0, "integer of at least 1"),
    ("distillation_interval", 1e3, "integer of at least 1"),
    ("knowledge_sharing", "soft_copy", "'hard_copy'"),
    ("knowledge_sharing", None, "'none'"),
    ("distillation_targets", "actor", "'policy_and_critic'"),
    ("teacher_election", "median", "'worst'"),
    ("reset_students", 1, "True or False"),
    ("distillation_filter", "value", "'advantage'"),
    ("renew_target_critics", "no", "True or False"),
    ("critic_targets", "all", "'shared'"),
    ("distillation_lr", 0.0, "above 0"),
    ("distillation_lr", "1e-3", "1.0e-3"),
    ("distillation_lr", float("nan"), "above 0"),
    ("distillation_batch_size", 0, "integer of at least 1"),
    ("distillation_epochs", 0, "at least 1, or None"),
    ("distillation_updates", 0, "integer of at least 1"),
    ("distillation_updates", None, "integer of at least 1"),
    ("assess_distillation", "yes", "True or False"),
    ("sample_while_learning", 1, "True or False"),
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
    ("num_learners", -1, "integer of at least 0"),
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
        {"distillation_filter": "advantage", "knowledge_sharing": "hard_copy"},
        ("distillation_filter='advantage'", "knowledge_sharing='distillation'"),
    ),
    (
        {"distillation_filter": "advantage", "distillation_targets": "critic"},
        ("distillation_filter='advantage'", "policies among the distillation_targets"),
    ),
    (
        {"renew_target_critics": True, "distillation_targets": "policy"},
        ("renew_target_critics=True", "critics among the distillation_targets"),
    ),
    (
        {"renew_target_critics": True, "ensemble_size": 1},
        ("renew_target_critics=True", "ensemble_size above 1"),
    ),
    (
        {
            "critic_targets": "shared",
            "algorithm_config_overrides_per_module": {"policy_1": {"gamma": 0.9}},
        },
        ("critic_targets='shared'", "algorithm_config_overrides_per_module"),
    ),
    (
        {"reset_students": True, "knowledge_sharing": "hard_copy"},
        ("reset_students=True", "'hard_copy'", "knowledge_sharing='distillation'"),
    ),
    (
        {"reset_students": True, "knowledge_sharing": "none"},
        ("reset_students=True", "'none'", "knowledge_sharing='distillation'"),
    ),
    (
        {"election_episodes": 2},
        ("election_episodes=2", "teacher_election='evaluation'"),
    ),
    (
        {"teacher_election": "evaluation", "return_horizon": 5000},
        ("return_horizon=5000", "teacher_election='evaluation'", "Leave one of them out"),
    ),
    (
        {"reset_students": True, "distillation_filter": "advantage"},
        ("distillation_filter='advantage'", "reset_students=True", "Leave out one"),
    ),
    *(
        (
            {"reset_students": True, "distillation_targets": targets},
            ("reset_students=True", f"'{targets}'", "distillation_targets='policy_and_critic'"),
        )
        for targets in ("policy", "critic")
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
    (
        {
            "num_learners": 4,
            "random_steps": 10,
            "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 1000},
        },
        ("capacity", "1024", "minibatch", "of each learner"),
    ),
    (
        {
            "num_learners": 3,
            "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 10**6},
        },
        ("num_learners=3", "an equal part", "{'capacity': 1000002}"),
    ),
    ({"num_learners": 2, "n_step": 3}, ("num_learners=2", "n_step=3 needs num_learners of 0 or 1")),
    (
        {"num_learners": 2, "num_gpus_per_learner": 0.5},
        ("num_learners=2", "num_gpus_per_learner=0.5", "0 or 1"),
    ),
    (
        {"num_learners": 5, "random_steps": 3},
        ("num_learners=5", "`random_steps`", "at least 4"),
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


@pytest.mark.parametrize(
    ("model_config", "words"),
    [
        ({"fcnet_hidden": [8]}, "fcnet_hidden.* not supported"),
        ({"use_lstm": True}, "use_lstm.* not supported"),
        (DefaultModelConfig(use_lstm=True), "use_lstm.* not supported"),
        ({"fcnet_hiddens": 256}, "list of layer widths"),
        ({"fcnet_hiddens": [0]}, "list of layer widths"),
        ({"fcnet_activation": "gelu"}, r"must be one of \['relu', 'tanh', 'elu'\]"),
        ({"critic_layer_norm": 1}, "must be True or False"),
        ({"batch_norm": "yes"}, "batch_norm='yes': must be True or False"),
        ({"batch_norm": True, "critic_layer_norm": True}, "cannot go with batch_norm"),
        ({"initial_alpha": 0.5}, "initial_alpha=0.5: is set with `initial_alpha` of `.training"),
        ({"normalize_observations": True}, "normalize_observations=True: .*observation_filter"),
    ],
)
def test_bad_model_config(model_config, words):
    config = CIKDConfig().rl_module(model_config=model_config)
    with pytest.raises(ValueError, match=words):
        config.validate()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"critic_targets": "shared"}, "critic_targets='shared': .*no target networks"),
        ({"renew_target_critics": True}, "renew_target_critics=True: .*no target networks"),
        ({"num_learners": 2}, "num_learners=2: .*use one"),
        ({"tau": 0.01}, "tau=0.01: .*no target networks"),
        ({"train_batch_size_per_learner": 1}, "must be at least 2"),
        ({"policy_delay": 0}, "policy_delay=0: must be"),
        ({"adam_beta1": 1.0}, "adam_beta1=1.0: must be"),
    ],
)
def test_what_does_not_go_with_batch_normalisation(settings, words):
    config = CIKDConfig().rl_module(model_config={"batch_norm": True}).update_from_dict(settings)
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


class SharedEncoder(MultiRLModule):
    """Of a user who wants the members to share networks."""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_config": {"fcnet_hiddens": [8]}}, "`model_config` of a `MultiRLModuleSpec`"),
        ({"multi_rl_module_class": SharedEncoder}, "`multi_rl_module_class` could hold"),
    ],
)
def test_settings_of_all_members_together(settings, words):
    spec = MultiRLModuleSpec(rl_module_specs={"policy_1": RLModuleSpec()}, **settings)
    with pytest.raises(ValueError, match=r"^rl_module_spec=") as error:
        CIKDConfig().rl_module(rl_module_spec=spec).validate()
    assert words in str(error.value)


@pytest.mark.parametrize(
    "spec",
    [
        RLModuleSpec(load_state_path="/a"),
        MultiRLModuleSpec(rl_module_specs={"policy_1": RLModuleSpec(load_state_path="/a")}),
        MultiRLModuleSpec(rl_module_specs={}, load_state_path="/a"),
    ],
    ids=["all", "one", "together"],
)
def test_members_that_normalize_are_not_loaded_alone(spec):
    config = CIKDConfig().rl_module(rl_module_spec=spec)
    config.validate()
    config.env_runners(observation_filter="MeanStdFilter")
    words = "`load_state_path` cannot go with observation_filter='MeanStdFilter'"
    with pytest.raises(ValueError, match=words) as error:
        config.validate()
    assert "\n" not in str(error.value)


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
        ("critic_layer_norm", "model_config: {critic_layer_norm"),
    ],
)
def test_unknown_key_is_rejected_with_a_suggestion(key, suggestion):
    with pytest.raises(ValueError, match="Unknown config key") as error:
        CIKDConfig().update_from_dict({"env": "Pendulum-v1", key: 5})
    assert repr(key) in str(error.value)
    assert suggestion in str(error.value)


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


def test_a_step_size_that_yaml_reads_as_text_is_rejected():
    config = CIKDConfig().update_from_dict(yaml.safe_load("actor_lr: 1e-4"))
    with pytest.raises(ValueError, match="actor_lr='1e-4'"):
        config.validate()
