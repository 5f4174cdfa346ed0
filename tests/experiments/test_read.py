"""Experiment files, YAML and Python: what they may say."""

import pytest
from ray.rllib.algorithms.ppo import PPO

from rllib_cikd import CIKD, CIKDConfig
from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.read import read_experiments


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no experiment in it"),
        ("run: CIKD\nenv: Pendulum-v1", "'run' stands at the top level. .*below a name"),
        ("config: {ensemble_size: 3}", "'config' stands at the top level"),
        ("a: 3", "'a' is 3, not a mapping"),
        ("a: {run: CIKD, confg: {}}", "'a': unknown key 'confg'. Did you mean 'config'"),
        ("a: {run: CIKD, stop: 1000}", "'a': `stop` is 1000, not a mapping"),
        ("a: {run: CIKD, checkpoint_config: 3}", "'a': `checkpoint_config` is 3, not a mapping"),
    ],
)
def test_files_of_another_form(tmp_path, text, words):
    (tmp_path / "file.yaml").write_text(text)
    with pytest.raises(CommandError, match=f"file.yaml: .*{words}"):
        read_experiments(tmp_path / "file.yaml")


def test_missing_file_and_unknown_suffix(tmp_path):
    with pytest.raises(CommandError, match="no such file"):
        read_experiments(tmp_path / "none.yaml")
    (tmp_path / "experiment.json").write_text("{}")
    with pytest.raises(CommandError, match=r"give a \.yaml"):
        read_experiments(tmp_path / "experiment.json")


def test_python_file_with_a_config_object(load):
    (experiment,) = load(
        """
        from ray import tune
        from rllib_cikd import CIKDConfig

        config = (
            CIKDConfig()
            .environment("Pendulum-v1")
            .training(ensemble_size=tune.grid_search([1, 2]), random_steps=100)
            .evaluation(evaluation_interval=1)
        )
        stop = {"evaluation": {"env_runners": {"episode_return_mean": -150}}}
        """,
        name="grid.py",
    )
    assert experiment.name == "grid"
    assert experiment.algorithm is CIKD
    assert experiment.param_space == {
        "env": "Pendulum-v1",
        "ensemble_size": {"grid_search": [1, 2]},
        "random_steps": 100,
        "evaluation_interval": 1,
    }
    assert experiment.num_trials == 2
    for settings in experiment.trial_configs:
        config = CIKDConfig().update_from_dict(settings)
        assert config.random_steps == 100
        assert config.ensemble_size == settings["ensemble_size"]


def test_python_file_with_a_dict(load):
    text = 'config = {"env": "Pendulum-v1", "ensemble_size": 2}'
    (experiment,) = load(text, name="plain.py")
    assert experiment.algorithm is CIKD
    assert experiment.stop == {}
    text = 'run = "PPO"\nconfig = {"env": "CartPole-v1"}\nstop = {"training_iteration": 1}'
    (experiment,) = load(text, name="plain.py")
    assert experiment.algorithm is PPO


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stop = {}", "defines `config`"),
        ("config = unknown", "NameError: name 'unknown'"),
        ("config = {'env': 'Pendulum-v1', 'ensmble_size': 1}", "ensemble_size"),
    ],
)
def test_python_files_with_faults(load, text, words):
    with pytest.raises(CommandError, match=words):
        load(text, name="faulty.py")
