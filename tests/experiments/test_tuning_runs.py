"""Runs with a scheduler, a searcher and a logger of an experiment file's."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from time import monotonic, sleep

import pytest
import yaml
from helpers import SMALL_SETTINGS, finish, start

import rllib_cikd

# Beside the experiment file: every step of an episode is worth what the config says.
MODULE = """
import gymnasium as gym
from ray.tune.logger import LoggerCallback
from ray.tune.search import Searcher

class Worth(gym.RewardWrapper):
    def __init__(self, worth):
        super().__init__(gym.make("Pendulum-v1"))
        self.worth = worth

    def reward(self, reward):
        return self.worth

gym.register("Worth-v0", lambda worth: Worth(worth))

class OneByOne(Searcher):
    '''Suggests the worths in turn, the next one when it knows what came of the one before.'''

    def __init__(self, worths, metric=None, mode=None):
        super().__init__(metric=metric, mode=mode)
        self.worths, self.running = list(worths), False

    def set_search_properties(self, metric, mode, config, **spec):
        self._metric, self._mode = metric, mode
        return True

    def suggest(self, trial_id):
        if self.running:
            return None
        self.running = True
        return {"env_config": {"worth": self.worths.pop(0)}}

    def on_trial_complete(self, trial_id, result=None, error=False):
        self.running = False
        with open(LOG, "a") as file:
            file.write(f"complete {result[self._metric]}\\n")

    def save(self, path):
        pass

    def restore(self, path):
        pass

class Lines(LoggerCallback):
    def __init__(self, word):
        self.word = word

    def log_trial_result(self, iteration, trial, result):
        with open(LOG, "a") as file:
            file.write(f"{self.word} {result['training_iteration']}\\n")
"""
METRIC = "env_runners/episode_return_mean"


def write(folder: Path, worth: dict, **experiment) -> None:
    """An experiment `tuned`: iterations of one episode, which is worth 200 times `worth`."""
    (folder / "mine.py").write_text(f"LOG = {str(folder / 'log')!r}\n{MODULE}")
    settings = SMALL_SETTINGS | {"ensemble_size": 2, "env_config": {"worth": worth}}
    spec = {"run": "CIKD", "env": "mine:Worth-v0", "metric": METRIC, "config": settings}
    (folder / "tuned.yaml").write_text(yaml.safe_dump({"tuned": spec | experiment}))


def rows(folder: Path) -> list[list[dict]]:
    """Each trial's results."""
    files = sorted(folder.glob("results/tuned/CIKD_*/result.json"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


COMMAND = ["train", "file", "tuned.yaml", "--storage-path", "results"]


def test_a_scheduler_a_searcher_and_a_logger(tmp_path):
    """Of worths 3, 2 and 1, suggested in turn, ASHA ends the second and the third early."""
    write(
        tmp_path,
        {"tune.uniform": [0, 4]},
        stop={"timesteps_total": 800},
        num_samples=3,
        scheduler={"asha": {"grace_period": 2, "reduction_factor": 2}},
        search_alg={"mine:OneByOne": {"worths": [3.0, 2.0, 1.0]}},
        loggers=[{"mine:Lines": {"word": "seen"}}],
        checkpoint_on_evaluation=True,
    )
    exit_code, _, stderr = finish(start(*COMMAND, cwd=tmp_path))
    assert exit_code == 0, stderr
    trials = {t[0]["config"]["env_config"]["worth"]: t for t in rows(tmp_path)}
    assert {worth: len(trial) for worth, trial in trials.items()} == {3.0: 4, 2.0: 2, 1.0: 2}
    assert (tmp_path / "log").read_text().splitlines() == [
        *(f"seen {i}" for i in range(1, 5)),
        "complete 600.0",
        *(line for r in (400.0, 200.0) for line in ("seen 1", "seen 2", f"complete {r}")),
    ]
    # A checkpoint after each evaluation, at iterations 2 and 4; so the best one was evaluated.
    (best,) = [
        result
        for result in rllib_cikd.restore(tmp_path / "results" / "tuned").get_results()
        if result.metrics["training_iteration"] == 4
    ]
    assert [m["training_iteration"] for _, m in best.best_checkpoints] == [2, 4]
    assert [m["evaluation_best_return_mean"] for _, m in best.best_checkpoints] == [600, 600]
    assert best.get_best_checkpoint("evaluation_best_return_mean", "max") in [
        checkpoint for checkpoint, _ in best.best_checkpoints
    ]


def wait_for(process: Popen, happened: Callable[[], object]) -> None:
    deadline = monotonic() + 600
    while not happened():
        assert process.poll() is None, process.communicate()
        assert monotonic() < deadline
        sleep(0.1)


@pytest.mark.slow
def test_a_signal_ends_a_population_after_checkpoints(tmp_path):
    """The trial that is worth less goes on from the other one's checkpoint, with its settings; the
    signal comes after that, and the run is resumed."""
    write(
        tmp_path,
        {"grid_search": [1.0, 3.0]},
        stop={"timesteps_total": 1000},
        scheduler={
            "pbt": {
                "time_attr": "training_iteration",
                "perturbation_interval": 2,
                "quantile_fraction": 0.5,
                "hyperparam_mutations": {"actor_lr": [1e-4, 3e-4, 1e-3]},
            }
        },
    )
    process = start(*COMMAND, cwd=tmp_path)
    wait_for(process, lambda: (tmp_path / "results/tuned/pbt_global.txt").is_file())
    wait_for(process, lambda: max(map(len, rows(tmp_path))) >= 3)
    os.killpg(process.pid, signal.SIGTERM)
    exit_code, _, stderr = finish(process)
    assert exit_code == 143, stderr
    assert "2 unfinished; to go on from the last checkpoints" in stderr
    assert "Traceback" not in stderr
    for trial in tmp_path.glob("results/tuned/CIKD_*"):
        assert list(trial.glob("checkpoint_*"))
    before = rows(tmp_path)
    assert {trial[-1]["config"]["env_config"]["worth"] for trial in before} == {3.0}
    assert max(map(len, before)) < 5

    exit_code, _, stderr = finish(start(*COMMAND, "--resume", cwd=tmp_path))
    assert exit_code == 0, stderr
    assert "differs" not in stderr
    for trial, old in zip(rows(tmp_path), before, strict=True):
        assert trial[: len(old)] == old  # nothing is lost, nothing comes again
        assert trial[-1]["training_iteration"] == 5
        assert trial[-1]["done"]
        assert trial[-1]["config"]["env_config"]["worth"] == 3.0
