"""The `rllib` command: exit codes, what it prints, what it leaves, and how a run goes on."""

import json
import math
import os
import re
import shutil
import textwrap
import time
from pathlib import Path

import pytest
from helpers import finish, start
from ray import tune
from ray._private.utils import get_num_cpus
from ray.tune.experiment import Trial

from rllib_cikd import CIKDConfig
from rllib_cikd.cli.main import main
from rllib_cikd.experiments import progress
from rllib_cikd.experiments.checkpoint_evaluation import _load, find_checkpoint
from rllib_cikd.experiments.outcome import root_cause
from rllib_cikd.experiments.progress import ProgressCallback, format_duration, format_number
from rllib_cikd.experiments.ray_messages import WORKER_LINES
from rllib_cikd.experiments.tune_record import restorable

SETTINGS = """\
    ensemble_size: 2
    random_steps: 200
    train_batch_size_per_learner: 32
    distillation_interval: 400
    distillation_updates: 3
    min_sample_timesteps_per_iteration: 200
    model_config: {fcnet_hiddens: [8, 8]}
    evaluation_interval: 2
    evaluation_duration: 2
    seed: 0
"""

# A Python file: the trial tells how many threads it has.
THREADS = """
import torch
import yaml
from rllib_cikd import CIKDConfig

def tell_threads(result, **kwargs):
    result["threads"] = torch.get_num_threads()

settings = yaml.safe_load('''{settings}''')
config = CIKDConfig().environment("Pendulum-v1").update_from_dict(settings)
config.callbacks(on_train_result=tell_threads)
stop = {{"timesteps_total": 800}}
"""

# An environment in a module beside the experiment file.
BROKEN_ENV = """
import gymnasium as gym

class Broken(gym.Wrapper):
    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps > 250:
            raise RuntimeError("the simulator broke")
        return super().step(action)

gym.register("Broken-v0", lambda: Broken(gym.make("Pendulum-v1")))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder and outcome of two short runs: one ends well, of the other the trial fails."""
    folder = tmp_path_factory.mktemp("runs")
    settings = textwrap.dedent(SETTINGS)
    (folder / "good.py").write_text(THREADS.format(settings=settings))
    (folder / "broken_env.py").write_text(BROKEN_ENV)
    (folder / "bad.yaml").write_text(
        "bad:\n  run: CIKD\n  env: broken_env:Broken-v0\n"
        f"  stop: {{training_iteration: 2}}\n  config:\n{SETTINGS}"
    )
    good = start("train", "file", "good.py", "--storage-path", "results", cwd=folder)
    bad = start("train", "file", "bad.yaml", "--storage-path", "results", cwd=folder)
    return folder, finish(good), finish(bad)


# --- Commands end to end -------------------------------------------------------------------------


def test_train_ends_well(runs):
    folder, (exit_code, stdout, stderr), _ = runs
    assert exit_code == 0, stderr
    (checkpoint,) = folder.glob("results/good/CIKD_*/checkpoint_*")
    assert (checkpoint / "rllib_checkpoint.json").is_file()
    assert f"rllib evaluate {checkpoint}" in stdout
    assert f"tensorboard --logdir {folder}/results/good" in stdout
    assert "CIKD on Pendulum-v1, 1 trial, until num_env_steps_sampled_lifetime >= 800" in stdout
    assert "800/800 steps (100%)" in stdout
    assert re.search(r"R_k -[\d,]+ -[\d,]+ \| teacher \d \(phase \d\)", stdout)
    assert re.search(r"evaluation best -[\d,]+, worst -[\d,]+", stdout)


def test_train_is_quiet(runs):
    _, (_, stdout, stderr), _ = runs
    for noise in (*WORKER_LINES, "uthentication", "Usage stats", "dashboard", "Tuner.restore"):
        assert noise not in stdout + stderr


def test_a_lone_trial_has_the_idle_cpus(runs):
    folder, _, _ = runs
    (results,) = folder.glob("results/good/CIKD_*/result.json")
    last = json.loads(results.read_text().splitlines()[-1])
    assert last["config"]["num_cpus_for_main_process"] == min(4, get_num_cpus())
    assert last["threads"] == min(4, get_num_cpus())


def test_a_failed_trial_is_reported(runs):
    folder, _, (exit_code, stdout, stderr) = runs
    assert exit_code == 1
    assert "failed: RuntimeError: the simulator broke" in stderr
    assert re.search(r"raised at .*broken_env\.py:\d+ in step", stderr)
    (log,) = folder.glob("results/bad/CIKD_*/error.txt")
    assert f"its log: {log}" in stderr
    assert "rllib train file bad.yaml --resume --storage-path" in stderr
    assert "rllib evaluate" not in stdout


def test_evaluate_twice_gives_the_same_numbers(runs):
    folder, _, _ = runs
    options = ["--episodes", "3", "--out"]
    first = start("evaluate", "results/good", *options, "first.json", cwd=folder)
    again = start("evaluate", "results/good", *options, "again.json", cwd=folder)
    exit_code, stdout, stderr = finish(first)
    assert exit_code == 0, stderr
    assert finish(again)[0] == 0
    results = json.loads((folder / "first.json").read_text())
    assert results == json.loads((folder / "again.json").read_text())

    (checkpoint,) = folder.glob("results/good/CIKD_*/checkpoint_*")
    assert results["checkpoint"] == str(checkpoint)
    assert (results["algorithm"], results["env"]) == ("CIKD", "Pendulum-v1")
    assert (results["episodes"], results["seed"]) == (3, 0)
    assert results["num_env_steps_sampled_lifetime"] == 800
    assert list(results["members"]) == ["policy_0", "policy_1"]
    means = []
    for policy_id, member in results["members"].items():
        assert member["lengths"] == [200] * 3
        assert len(member["returns"]) == 3
        means.append(sum(member["returns"]) / 3)
        assert re.search(rf"^{policy_id} +{means[-1]:,.1f} ", stdout, re.MULTILINE)
    summary = results["summary"]
    assert math.isclose(summary["best_return_mean"], max(means))
    assert math.isclose(summary["worst_return_mean"], min(means))
    assert math.isclose(summary["mean_return_mean"], sum(means) / 2)
    elected = results["elected_policy"]
    assert summary["elected_return_mean"] == pytest.approx(means[int(elected[-1])])
    assert re.search(rf"^{elected} .*<- elected$", stdout, re.MULTILINE)


@pytest.mark.parametrize(
    "left", ["all well", "checkpoint replaced", "checkpoint half deleted", "record cut short"]
)
def test_a_killed_run_goes_on_with_resume(tmp_path, left):
    """Also if the checkpoint that Tune's record of the run names has been replaced since, or was
    just being deleted, and if Tune was just writing that record."""
    (tmp_path / "long.yaml").write_text(
        "long:\n  run: CIKD\n  env: Pendulum-v1\n"
        f"  stop: {{timesteps_total: 2000}}\n  config:\n{SETTINGS}"
    )
    command = ["train", "file", "long.yaml", "--storage-path", "results"]
    killed = start(*command, "--checkpoint-freq", "1", cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("results/long/CIKD_*/checkpoint_000003")):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    killed.kill()
    killed.communicate()
    if left == "record cut short":
        for path in tmp_path.glob("results/long/*-state-*.json"):
            path.write_text("")
        for path in tmp_path.glob("results/long/experiment_state-*.json"):
            path.write_text(path.read_text()[:1000])
    elif left == "checkpoint half deleted":
        assert restorable(str(tmp_path / "results" / "long"), checkpoints_kept=2)
        (trial,) = tune.ExperimentAnalysis(str(tmp_path / "results" / "long")).trials
        named = Path(trial.checkpoint.path)
        shutil.copytree(named, named.with_name("checkpoint_000050"))
        (named / "learner_group" / "learner" / "state.pkl").unlink()
    elif left == "checkpoint replaced":
        for checkpoint in tmp_path.glob("results/long/CIKD_*/checkpoint_*"):
            checkpoint.rename(checkpoint.with_name(checkpoint.name.replace("_0000", "_0001")))

    exit_code, stdout, stderr = finish(start(*command, "--resume", cwd=tmp_path))
    assert exit_code == 0, stderr
    assert f"resuming {tmp_path}/results/long" in stdout
    assert "2,000/2,000 steps (100%)" in stdout
    (results,) = tmp_path.glob("results/long/CIKD_*/result.json")
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    restarts = [row for row in rows if row["iterations_since_restore"] == 1]
    assert len(restarts) == 2
    assert restarts[1]["training_iteration"] > 1  # not from the beginning
    resumed = rows[rows.index(restarts[1]) :]
    steps = [row["num_env_steps_sampled_lifetime"] for row in resumed]
    assert steps == [200 * row["training_iteration"] for row in resumed]
    assert steps[-1] == 2000


# --- Errors in what was asked for ----------------------------------------------------------------


@pytest.fixture
def run_main(monkeypatch, capsys):
    """Returns a function that runs a command in this process: exit code, stdout, stderr."""
    monkeypatch.setattr("rllib_cikd.cli.main.ray_messages.silence", lambda: None)

    def run(*args):
        try:
            exit_code = main([str(arg) for arg in args])
        except SystemExit as exit_:
            exit_code = exit_.code
        return exit_code, *capsys.readouterr()

    return run


def test_a_typo_in_a_file_is_one_line_and_exit_code_2(run_main, tmp_path):
    path = tmp_path / "typo.yaml"
    path.write_text("typo: {run: CIKD, env: Pendulum-v1, config: {ensmble_size: 3}}")
    exit_code, stdout, stderr = run_main("train", "file", path)
    assert exit_code == 2
    assert stdout == ""
    assert stderr.startswith(f"rllib: error: {path}: experiment 'typo': ")
    assert "ensmble_size" in stderr
    assert "'ensemble_size'" in stderr
    assert stderr.count("\n") == 1
    exit_code, _, stderr = run_main("train", "file", path, "-v")
    assert exit_code == 2
    assert "Traceback" in stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "required: COMMAND"),
        (["train"], "required: COMMAND"),
        (["train", "file"], "required: FILE"),
        (["train", "file", "x.yaml", "--stop", "{"], "'{' is not JSON"),
        (["train", "file", "x.yaml", "--config", "[1]"], "not a JSON object"),
        (["train", "file", "x.yaml", "--num-samples", "0"], "not an integer of at least 1"),
        (["train", "file", "x.yaml"], "x.yaml: no such file"),
        (["train", "file", "x.yaml", "--resume", "--stop", '{"a": 1}'], "leave out --stop"),
        (["evaluate", "nowhere"], "nowhere: no such folder"),
        (["evaluate", "."], "no RLlib checkpoint in it"),
    ],
)
def test_wrong_arguments(run_main, monkeypatch, tmp_path, args, words):
    monkeypatch.chdir(tmp_path)
    exit_code, _, stderr = run_main(*args)
    assert exit_code == 2
    assert words in stderr


def test_nothing_to_resume(run_main, tmp_path):
    path = tmp_path / "new.yaml"
    path.write_text("new: {run: CIKD, env: Pendulum-v1}")
    exit_code, _, stderr = run_main(
        "train", "file", path, "--resume", "--storage-path", tmp_path / "results"
    )
    assert exit_code == 2
    assert f"nothing to resume in {tmp_path}/results/new" in stderr


def test_one_name_for_two_experiments(run_main, tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("a: {run: CIKD, env: Pendulum-v1}\nb: {run: CIKD, env: Pendulum-v1}")
    exit_code, _, stderr = run_main("train", "file", path, "--experiment-name", "c")
    assert exit_code == 2
    assert "names one experiment" in stderr


def test_help_names_every_option(run_main):
    exit_code, stdout, _ = run_main("train", "file", "--help")
    assert exit_code == 0
    for option in ("--stop", "--config", "--num-samples", "--checkpoint-freq", "--storage-path"):
        assert option in stdout
    for option in ("--no-checkpoint-at-end", "--experiment-name", "--resume", "--ray-address"):
        assert option in stdout


def test_cluster_that_asks_for_a_token(run_main, tmp_path, monkeypatch):
    def refuse(**_options):
        cause = RuntimeError("Failed to connect to GCS: ray.exceptions.AuthenticationError: ...")
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379") from cause

    monkeypatch.setattr("ray.init", refuse)
    path = tmp_path / "one.yaml"
    path.write_text("a: {run: CIKD, env: Pendulum-v1}")
    exit_code, _, stderr = run_main("train", "file", path, "--ray-address", "10.0.0.1:6379")
    assert exit_code == 2
    assert "no Ray cluster at '10.0.0.1:6379'" in stderr
    assert "RAY_AUTH_MODE=token" in stderr


# --- Parts ---------------------------------------------------------------------------------------


def test_latest_checkpoint_of_a_folder(tmp_path):
    for trial, name, seconds in [("a", "checkpoint_000009", 1), ("b", "checkpoint_000001", 2)]:
        mark = tmp_path / trial / name / "rllib_checkpoint.json"
        mark.parent.mkdir(parents=True)
        mark.write_text("{}")
        os.utime(mark, (seconds, seconds))
    assert find_checkpoint(tmp_path) == tmp_path / "b" / "checkpoint_000001"
    assert find_checkpoint(tmp_path / "a") == tmp_path / "a" / "checkpoint_000009"


def test_evaluation_needs_nothing_of_what_trained(build, tmp_path):
    config = CIKDConfig().environment("Pendulum-v1").env_runners(num_env_runners=1)
    config.evaluation(evaluation_interval=1, evaluation_num_env_runners=1)
    path = build(config.training(ensemble_size=2)).save_to_path(str(tmp_path / "checkpoint"))
    algorithm = _load(find_checkpoint(path), num_episodes=1, seed=None)
    assert algorithm.env_runner_group.num_remote_env_runners() == 0
    assert algorithm.eval_env_runner_group.num_remote_env_runners() == 0
    assert not os.path.exists(algorithm.logdir)  # RLlib makes one for each algorithm
    algorithm.stop()


def test_root_cause_of_a_chain():
    error = textwrap.dedent("""\
        ray::CIKD.train() (pid=1)
          File "/a/inner.py", line 3, in step
            raise ValueError("one\\ntwo")
            ^^^^^^^^^^^^^^^^^^^^^^^^^^
        ValueError: one
        two

        The above exception was the direct cause of the following exception:

          File "/a/outer.py", line 9, in sample
            raise RuntimeError from e
        RuntimeError
        """)
    assert root_cause(error) == "ValueError: one\ntwo\nraised at /a/inner.py:3 in step"
    assert root_cause("The actor died.\n") == "The actor died."


@pytest.mark.parametrize(
    ("value", "text"),
    [(1_000_000, "1,000,000"), (3412.4, "3,412"), (-4.23, "-4.2"), (2.0, "2"), (0, "0")],
)
def test_numbers(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize("value", [float("nan"), None, "x"])
def test_no_number(value):
    assert format_number(value) == "-"


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45s"), (59.7, "1m 00s"), (750, "12m 30s"), (13_320, "3h 42m")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


@pytest.fixture
def report(monkeypatch, capsys):
    """Returns a function that reports a result at a time of a trial until 10,000 steps."""
    trial = Trial("CIKD", stub=True, stopping_criterion={progress.STEPS: 10_000})
    callback = ProgressCallback("cheetah")

    def report(seconds, **result):
        monkeypatch.setattr(time, "monotonic", lambda: seconds)
        callback.on_trial_result(iteration=1, trials=[trial], trial=trial, result=result)
        return capsys.readouterr().out

    return report


def test_progress_of_an_ensemble(report):
    nan = float("nan")
    first = report(
        100.0,
        num_env_steps_sampled_lifetime=1000,
        training_iteration=1,
        ensemble={"return_mean": {"policy_0": -280.4, "policy_1": nan}, "teacher": nan},
        evaluation={"ensemble": {"best_return_mean": nan, "worst_return_mean": nan}},
    )
    assert first == "cheetah  1,000/10,000 steps (10%) | R_k -280 -\n"
    second = report(
        120.0,
        num_env_steps_sampled_lifetime=3000,
        training_iteration=3,
        ensemble={
            "return_mean": {f"policy_{k}": 1000.0 + k for k in (10, 2, 1)},
            "teacher": 2,
            "num_distillations_lifetime": 1,
        },
        evaluation={"ensemble": {"best_return_mean": 3412.0, "worst_return_mean": 2987.0}},
    )
    # 2,000 steps in 20 s: 7,000 more take 70 s. Members in order of their numbers.
    assert second == (
        "cheetah  3,000/10,000 steps (30%) | 100 steps/s | 1m 10s left | R_k 1,001 1,002 1,010 | "
        "teacher 2 (phase 1) | evaluation best 3,412, worst 2,987\n"
    )


def test_progress_is_not_too_frequent_but_tells_the_end(report):
    assert report(0.0, num_env_steps_sampled_lifetime=100)
    assert report(4.0, num_env_steps_sampled_lifetime=200) == ""
    assert report(5.0, num_env_steps_sampled_lifetime=300)
    assert report(6.0, num_env_steps_sampled_lifetime=400) == ""
    last = report(7.0, num_env_steps_sampled_lifetime=10_000, done=True)
    assert "10,000/10,000 steps (100%)" in last
    assert "left" not in last


def test_progress_of_other_algorithms_and_of_nothing(report):
    line = report(0.0, env_runners={"episode_return_mean": 21.5})
    assert line == "cheetah  -/10,000 steps | return 21.5\n"
    assert report(10.0) == "cheetah  -/10,000 steps | return -\n"
