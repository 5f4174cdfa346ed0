"""`rllib study run`: what it says when its folder cannot be written to."""

from __future__ import annotations

import shutil

import pytest

from rllib_cikd.common.errors import CommandError
from rllib_cikd.study import command


@pytest.fixture
def without_ray(monkeypatch):
    monkeypatch.setattr(command, "start_ray", lambda *_: False)


def test_a_place_that_cannot_be_written_to(without_ray, project):
    with pytest.raises(CommandError, match=r"/proc/x/small cannot be .*--storage-path\.$"):
        command.run(str(project / "studies" / "small.yaml"), storage_path="/proc/x")


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
