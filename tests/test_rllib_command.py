"""The entry of the console script, and of `python -m rllib_cikd`."""

import subprocess
import sys
from pathlib import Path

import pytest

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
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("args", [["--help"], ["train", "file", "--help"], ["--version"], ["x"]])
def test_help_does_not_load_ray_and_torch(args):
    last = python("-c", PROGRAM.format(args=args)).splitlines()[-1]
    assert last == f"{2 if args == ['x'] else 0} []"


def test_a_command_has_the_whole_package(tmp_path):
    """`rllib_cikd/__init__.py` has been run when a user's file imports from it."""
    file = tmp_path / "uses_package.py"
    file.write_text("import rllib_cikd\nprint(rllib_cikd.CIKDConfig.__name__)\nconfig = 3")
    stdout = python("-c", PROGRAM.format(args=["train", "file", str(file)]))
    assert stdout.startswith("CIKDConfig\n2 ['ray', 'torch'")


def test_module_of_the_package():
    assert python("-m", "rllib_cikd", "--version").startswith("rllib-cikd ")


def test_importing_the_package_registers_the_algorithm():
    python(
        "-c",
        "import rllib_cikd; from ray.tune.registry import get_trainable_cls as get\n"
        "assert get('CIKD') is rllib_cikd.CIKD",
    )


def test_the_entry_is_the_console_scripts():
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert 'rllib = "rllib_command:main"' in pyproject
