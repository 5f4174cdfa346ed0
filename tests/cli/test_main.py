"""The `rllib` command as a whole: its version, its help, and what it says of wrong options."""

import pytest

from rllib_cikd import __version__


def test_version(run_main):
    assert run_main("--version") == (0, f"rllib-cikd {__version__}\n", "")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ((), ("train", "evaluate", "study", "report", "--version", "--install-completion")),
        (("train",), ("file",)),
        (("study",), ("run",)),
    ],
)
def test_help_of_groups(run_main, command, words):
    exit_code, stdout, stderr = run_main(*command, "--help")
    assert (exit_code, stderr) == (0, "")
    for word in words:
        assert word in stdout


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ([], "Missing command. See `rllib --help`."),
        (["train"], "Missing command. See `rllib train --help`."),
        (["trian"], "No such command 'trian'. Did you mean 'train'? See `rllib --help`."),
        (["study", "rnu"], "No such command 'rnu'. Did you mean 'run'? See `rllib study --help`."),
        (["train", "file"], "Missing argument 'FILE'. See `rllib train file --help`."),
        (["train", "file", "x", "--reume"], "No such option: --reume (Possible options: --resume)"),
        (["evaluate", "x", "y"], "Got unexpected extra argument(s) (y)"),
        (["evaluate", "x", "--episodes", "0"], "Invalid value for '--episodes': "),
        (["evaluate", "x", "--seed", "one"], "Invalid value for '--seed': "),
        (["evaluate", "x", "--out"], "Option '--out' requires an argument."),
    ],
)
def test_wrong_options_are_one_line(run_main, command, error):
    exit_code, stdout, stderr = run_main(*command)
    assert (exit_code, stdout) == (2, "")
    assert stderr.startswith(f"rllib: error: {error}")
    assert stderr.count("\n") == 1
