"""What all commands share: errors in one line, or with their traceback, and interruptions."""

import pytest


@pytest.mark.parametrize(
    "command", [("train", "file"), ("evaluate",), ("study", "run"), ("report",)]
)
def test_errors_are_one_line_and_have_a_traceback_with_v(run_main, command):
    exit_code, stdout, stderr = run_main(*command, "nowhere.yaml")
    assert (exit_code, stdout) == (2, "")
    assert stderr.startswith("rllib: error: nowhere.yaml: no such f")
    assert stderr.count("\n") == 1
    exit_code, _, stderr = run_main(*command, "nowhere.yaml", "-v")
    assert exit_code == 2
    assert stderr.startswith("Traceback")
    assert "\nrllib: error: nowhere.yaml: no such f" in stderr


def test_interrupted(run_main, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("rllib_cikd.experiments.checkpoint_evaluation.find_checkpoint", interrupt)
    assert run_main("evaluate", "x") == (130, "", "rllib: interrupted\n")
