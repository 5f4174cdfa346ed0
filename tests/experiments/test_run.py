"""Runs of a file's experiments: their folders, their CPUs, and how a killed one goes on."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
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


@pytest.mark.slow
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


def start_long_run(folder: Path, *options: str, iterations: int) -> subprocess.Popen:
    """Starts a run with iterations of 200 steps."""
    stop = {"timesteps_total": 200 * iterations}
    write_experiment(folder / "long.yaml", stop=stop, ensemble_size=2, training_intensity=2)
    return start(*LONG, *options, cwd=folder)


def wait_for(process: subprocess.Popen, happened: Callable[[], object]) -> None:
    """Until it has happened, while the process runs."""
    deadline = time.monotonic() + 600
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def kill(process: subprocess.Popen) -> None:
    """And waits for Ray's workers to be gone: till then, one may finish a checkpoint."""
    others = psutil.Process(process.pid).children(recursive=True)
    workers = [other for other in others if "".join(other.cmdline()).startswith("ray::")]
    process.kill()
    process.communicate()
    psutil.wait_procs(workers, timeout=5)


def trial_of(folder: Path) -> Path:
    (trial,) = folder.glob("results/long/CIKD_*")
    return trial


def results_of(folder: Path) -> list[dict]:
    """The rows of `result.json`; the last one may be written just now."""
    rows = []
    for file in folder.glob("results/long/CIKD_*/result.json"):
        for line in file.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
    return rows


def whole_checkpoints(folder: Path) -> list[Path]:
    """From the oldest to the newest; without those that Tune is still writing or copying."""
    found = []
    for path in folder.glob("results/long/CIKD_*/checkpoint_*"):
        with contextlib.suppress(DamagedCheckpoint):
            found.append((check_checkpoint(str(path), checksums=False).training_iteration, path))
    return [path for _, path in sorted(found)]


def assert_each_iteration_once(folder: Path, iterations: int, starts: int) -> list[int]:
    """Of so many; returns the first iteration of every start that is left."""
    rows = results_of(folder)
    numbers = range(1, iterations + 1)
    assert [row["training_iteration"] for row in rows] == list(numbers)
    assert [row["num_env_steps_sampled_lifetime"] for row in rows] == [200 * i for i in numbers]
    with (trial_of(folder) / "progress.csv").open(newline="") as file:
        steps = [row["num_env_steps_sampled_lifetime"] for row in csv.DictReader(file)]
    assert steps == [str(row["num_env_steps_sampled_lifetime"]) for row in rows]
    first = [row["training_iteration"] for row in rows if row["iterations_since_restore"] == 1]
    assert len(first) == starts
    return first


def test_a_killed_run_goes_on_with_resume(tmp_path):
    """From its newest whole checkpoint, whatever Tune's record says of them; also if Tune was just
    writing that record."""
    process = start_long_run(tmp_path, "--checkpoint-freq", "1", iterations=16)
    going_on = [1]
    for damage in ("record cut short", "record lags", "newest damaged"):
        enough = going_on[-1] + 1
        wait_for(process, lambda enough=enough: len(results_of(tmp_path)) >= enough)
        wait_for(process, lambda: len(whole_checkpoints(tmp_path)) == 2)
        kill(process)
        whole = whole_checkpoints(tmp_path)
        says = ""
        if damage == "record cut short":
            for path in tmp_path.glob("results/long/*-state-*.json"):
                path.write_text("")
            for path in tmp_path.glob("results/long/experiment_state-*.json"):
                path.write_text(path.read_text()[:1000])
        elif damage == "record lags":
            for i, checkpoint in enumerate(whole):
                checkpoint.rename(checkpoint.with_name(f"checkpoint_0001{i:02d}"))
        else:
            damaged = whole.pop()
            (damaged / LEARNER_STATE).write_bytes(b"")
            says = f"{damaged} is not a whole checkpoint: {LEARNER_STATE} has 0 bytes instead of "
        whole = whole_checkpoints(tmp_path)
        newest = check_checkpoint(str(whole[-1]), checksums=False)
        going_on.append(newest.training_iteration + 1)
        process = start(*LONG, "--resume", cwd=tmp_path)
        if says:
            exit_code, stdout, stderr = finish(process)
            assert exit_code == 0, stderr
            assert f"resuming {tmp_path}/results/long" in stdout
            assert says in stdout
            assert "3,200/3,200 steps (100%)" in stdout
    assert assert_each_iteration_once(tmp_path, 16, starts=4) == going_on


@pytest.mark.parametrize(
    ("number", "options", "exit_code"),
    [
        (signal.SIGTERM, ["--checkpoint-freq", "0"], 143),
        pytest.param(signal.SIGINT, [], 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_run_after_a_checkpoint(tmp_path, number, options, exit_code):
    """So that nothing is lost: it goes on where it was. SIGTERM comes as `timeout` and batch
    systems send it: to all processes of the group."""
    process = start_long_run(tmp_path, *options, iterations=30)
    # What it says comes at once, results are copied every few seconds.
    assert any("/6,000 steps (" in line for line in iter(process.stdout.readline, ""))
    (os.kill if number == signal.SIGINT else os.killpg)(process.pid, number)
    code, stdout, stderr = finish(process)
    assert code == exit_code, stderr
    assert "ending after the current iteration, with a checkpoint; again: at once" in stderr
    assert "1 unfinished; to go on from the last checkpoint: rllib train file long.yaml" in stderr
    assert "*** " not in stderr  # no stack of Ray's C++ core
    assert "Traceback" not in stderr
    (checkpoint,) = trial_of(tmp_path).glob("checkpoint_*")
    assert f"rllib evaluate {checkpoint}" in stdout
    manifest = check_checkpoint(str(checkpoint))
    assert manifest.training_iteration == len(results_of(tmp_path)) < 30

    exit_code, stdout, stderr = finish(start(*LONG, "--resume", cwd=tmp_path))
    assert exit_code == 0, stderr
    first = assert_each_iteration_once(tmp_path, 30, starts=2)
    assert first == [1, manifest.training_iteration + 1]


def test_the_second_signal_ends_at_once(tmp_path):
    one_iteration = json.dumps({"min_sample_timesteps_per_iteration": 1_000_000})
    options = ["--checkpoint-freq", "0", "--config", one_iteration]
    process = start_long_run(tmp_path, *options, iterations=10_000)
    wait_for(process, lambda: list(tmp_path.glob("results/long/experiment_state-*.json")))
    time.sleep(5.0)
    os.kill(process.pid, signal.SIGINT)
    # Python takes two signals for one that come while it waits for Ray.
    said = iter(process.stderr.readline, "")
    assert any("with a checkpoint; again: at once" in line for line in said)
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


@pytest.mark.parametrize(
    "given",
    [
        *({"config": {"a": 1}}, {"num_samples": 2}, {"checkpoint_freq": 5}),
        *({"checkpoint_at_end": False}, {"mlflow": "e"}),
    ],
)
def test_a_resumed_run_keeps_its_settings(given):
    with pytest.raises(CommandError, match=r"leave out --config, .*A higher goal"):
        train("x.yaml", resume=True, **given)
