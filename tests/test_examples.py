"""Each script of `examples/` runs, at small scale, from a folder that has nothing to do with it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import small_config

from rllib_cikd.experiments.export import export

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *args: str, cwd: Path) -> str:
    """Runs an example as a user does; returns what it printed."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "OMP_", "TUNE_"))}
    env["PYTHONPATH"] = os.pathsep.join([path for path in sys.path if path])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *args],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def lines(stdout: str, pattern: str) -> list[str]:
    return [line for line in stdout.splitlines() if re.search(pattern, line)]


@pytest.mark.slow
def test_grid_search(tmp_path):
    stdout = run("grid_search", "--steps", "1000", "--out", "results", cwd=tmp_path)
    assert len(lines(stdout, r"^distillation  seed [01]  mean member +-\d")) == 2
    assert len(lines(stdout, r"^ +none  seed [01]  mean member +-\d")) == 2
    assert len(lines(stdout, rf"^best run: {tmp_path}/results/cikd-grid-search/CIKD_")) == 1


@pytest.mark.slow
def test_asha(tmp_path):
    stdout = run("asha", "--steps", "1600", "--runs", "3", "--out", "results", cwd=tmp_path)
    steps = [int(line.split()[0]) for line in lines(stdout, r"^ *\d+ steps  actor_lr")]
    assert len(steps) == 3
    assert max(steps) == 1600
    assert set(steps) <= {400, 800, 1600}  # who is given up is drawn with the step sizes
    assert len(lines(stdout, r"^best: actor_lr \S+, critic_lr \S+$")) == 1


@pytest.mark.slow
def test_pbt(tmp_path):
    stdout = run("pbt", "--steps", "1600", "--runs", "2", "--out", "results", cwd=tmp_path)
    (best,) = lines(stdout, r"^checkpoint: ")
    assert (Path(best.split(": ")[1]) / "cikd_manifest.json").is_file()
    assert len(lines(stdout, r"^mean member: -\d")) == 1


@pytest.mark.slow
def test_custom_environment(tmp_path):
    stdout = run("custom_environment", "--steps", "2000", cwd=tmp_path)
    distances = [float(line.split()[-1]) for line in lines(stdout, r"^ *\d+ steps  return")]
    assert len(distances) == 2
    assert distances[1] < distances[0]  # it learns, after 1,000 steps at random
    assert len(lines(stdout, r"^action at x = 0.5: \[")) == 1


@pytest.mark.slow
def test_success_rate(tmp_path):
    stdout = run("success_rate", "--steps", "1000", cwd=tmp_path)
    number = r"[01]\.\d\d"
    assert lines(stdout, rf"1000 steps  success in training {number}, in evaluation {number};")


@pytest.mark.slow
def test_unequal_members(tmp_path):
    stdout = run("unequal_members", "--steps", "1000", cwd=tmp_path)
    assert lines(stdout, r"1000 steps  policy_0 +-\d+.*  policy_1 +-\d+.*  policy_2 +-\d")
    assert "taught, times: {" in stdout


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("shimmy"), reason="Shimmy is not installed")
def test_dm_control_suite(tmp_path):
    stdout = run("dm_control_suite", "--steps", "2000", cwd=tmp_path)
    assert lines(stdout, r"2000 steps  mean member +\d")


def test_deploy_50hz(build, tmp_path):
    """A checkpoint, and the same member as ONNX."""
    algo = build(small_config())
    algo.train()
    checkpoint = algo.save_to_path(str(tmp_path / "checkpoint"))
    export(checkpoint, form="onnx", out=str(tmp_path / "exported"), num_episodes=1)
    for folder in ("checkpoint", "exported"):
        # Slower than 50 Hz: a busy machine must keep the deadline, too.
        stdout = run("deploy_50hz", folder, "--seconds", "1", "--hz", "4", cwd=tmp_path)
        assert lines(stdout, r"^4 answers at 4 Hz \(250 ms each\): median \S+ ms, worst \S+ ms$")


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_an_example_is_run_above_and_says_how_long_it_takes(file):
    assert f"test_{file.stem}" in globals()
    header = file.read_text().split('"""')[1]
    assert f"python examples/{file.stem}.py" in header
    assert re.search(r"minutes? on|[Tt]en seconds", header)
    assert f"`{file.name}`" in (EXAMPLES.parent / "docs" / "EXAMPLES.md").read_text()
