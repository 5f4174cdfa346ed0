"""Runs of a file's experiments: their folders, their CPUs, and how a killed one goes on."""

import csv
import json
import os
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from helpers import SMALL_SETTINGS, finish, start, write_experiment
from ray._private.utils import get_num_cpus

from rllib_cikd.common.errors import CommandError, DamagedCheckpoint
from rllib_cikd.experiments.run import train
from rllib_cikd.rllib.manifest import LEARNER_STATE, check_checkpoint

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


LONG = ["train", "file", "long.yaml", "--storage-path", "results"]


def start_long_run(
    folder: Path, *options: str, checkpoint: int | None = 3, iterations: int = 10
) -> subprocess.Popen:
    """Starts a run with iterations of 200 steps; waits until it has written a checkpoint."""
    stop = {"timesteps_total": 200 * iterations}
    write_experiment(folder / "long.yaml", stop=stop, ensemble_size=2)
    process = start(*LONG, *options, cwd=folder)
    wanted = "result.json" if checkpoint is None else f"checkpoint_{checkpoint:06d}"
    deadline = time.monotonic() + 600
    while not list(folder.glob(f"results/long/CIKD_*/{wanted}")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process


def trial_of(folder: Path) -> Path:
    (trial,) = folder.glob("results/long/CIKD_*")
    return trial


def is_whole(checkpoint: Path) -> bool:
    """Not while it is written, or copied: Tune copies its files in any order."""
    try:
        check_checkpoint(str(checkpoint), checksums=False)
    except DamagedCheckpoint:
        return False
    return True


def assert_each_iteration_once(trial: Path, iterations: int = 10) -> list[dict]:
    """Of so many; returns the results of the last start."""
    rows = [json.loads(line) for line in (trial / "result.json").read_text().splitlines()]
    numbers = range(1, iterations + 1)
    assert [row["training_iteration"] for row in rows] == list(numbers)
    assert [row["num_env_steps_sampled_lifetime"] for row in rows] == [200 * i for i in numbers]
    with (trial / "progress.csv").open(newline="") as file:
        steps = [row["num_env_steps_sampled_lifetime"] for row in csv.DictReader(file)]
    assert steps == [str(row["num_env_steps_sampled_lifetime"]) for row in rows]
    restarts = [row for row in rows if row["iterations_since_restore"] == 1]
    assert len(restarts) == 2
    return rows[rows.index(restarts[1]) :]


@pytest.mark.parametrize("left", ["all well", "newest damaged", "record lags", "record cut short"])
def test_a_killed_run_goes_on_with_resume(tmp_path, left):
    """From its newest whole checkpoint, whatever Tune's record says of them; also if Tune was just
    writing that record."""
    killed = start_long_run(tmp_path, "--checkpoint-freq", "1")
    killed.kill()
    killed.communicate()
    trial = trial_of(tmp_path)
    whole = [path for path in sorted(trial.glob("checkpoint_*")) if is_whole(path)]
    newest = check_checkpoint(str(whole[-1]), checksums=False)
    says = ""
    if left == "record cut short":
        for path in tmp_path.glob("results/long/*-state-*.json"):
            path.write_text("")
        for path in tmp_path.glob("results/long/experiment_state-*.json"):
            path.write_text(path.read_text()[:1000])
    elif left == "newest damaged":
        (whole[-1] / LEARNER_STATE).write_bytes(b"")
        newest = check_checkpoint(str(whole[-2]), checksums=False)
        says = f"{whole[-1]} is not a whole checkpoint: {LEARNER_STATE} has 0 bytes instead of "
    elif left == "record lags":
        for checkpoint in whole:
            checkpoint.rename(checkpoint.with_name(checkpoint.name.replace("_0000", "_0001")))

    exit_code, stdout, stderr = finish(start(*LONG, "--resume", cwd=tmp_path))
    assert exit_code == 0, stderr
    assert f"resuming {tmp_path}/results/long" in stdout
    assert says in stdout
    assert "2,000/2,000 steps (100%)" in stdout
    resumed = assert_each_iteration_once(trial)
    assert resumed[0]["training_iteration"] == newest.training_iteration + 1


@pytest.mark.parametrize(
    ("number", "options", "exit_code"),
    [(signal.SIGINT, [], 130), (signal.SIGTERM, ["--checkpoint-freq", "0"], 143)],
)
def test_a_signal_ends_a_run_after_a_checkpoint(tmp_path, number, options, exit_code):
    """So that nothing is lost: it goes on where it was."""
    process = start_long_run(tmp_path, *options, checkpoint=None, iterations=40)
    os.kill(process.pid, number)
    code, stdout, stderr = finish(process)
    assert code == exit_code, stderr
    assert "ending after the current iteration, with a checkpoint; again: at once" in stderr
    assert "1 unfinished; to go on from the last checkpoint: rllib train file long.yaml" in stderr
    assert "*** " not in stderr  # no stack of Ray's C++ core
    assert "Traceback" not in stderr
    (checkpoint,) = trial_of(tmp_path).glob("checkpoint_*")
    assert f"rllib evaluate {checkpoint}" in stdout
    manifest = check_checkpoint(str(checkpoint))
    rows = (trial_of(tmp_path) / "result.json").read_text().splitlines()
    assert manifest.training_iteration == len(rows) < 40

    exit_code, stdout, stderr = finish(start(*LONG, "--resume", cwd=tmp_path))
    assert exit_code == 0, stderr
    resumed = assert_each_iteration_once(trial_of(tmp_path), 40)
    assert resumed[0]["training_iteration"] == manifest.training_iteration + 1


def test_the_second_signal_ends_at_once(tmp_path):
    long_iterations = json.dumps({"min_sample_timesteps_per_iteration": 1000})
    options = ["--checkpoint-freq", "0", "--config", long_iterations]
    process = start_long_run(tmp_path, *options, checkpoint=None)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.05)  # the iteration goes on for seconds
    os.kill(process.pid, signal.SIGINT)
    code, _, stderr = finish(process)
    assert code == 130
    assert "no checkpoint was written, so it starts again from the beginning" in stderr
    assert "*** " not in stderr
    assert "Traceback" not in stderr


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
