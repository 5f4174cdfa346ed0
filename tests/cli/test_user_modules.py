"""Modules beside an experiment file, from any folder: train, evaluate, go on, act."""

import json
import os
import re
import shlex
import subprocess
import sys

from helpers import finish, start, write_experiment

ENV = """
import gymnasium as gym
from ray.rllib.callbacks.callbacks import RLlibCallback

class Slow(gym.Wrapper):
    def __init__(self, config):
        super().__init__(gym.make("Pendulum-v1"))

    def step(self, action):
        return super().step(0.5 * action)

class Count(RLlibCallback):
    def on_episode_end(self, *, episode, metrics_logger, **kwargs):
        metrics_logger.log_value("users_length", len(episode), reduce="max")
"""
# Not beside the file, but where the command is started.
REGISTRATION = """
from ray import tune
from users_env import Slow

tune.register_env("slow", Slow)
"""
ACT = """
import ray
from rllib_cikd import load_policy

policy = load_policy("results/slow")
print(ray.is_initialized(), policy.action_space.contains(policy([1.0, 0.0, 0.0])))
"""


def test_users_modules_are_found_from_everywhere(tmp_path):
    """In a remote env runner, too; what the command prints works as it is printed."""
    project, here, elsewhere = (tmp_path / name for name in ("project", "here", "elsewhere"))
    for folder in (project, here, elsewhere):
        folder.mkdir()
    (project / "users_env.py").write_text(ENV)
    (here / "users_registration.py").write_text(REGISTRATION)
    file = write_experiment(
        project / "slow.yaml",
        env="slow",
        stop={"timesteps_total": 400},
        ensemble_size=2,
        num_env_runners=1,
        callbacks="users_env.Count",
    )
    command = ["train", "file", "../project/slow.yaml", "--import", "users_registration"]
    trained = start(*command, "--storage-path", "../elsewhere/results", cwd=here)
    exit_code, stdout, stderr = finish(trained)
    assert exit_code == 0, stderr
    printed = re.search(r"^evaluate it: rllib (evaluate .*)$", stdout, re.MULTILINE)
    assert printed is not None

    evaluated = start(*shlex.split(printed[1]), "--episodes", "1", cwd=tmp_path)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    acting = subprocess.run(
        [sys.executable, "-c", ACT], cwd=elsewhere, env=env, capture_output=True, text=True
    )
    exit_code, stdout, stderr = finish(evaluated)
    assert exit_code == 0, stderr
    assert "CIKD on slow after 400 env steps" in stdout
    assert acting.stdout == "False True\n", acting.stderr

    # The run has ended: it goes on to a higher goal, with the settings that it was started with.
    file.write_text(file.read_text().replace("distillation_updates: 3", "distillation_updates: 4"))
    goal = ["--stop", '{"num_env_steps_sampled_lifetime": 800}']
    resumed = start(
        "train", "file", file, "--resume", "--storage-path", "results", *goal, cwd=elsewhere
    )
    exit_code, stdout, stderr = finish(resumed)
    assert exit_code == 0, stderr
    assert "differs: distillation_updates (4 in the file, 3 in the run). Start a new" in stderr
    assert "800/800 steps (100%)" in stdout
    (results,) = elsewhere.glob("results/slow/CIKD_*/result.json")
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [row["num_env_steps_sampled_lifetime"] for row in rows] == [200, 400, 600, 800]
    assert all("users_length" in row["env_runners"] for row in rows)
