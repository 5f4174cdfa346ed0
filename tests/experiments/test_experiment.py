"""What a file and options over it resolve to, and which words an error has."""

from pathlib import Path

import pytest
from ray.rllib.algorithms.ppo import PPO
from ray.tune.search.variant_generator import generate_variants

from rllib_cikd import CIKD, CIKDConfig
from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.experiment import (
    DEFAULT_CHECKPOINT_FREQ,
    DEFAULT_CHECKPOINTS_KEPT,
    load_experiments,
)

TUNED_EXAMPLES = sorted((Path(__file__).parents[2] / "tuned_examples").glob("*.yaml"))


def test_minimal_yaml(load, minimal):
    (experiment,) = load(minimal)
    assert experiment.name == "minimal"
    assert experiment.algorithm is CIKD
    assert experiment.param_space == {"env": "Pendulum-v1", "ensemble_size": 2, "actor_lr": 1e-4}
    assert experiment.trial_configs == [experiment.param_space]
    assert experiment.stop == {"num_env_steps_sampled_lifetime": 1000}
    assert experiment.num_trials == 1
    assert experiment.checkpoint_config.checkpoint_frequency == DEFAULT_CHECKPOINT_FREQ
    assert experiment.checkpoint_config.num_to_keep == DEFAULT_CHECKPOINTS_KEPT
    assert experiment.checkpoint_config.checkpoint_at_end is True


def test_options_are_laid_over_the_file(load, minimal):
    text = minimal + "        replay_buffer_config: {capacity: 20000}\n    "
    (experiment,) = load(
        text,
        config={"ensemble_size": 4, "model_config": {"fcnet_hiddens": [8]}},
        stop={"training_iteration": 3},
        num_samples=2,
        checkpoint_freq=7,
        checkpoint_at_end=False,
    )
    assert experiment.param_space["ensemble_size"] == 4
    assert experiment.param_space["actor_lr"] == 1e-4
    assert experiment.param_space["replay_buffer_config"] == {"capacity": 20000}
    assert experiment.stop == {"num_env_steps_sampled_lifetime": 1000, "training_iteration": 3}
    assert experiment.num_trials == 2
    assert experiment.checkpoint_config.checkpoint_frequency == 7
    assert experiment.checkpoint_config.checkpoint_at_end is False


def test_nested_options_and_grids(load, minimal):
    text = minimal.replace("ensemble_size: 2", "ensemble_size: {grid_search: [1, 2]}")
    text += "        env_config: {g: 9.81}\n"
    (experiment,) = load(text, config={"env_config": {"render_mode": "rgb_array"}})
    assert experiment.param_space["env_config"] == {"g": 9.81, "render_mode": "rgb_array"}
    assert [config["ensemble_size"] for config in experiment.trial_configs] == [1, 2]
    (experiment,) = load(text, config={"ensemble_size": {"grid_search": [3]}})
    assert [config["ensemble_size"] for config in experiment.trial_configs] == [3]
    (experiment,) = load(text, config={"ensemble_size": 5})
    assert [config["ensemble_size"] for config in experiment.trial_configs] == [5]


def test_every_trial_of_a_grid_is_checked(load, minimal):
    with pytest.raises(CommandError, match="ensemble_size=0"):
        load(minimal.replace("ensemble_size: 2", "ensemble_size: {grid_search: [2, 0]}"))


def test_several_experiments(load, minimal):
    first, second = load(minimal + minimal.replace("minimal:", "other:"))
    assert (first.name, second.name) == ("minimal", "other")


def test_other_algorithms(load):
    (experiment,) = load(
        """
        cartpole:
          run: PPO
          env: CartPole-v1
          stop: {episode_reward_mean: 150}
          config: {num_workers: 1, lambda: 0.9, train_batch_size_per_learner: 500}
        """
    )
    assert experiment.algorithm is PPO
    assert experiment.stop == {"env_runners/episode_return_mean": 150}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("actor_lr: 1e-4", "env: HalfCheetah-v5", "'Pendulum-v1'.*'HalfCheetah-v5'"),
        ("run: CIKD", "run: CIKD\n      num_samples: 0", "`num_samples` is 0"),
        ("stop:", "checkpoint_config: {num_kept: 2}\n      stop:", "checkpoint settings.*num_kept"),
    ],
)
def test_errors_name_file_experiment_and_fault(load, minimal, old, new, words):
    assert old in minimal
    with pytest.raises(CommandError, match=f"experiment.yaml: experiment 'minimal': .*{words}"):
        load(minimal.replace(old, new))


@pytest.mark.parametrize("path", TUNED_EXAMPLES, ids=lambda path: path.stem)
def test_tuned_examples(path):
    """Every tuned example is valid, ends, and tells in its header how to run it."""
    for experiment in load_experiments(path):
        assert experiment.name == path.stem
        assert experiment.algorithm is CIKD
        assert "num_env_steps_sampled_lifetime" in experiment.stop
        resolved = list(generate_variants({"config": experiment.param_space}))
        assert len(resolved) == len(experiment.trial_configs)
    header = path.read_text().split("\n\n")[0]
    assert f"rllib train file tuned_examples/{path.name}" in path.read_text()
    assert header.startswith("# CIKD on ")
    assert "Measured (docs/lab/experiments.md):" in header or "not yet measured" in header


def test_tuned_example_of_the_paper():
    (path,) = (path for path in TUNED_EXAMPLES if path.stem == "cikd-halfcheetah")
    (experiment,) = load_experiments(path)
    assert experiment.stop == {"num_env_steps_sampled_lifetime": 1_000_000}
    config = CIKDConfig().update_from_dict(experiment.trial_configs[0])
    assert config.env == "HalfCheetah-v5"
    assert (config.ensemble_size, config.return_window) == (3, 5)
    assert config.distillation_interval == 5000
    assert (config.evaluation_interval, config.evaluation_duration) == (10, 20)
    assert config.store_buffer_in_checkpoints is True
