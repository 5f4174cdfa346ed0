"""The entry of the console script, and of `python -m rllib_cikd`."""

import subprocess
import sys
from pathlib import Path

import pytest

import rllib_cikd

HEAVY = ("ray", "torch", "gymnasium", "numpy", "pandas")
# Runs the command, then says which heavy packages have been imported.
PROGRAM = f"""
import sys
import rllib_command
sys.argv[1:] = {{args}}
exit_code = rllib_command.main()
print(exit_code, [name for name in {HEAVY} if name in sys.modules])
"""


def python(*args: str) -> str:
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("args", [["--help"], ["train", "file", "--help"], ["--version"], ["x"]])
def test_help_does_not_load_ray_and_torch(args):
    last = python("-c", PROGRAM.format(args=args)).splitlines()[-1]
    assert last == f"{2 if args == ['x'] else 0} []"


def test_watching_does_not_load_ray_and_torch(tmp_path):
    (tmp_path / "cells.json").write_text("{}")
    stdout = python("-c", PROGRAM.format(args=["study", "watch", str(tmp_path)]))
    assert stdout.startswith(f"{tmp_path.name}: no run has begun")
    assert stdout.endswith("\n0 []\n")


def test_a_command_has_the_whole_package(tmp_path):
    """`rllib_cikd/__init__.py` has been run when a user's file imports from it."""
    file = tmp_path / "uses_package.py"
    file.write_text("import rllib_cikd\nprint(rllib_cikd.CIKDConfig.__name__)\nconfig = 3")
    stdout = python("-c", PROGRAM.format(args=["train", "file", str(file)]))
    assert stdout.startswith("CIKDConfig\n2 ['ray', 'torch'")


def test_the_package_alone():
    """Importing it registers CIKD, and it can be run as the command."""
    stdout = python(
        "-c",
        "import rllib_cikd, runpy, sys\n"
        "from ray.tune.registry import get_trainable_cls\n"
        "assert get_trainable_cls('CIKD') is rllib_cikd.CIKD\n"
        "sys.argv[1:] = ['--version']\n"
        "runpy.run_module('rllib_cikd', run_name='__main__')",
    )
    assert stdout == f"rllib-cikd {rllib_cikd.__version__}\n"


def test_the_entry_is_the_console_scripts():
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert 'rllib = "rllib_command:main"' in pyproject
