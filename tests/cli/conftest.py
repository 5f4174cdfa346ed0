"""Commands in this process, and two short runs that several files look at."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers import finish, start, write_experiment

from rllib_cikd.cli.main import main

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


@pytest.fixture
def run_main(capsys) -> Callable[..., tuple[int, str, str]]:
    """Returns a function that runs a command in this process: exit code, stdout, stderr."""

    def run(*args: object) -> tuple[int, str, str]:
        return main([str(arg) for arg in args]), *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The folder and outcome of two short runs: one ends well, of the other the trial fails."""
    folder = tmp_path_factory.mktemp("runs")
    write_experiment(folder / "good.yaml", stop={"timesteps_total": 10_000})
    (folder / "broken_env.py").write_text(BROKEN_ENV)
    write_experiment(folder / "bad.yaml", env="broken_env:Broken-v0", ensemble_size=2)
    options = ["--stop", '{"timesteps_total": 800}', "-c", '{"ensemble_size": 2}']
    options += ["--storage-path", "results"]
    good = start("train", "file", "good.yaml", *options, cwd=folder)
    bad = start("train", "file", "bad.yaml", "--storage-path", "results", cwd=folder)
    return folder, finish(good), finish(bad)
