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


SMALL = """\
small:
  run: CIKD
  env: Pendulum-v1
  stop: {num_env_steps_sampled_lifetime: 1000}
  config:
    ensemble_size: 2
    random_steps: 200
    train_batch_size_per_learner: 8
    distillation_interval: 400
    distillation_updates: 3
    min_sample_timesteps_per_iteration: 200
    model_config: {fcnet_hiddens: [8, 8]}
    evaluation_interval: 2
    evaluation_duration: 2
    seed: 3
"""


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The folder of three short runs at a time, and the outcome of two of them.

    One ends well, of the other the trial fails. The third one, `small`, is there for its results.
    """
    folder = tmp_path_factory.mktemp("runs")
    write_experiment(folder / "good.yaml", stop={"timesteps_total": 10_000})
    (folder / "broken_env.py").write_text(BROKEN_ENV)
    write_experiment(folder / "bad.yaml", env="broken_env:Broken-v0", ensemble_size=2)
    options = ["--stop", '{"timesteps_total": 800}', "-c", '{"ensemble_size": 2}']
    options += ["--storage-path", "results"]
    (folder / "small.yaml").write_text(SMALL)
    small = start("train", "file", "small.yaml", "--storage-path", "results", cwd=folder)
    good = start("train", "file", "good.yaml", *options, cwd=folder)
    bad = start("train", "file", "bad.yaml", "--storage-path", "results", cwd=folder)
    exit_code, _, stderr = finish(small)
    assert exit_code == 0, stderr
    return folder, finish(good), finish(bad)
