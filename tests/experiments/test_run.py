"""Runs of a file's experiments: their folders, their CPUs, and how a killed one goes on."""

import json
import shutil
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from helpers import SMALL_SETTINGS, finish, start, write_experiment
from ray import tune
from ray._private.utils import get_num_cpus

from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.run import train
from rllib_cikd.experiments.tune_record import mend_run

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
stop = {{"timesteps_total": 400}}
"""


def test_a_lone_trial_has_the_idle_cpus(tmp_path):
    settings = yaml.safe_dump(SMALL_SETTINGS | {"ensemble_size": 1})
    (tmp_path / "threads.py").write_text(textwrap.dedent(THREADS).format(settings=settings))
    exit_code, _, stderr = finish(
        start("train", "file", "threads.py", "--storage-path", "results", cwd=tmp_path)
    )
    assert exit_code == 0, stderr
    (results,) = tmp_path.glob("results/threads/CIKD_*/result.json")
    last = json.loads(results.read_text().splitlines()[-1])
    assert last["config"]["num_cpus_for_main_process"] == min(4, get_num_cpus())
    assert last["threads"] == min(4, get_num_cpus())


@pytest.mark.parametrize(
    "left", ["all well", "checkpoint replaced", "checkpoint half deleted", "record cut short"]
)
def test_a_killed_run_goes_on_with_resume(tmp_path, left):
    """Also if the checkpoint that Tune's record of the run names has been replaced since, or was
    just being deleted, and if Tune was just writing that record."""
    write_experiment(tmp_path / "long.yaml", stop={"timesteps_total": 2000}, ensemble_size=2)
    command = ["train", "file", "long.yaml", "--storage-path", "results"]
    killed = start(*command, "--checkpoint-freq", "1", cwd=tmp_path)
    deadline = time.monotonic() + 600
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
        assert mend_run(str(tmp_path / "results" / "long"), checkpoints_kept=2)
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


def test_nothing_to_resume(tmp_path):
    file = write_experiment(tmp_path / "new.yaml")
    with pytest.raises(CommandError, match=f"nothing to resume in {tmp_path}/results/new"):
        train(str(file), resume=True, storage_path=str(tmp_path / "results"))


def test_a_run_killed_before_its_first_record_is_not_resumed(tmp_path):
    file = write_experiment(tmp_path / "short.yaml")
    run = tmp_path / "results" / "short"
    run.mkdir(parents=True)
    (run / "tuner.pkl").write_bytes(b"")
    (run / "experiment_state-2026-01-31_12-00-00.json").write_text("")
    with pytest.raises(CommandError, match=f"{run} has no record of its .* without --resume"):
        train(str(file), resume=True, storage_path=str(tmp_path / "results"))


def test_one_name_for_two_experiments(tmp_path):
    file = tmp_path / "two.yaml"
    file.write_text("a: {run: CIKD, env: Pendulum-v1}\nb: {run: CIKD, env: Pendulum-v1}")
    with pytest.raises(CommandError, match=r"names one experiment, but .* has 2: a, b"):
        train(str(file), experiment_name="c")


@pytest.mark.parametrize("given", [{"config": {"a": 1}}, {"num_samples": 2}])
def test_a_resumed_run_keeps_its_settings(given):
    with pytest.raises(CommandError, match=r"leave out --config and --num-samples. A higher goal"):
        train("x.yaml", resume=True, **given)
