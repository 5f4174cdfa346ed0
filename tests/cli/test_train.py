"""`rllib train file`: its options, what a run prints, and what it leaves."""

import re

import pytest
import typer

from rllib_cikd.experiments.ray_messages import WORKER_LINES


def test_help_names_every_option(run_main):
    exit_code, stdout, _ = run_main("train", "file", "--help")
    assert exit_code == 0
    for option in ("--stop", "--config", "--variant", "--num-samples", "--checkpoint-freq"):
        assert option in stdout
    for option in ("--checkpoint-at-end / --no-checkpoint-at-end", "--storage-path", "--resume"):
        assert option in stdout
    for option in ("--experiment-name", "--ray-address", "--verbose", "--import"):
        assert option in stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--stop", "{"), "'--stop' / '-s': '{' is not JSON"),
        (("-c", "[1]"), "'--config' / '-c': '[1]' is not a JSON object such as '{\"a\": 1}'"),
        (("--num-samples", "0"), "'--num-samples'"),
        (("--checkpoint-freq", "-1"), "'--checkpoint-freq'"),
        (("--resume", "--num-samples", "2"), "leave out --config, --set and --num-samples"),
        (("--resume", "--wandb", "p"), "--checkpoint-at-end, --wandb and --mlflow. A higher goal"),
    ],
)
def test_wrong_options(run_main, options, words):
    exit_code, _, stderr = run_main("train", "file", "x.yaml", *options)
    assert exit_code == 2
    assert words in stderr


def test_every_option_reaches_the_run(run_main, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "rllib_cikd.experiments.run.train", lambda file, **given: seen.update(given, file=file)
    )
    assert run_main("train", "file", "x.yaml")[0] == 0
    assert {name for name, value in seen.items() if value} == {"file"}
    given = {
        "stop": ({"a": 1}, ["-s", '{"a": 1}']),
        "config": ({"b": {"c": 2}}, ["-c", '{"b": {"c": 2}}']),
        "variant": ("v", ["--variant", "v"]),
        "num_samples": (3, ["--num-samples", "3"]),
        "checkpoint_freq": (0, ["--checkpoint-freq", "0"]),
        "checkpoint_at_end": (False, ["--no-checkpoint-at-end"]),
        "storage_path": ("d", ["--storage-path", "d"]),
        "experiment_name": ("n", ["-n", "n"]),
        "resume": (True, ["--resume"]),
        "imports": (["m", "n"], ["--import", "m", "--import", "n"]),
        "ray_address": ("a:1", ["--ray-address", "a:1"]),
        "wandb": ("p", ["--wandb", "p"]),
        "mlflow": ("e", ["--mlflow", "e"]),
        "verbose": (True, ["-v"]),
    }
    options = [word for _, words in given.values() for word in words]
    run_main("train", "file", *options, "x.yaml")
    assert seen == {"file": "x.yaml", **{name: value for name, (value, _) in given.items()}}


def test_set_goes_over_config_and_beside_what_it_does_not_name(run_main, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "rllib_cikd.experiments.run.train", lambda file, **given: seen.update(given)
    )
    config = '{"model_config": {"fcnet_hiddens": [8], "fcnet_activation": "relu"}}'
    words = ["--set", "model_config.fcnet_activation=tanh", "--set", "env_config.size=2"]
    assert run_main("train", "file", "x.yaml", "--config", config, *words)[0] == 0
    assert seen["config"] == {
        "model_config": {"fcnet_hiddens": [8], "fcnet_activation": "tanh"},
        "env_config": {"size": 2},
    }


def test_a_run_that_ends_well(runs):
    folder, (exit_code, stdout, stderr), _ = runs
    assert exit_code == 0, stderr
    (checkpoint,) = folder.glob("results/good/CIKD_*/checkpoint_*")
    assert (checkpoint / "rllib_checkpoint.json").is_file()
    assert f"rllib evaluate {checkpoint}" in stdout
    assert f"tensorboard --logdir {folder}/results/good" in stdout
    (events,) = folder.glob("results/good/CIKD_*/events.out.tfevents.*")
    assert b"custom_scalars" in events.read_bytes()
    assert "CIKD on Pendulum-v1, 1 trial, until num_env_steps_sampled_lifetime >= 800" in stdout
    assert "800/800 steps (100%)" in stdout
    assert re.search(r"R_k -[\d,]+ -[\d,]+ \| teacher \d \(phase \d\)", stdout)
    assert re.search(r"evaluation best -[\d,]+, worst -[\d,]+", stdout)


def test_a_run_is_quiet(runs):
    _, (_, stdout, stderr), _ = runs
    for noise in (*WORKER_LINES, "uthentication", "Usage stats", "dashboard", "Tuner.restore"):
        assert noise not in stdout + stderr
    assert "\x1b" not in stdout  # no bars where there is no terminal


def test_a_failed_trial_is_reported(runs):
    folder, _, (exit_code, stdout, stderr) = runs
    assert exit_code == 1
    assert "failed: RuntimeError: the simulator broke" in stderr
    assert re.search(r"raised at .*broken_env\.py:\d+ in step", stderr)
    (log,) = folder.glob("results/bad/CIKD_*/error.txt")
    assert f"its log: {log}" in stderr
    assert f"rllib train file bad.yaml --resume --storage-path {folder}/results" in stderr
    assert "rllib evaluate" not in stdout


def test_settings_one_by_one():
    from rllib_cikd.cli.train import _settings

    texts = ["actor_lr=1e-4", "env_config.size=5", "env_config.name=a=b", "hiddens=[64, 64]", "x="]
    assert _settings(texts) == {
        "actor_lr": 1e-4,
        "env_config": {"size": 5, "name": "a=b"},
        "hiddens": [64, 64],
        "x": None,
    }
    for text, words in (
        ("actor_lr", "KEY=VALUE"),
        (".a=1", "KEY=VALUE"),
        ("a.b.=1", "KEY=VALUE"),
        ("a=[1", "flow sequence"),
    ):
        with pytest.raises(typer.BadParameter, match=words):
            _settings([text])
    with pytest.raises(typer.BadParameter, match="has a value already"):
        _settings(["a=1", "a.b=2"])
