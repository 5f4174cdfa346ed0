"""Experiment files: what they may say, what they resolve to, and which words an error has."""

import textwrap
from pathlib import Path

import pytest
from ray.rllib.algorithms.ppo import PPO
from ray.tune.search.variant_generator import generate_variants

from rllib_cikd import CIKD, CIKDConfig
from rllib_cikd.experiments.experiment_file import (
    DEFAULT_CHECKPOINT_FREQ,
    DEFAULT_CHECKPOINTS_KEPT,
    ExperimentFileError,
    flatten_stop,
    load_experiments,
)

TUNED_EXAMPLES = sorted((Path(__file__).parents[2] / "tuned_examples").glob("*.yaml"))

MINIMAL = """
    minimal:
      run: CIKD
      env: Pendulum-v1
      stop: {timesteps_total: 1000}
      config:
        ensemble_size: 2
        actor_lr: 1e-4
"""


@pytest.fixture
def load(tmp_path):
    """Returns a function that writes a file and loads its experiments."""

    def write_and_load(text, name="experiment.yaml", **overrides):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return load_experiments(path, **overrides)

    return write_and_load


def test_minimal_yaml(load):
    (experiment,) = load(MINIMAL)
    assert experiment.name == "minimal"
    assert experiment.algorithm is CIKD
    assert experiment.param_space == {"env": "Pendulum-v1", "ensemble_size": 2, "actor_lr": 1e-4}
    assert experiment.stop == {"num_env_steps_sampled_lifetime": 1000}
    assert experiment.num_trials == 1
    assert experiment.checkpoint_config.checkpoint_frequency == DEFAULT_CHECKPOINT_FREQ
    assert experiment.checkpoint_config.num_to_keep == DEFAULT_CHECKPOINTS_KEPT
    assert experiment.checkpoint_config.checkpoint_at_end is True


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("3E5", 3e5), ("-1e+2", -100.0), (".5e1", 5.0), ("1.e-3", 1e-3)],
)
def test_exponents_without_a_point_are_floats(load, text, value):
    (experiment,) = load(MINIMAL.replace("1000", text))
    (stop,) = experiment.stop.values()
    assert type(stop) is float
    assert stop == value


def test_words_that_look_like_numbers_stay_words(load):
    with pytest.raises(ExperimentFileError, match="policy_selection='1e'"):
        load(MINIMAL + "        policy_selection: 1e\n")


def test_overrides_are_merged(load):
    text = MINIMAL + "        replay_buffer_config: {capacity: 20000}\n    "
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


def test_nested_overrides_and_grids(load):
    text = MINIMAL.replace("ensemble_size: 2", "ensemble_size: {grid_search: [1, 2]}")
    text += "        env_config: {g: 9.81}\n"
    (experiment,) = load(text, config={"env_config": {"render_mode": "rgb_array"}})
    assert experiment.param_space["env_config"] == {"g": 9.81, "render_mode": "rgb_array"}
    assert [variant["ensemble_size"] for variant in experiment.variants] == [1, 2]
    (experiment,) = load(text, config={"ensemble_size": {"grid_search": [3]}})
    assert [variant["ensemble_size"] for variant in experiment.variants] == [3]
    (experiment,) = load(text, config={"ensemble_size": 5})
    assert [variant["ensemble_size"] for variant in experiment.variants] == [5]


def test_every_variant_of_a_grid_is_checked(load):
    with pytest.raises(ExperimentFileError, match="ensemble_size=0"):
        load(MINIMAL.replace("ensemble_size: 2", "ensemble_size: {grid_search: [2, 0]}"))


def test_several_experiments(load):
    first, second = load(MINIMAL + MINIMAL.replace("minimal:", "other:"))
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
        ("ensemble_size", "ensmble_size", "'ensmble_size'.*'ensemble_size'"),
        ("actor_lr: 1e-4", "evaluation_intervall: 1", "evaluation_intervall.*evaluation_interval"),
        ("actor_lr: 1e-4", "ensemble_size: 3", "'ensemble_size' is given twice"),
        ("actor_lr: 1e-4", "actor_lr: fast", "actor_lr='fast'"),
        ("actor_lr: 1e-4", "env: HalfCheetah-v5", "'Pendulum-v1'.*'HalfCheetah-v5'"),
        ("config:", "confg:", "'confg'. Did you mean 'config'"),
        ("run: CIKD", "run: CIDK", "'CIDK'. Did you mean 'CIKD'"),
        ("run: CIKD", "run: CIKD\n      num_samples: 0", "`num_samples` is 0"),
        ("run: CIKD", "num_samples: 1", "`run` is missing"),
        ("env: Pendulum-v1", "num_samples: 1", "`env` is missing"),
        ("Pendulum-v1", "Pendlum-v1", "Pendlum.*Pendulum"),
        ("Pendulum-v1", "CartPole-v1", "Discrete.*continuous"),
        ("{timesteps_total: 1000}", "1000", "`stop` is 1000"),
        ("{timesteps_total: 1000}", "{timesteps_total: many}", "timesteps_total is 'many'"),
        ("timesteps_total", "time_steps_total", "'time_steps_total' is not reported"),
        ("timesteps_total", "env_runners/episode_retrun_mean", "env_runners/episode_return_mean"),
        ("timesteps_total", "evaluation/episode_reward_mean", "Set `evaluation_interval`"),
        ("stop:", "checkpoint_config: {num_kept: 2}\n      stop:", "checkpoint settings.*num_kept"),
        ("minimal:", "minimal", "not valid YAML"),
    ],
)
def test_errors_name_the_fault(load, old, new, words):
    assert old in MINIMAL
    with pytest.raises(ExperimentFileError, match=f"(?s)experiment.yaml: .*{words}"):
        load(MINIMAL.replace(old, new))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no experiment in it"),
        ("run: CIKD\nenv: Pendulum-v1", "below a name"),
        ("a: 3", "'a' is 3, not a mapping"),
    ],
)
def test_files_of_another_form(load, text, words):
    with pytest.raises(ExperimentFileError, match=words):
        load(text)


def test_typo_for_another_algorithm(load):
    text = "ppo: {run: PPO, env: CartPole-v1, config: {minibatch_sise: 32}}"
    with pytest.raises(ExperimentFileError, match=r"'minibatch_sise' for PPO\. Did you mean 'mini"):
        load(text)


def test_missing_file_and_unknown_suffix(tmp_path):
    with pytest.raises(ExperimentFileError, match="no such file"):
        load_experiments(tmp_path / "none.yaml")
    (tmp_path / "experiment.json").write_text("{}")
    with pytest.raises(ExperimentFileError, match=r"give a \.yaml"):
        load_experiments(tmp_path / "experiment.json")


@pytest.mark.parametrize(
    ("stop", "flat"),
    [
        ({"timesteps_total": 5}, {"num_env_steps_sampled_lifetime": 5}),
        ({"episode_reward_mean": 5}, {"env_runners/episode_return_mean": 5}),
        ({"sampler_results": {"episode_reward_max": 5}}, {"env_runners/episode_return_max": 5}),
        ({"episodes_total": 5}, {"env_runners/num_episodes_lifetime": 5}),
        ({"training_iteration": 5}, {"training_iteration": 5}),
        (
            {"evaluation": {"env_runners": {"episode_return_mean": -150}}},
            {"evaluation/env_runners/episode_return_mean": -150},
        ),
        (
            {"evaluation/sampler_results/episode_reward_mean": -1.5},
            {"evaluation/env_runners/episode_return_mean": -1.5},
        ),
    ],
)
def test_classic_and_nested_stop_keys(stop, flat):
    assert flatten_stop(stop) == flat


def test_stop_by_a_member_or_by_what_a_callback_logs(load):
    text = MINIMAL + "        evaluation_interval: 1\n"
    for key in ("ensemble/return_mean/policy_1", "evaluation/ensemble/worst_return_mean"):
        (experiment,) = load(text.replace("timesteps_total", key))
        assert list(experiment.stop) == [key]
    (experiment,) = load(
        """
        from rllib_cikd import CIKDConfig

        def log(metrics_logger, **kwargs):
            metrics_logger.log_value("distance", 1.0)

        config = CIKDConfig().environment("Pendulum-v1").callbacks(on_episode_end=log)
        stop = {"distance": 10}
        """,
        name="logs.py",
    )
    assert experiment.stop == {"distance": 10}


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
    for variant in experiment.variants:
        config = CIKDConfig().update_from_dict(variant)
        assert config.random_steps == 100
        assert config.ensemble_size == variant["ensemble_size"]


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
    with pytest.raises(ExperimentFileError, match=words):
        load(text, name="faulty.py")


@pytest.mark.parametrize("path", TUNED_EXAMPLES, ids=lambda path: path.stem)
def test_tuned_examples(path):
    """Every tuned example is valid, ends, and tells in its header how to run it."""
    for experiment in load_experiments(path):
        assert experiment.name == path.stem
        assert experiment.algorithm is CIKD
        assert "num_env_steps_sampled_lifetime" in experiment.stop
        resolved = list(generate_variants({"config": experiment.param_space}))
        assert len(resolved) == len(experiment.variants)
    header = path.read_text().split("\n\n")[0]
    assert f"rllib train file tuned_examples/{path.name}" in path.read_text()
    assert header.startswith("# CIKD on ")
    assert "Measured (docs/RESULTS.md):" in header or "not yet measured" in header


def test_tuned_example_of_the_paper():
    (path,) = (path for path in TUNED_EXAMPLES if path.stem == "cikd-halfcheetah")
    (experiment,) = load_experiments(path)
    assert experiment.stop == {"num_env_steps_sampled_lifetime": 1_000_000}
    config = CIKDConfig().update_from_dict(experiment.variants[0])
    assert config.env == "HalfCheetah-v5"
    assert (config.ensemble_size, config.return_window) == (3, 5)
    assert config.distillation_interval == 5000
    assert (config.evaluation_interval, config.evaluation_duration) == (10, 20)
    assert config.store_buffer_in_checkpoints is True
