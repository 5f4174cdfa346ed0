"""`rllib study run`: what it says when its folder cannot be written to."""

from __future__ import annotations

import shutil

import pytest
from study_examples import EXAMPLE

from rllib_cikd.common.errors import CommandError
from rllib_cikd.study import command


@pytest.fixture
def without_ray(monkeypatch):
    monkeypatch.setattr(command, "start_ray", lambda *_: False)


def test_a_place_that_cannot_be_written_to(without_ray, project):
    with pytest.raises(CommandError, match=r"/proc/x/small cannot be .*--storage-path\.$"):
        command.run(str(project / "studies" / "small.yaml"), storage_path="/proc/x")


def test_modules_that_register_environments(without_ray, project, monkeypatch):
    """Looked for beside the study; once a session has begun, they need not be named again."""
    (project / "studies" / "users_study_envs.py").write_text(
        "import gymnasium as gym\n"
        "from ray import tune\n"
        'tune.register_env("of_a_study", lambda config: gym.make("Pendulum-v1"))\n'
    )
    example = project / "tuned_examples" / "small.yaml"
    example.write_text(EXAMPLE.replace("Pendulum-v1", "of_a_study"))
    file, seen = str(project / "studies" / "small.yaml"), []
    monkeypatch.setattr(command, "run_study", lambda study, folder: seen.append(study) or [])
    monkeypatch.setattr(command, "exit_code", lambda *_: 0)
    with pytest.raises(CommandError, match="of_a_study"):
        command.run(file, storage_path=str(project))
    command.run(file, storage_path=str(project), imports=["users_study_envs"])
    (study,) = seen
    assert study.modules.names == ("users_study_envs",)
    session = project / "small" / "session-1"
    session.mkdir()
    (session / "user_modules.json").write_text(study.modules.to_json())
    command.run(file, storage_path=str(project))
    assert seen[1].modules == study.modules


def test_what_a_study_does_not_look_at_is_said(without_ray, project, monkeypatch, capsys):
    example = project / "tuned_examples" / "small.yaml"
    example.write_text(EXAMPLE.replace("  run:", "  checkpoint_freq: 5\n  run:"))
    monkeypatch.setattr(command, "_train", lambda *_: 0)
    command.run(str(project / "studies" / "small.yaml"), storage_path=str(project))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rllib: note: a study does not look at checkpoint_freq of small: ")


@pytest.mark.parametrize("raised", [RuntimeError("of Tune's"), OSError(28, "No space left")])
def test_a_folder_that_vanishes(without_ray, project, monkeypatch, capsys, raised):
    def run_study(study, folder):
        if isinstance(raised, RuntimeError):
            shutil.rmtree(folder)
        raise raised

    monkeypatch.setattr(command, "run_study", run_study)
    assert command.run(str(project / "studies" / "small.yaml"), storage_path=str(project)) == 1
    problem = "has been removed" if isinstance(raised, RuntimeError) else "No space left"
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{problem}. The study has stopped." in line
    assert line.endswith("run the same command again to go on.")


def test_other_errors_are_not_hidden(without_ray, project, monkeypatch):
    def run_study(study, folder):
        raise RuntimeError("a defect")

    monkeypatch.setattr(command, "run_study", run_study)
    with pytest.raises(RuntimeError, match="a defect"):
        command.run(str(project / "studies" / "small.yaml"), storage_path=str(project))
