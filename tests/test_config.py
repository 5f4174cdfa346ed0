"""`CIKDConfig`: defaults, and the ways in which settings are given."""

from __future__ import annotations

import pytest
import yaml
from helpers import plain_values

from rllib_cikd import CIKDConfig

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


def test_overrides_per_member_may_be_rllibs_own_form():
    config = CIKDConfig().rl_module(
        algorithm_config_overrides_per_module={
            "policy_1": CIKDConfig.overrides(actor_lr=1e-4, gamma=0.9)
        }
    )
    config.validate()
    assert config.get_config_for_module("policy_1").actor_lr == 1e-4
    assert config.get_config_for_module("policy_0").actor_lr == 3e-4


def test_unknown_argument_of_training_is_rejected():
    with pytest.raises(TypeError, match="ensmble_size"):
        CIKDConfig().training(ensmble_size=5)


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


def test_validate_is_idempotent():
    config = CIKDConfig().environment("Pendulum-v1").training(ensemble_size=4)
    config.validate()
    once = plain_values(config)
    config.validate()
    assert plain_values(config) == once
    copy = config.copy(copy_frozen=False)
    copy.validate()
    assert plain_values(copy) == once


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
