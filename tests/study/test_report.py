"""What a report finds in a folder: a run, a trial, a study, or nothing to show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_examples import result, write_results

from rllib_cikd.common.errors import CommandError
from rllib_cikd.study.report import report


@pytest.fixture(autouse=True)
def no_figures(monkeypatch) -> None:
    monkeypatch.setattr("rllib_cikd.report.figures.save_figures", lambda *_: [])


def trial(run: Path, name: str, seed: int | None = 7, shift: float = 0, **settings) -> Path:
    """The folder of a trial that has been evaluated twice; `shift` raises its last mean return."""
    results = [result(1, 100, 0), result(2, 200, 1)]
    for each in results:
        each["config"]["seed"] = seed
    results[1]["evaluation"]["ensemble"]["mean_return_mean"] += shift
    (run / name).mkdir(parents=True)
    config = {"env": "Task-v0", "seed": seed, **settings}
    (run / name / "params.json").write_text(json.dumps(config))
    return write_results(run / name, *results)


def markdown(folder: Path) -> str:
    return (folder / "report" / "report.md").read_text()


def test_trials_are_named_by_the_settings_in_which_they_differ(tmp_path: Path):
    """With 7 and 9 in place of 5 and 5 the differences are 2 and 4."""
    for seed, shift in ((0, 2), (1, 4)):
        trial(tmp_path, f"two_{seed}", seed, ensemble_size=2, tau=0.01)
        trial(tmp_path, f"five_{seed}", seed, shift, ensemble_size=5, tau=0.01)
    report(str(tmp_path), baseline="ensemble_size=2")
    page = markdown(tmp_path)
    assert "| Task-v0 | ensemble_size=5 | +3.00 [2.00 to 4.00] | – | 2 of 2 | 200 |" in page
    assert "| `ensemble_size` | `2` | `3` | ensemble_size=2 |" in page
    assert "| `ensemble_size` | `5` | `3` | ensemble_size=5 |" in page
    assert "| `tau` | `0.01` | `0.005` | all |" in page
    assert "Seeds: 0, 1." in page


def test_trials_without_a_seed_are_numbered(tmp_path: Path):
    for name in ("a", "b"):
        trial(tmp_path / "run", name, seed=None)
    report(str(tmp_path / "run"))
    page = markdown(tmp_path / "run")
    assert [row.split("|")[3].strip() for row in page.splitlines() if "| Task-v0 | run |" in row][
        -2:
    ] == ["0", "1"]
    assert "2 without a seed" in page


def test_a_trial_that_has_no_evaluation_yet_is_left_out(tmp_path: Path):
    trial(tmp_path, "a")
    write_results((tmp_path / "b").mkdir() or tmp_path / "b", result(1, None, 0))
    report(str(tmp_path))
    assert "| 200 | 1 |" in markdown(tmp_path)


def test_folders_with_nothing_to_show(tmp_path: Path):
    with pytest.raises(CommandError, match=r"/nowhere: no such folder\.$"):
        report(str(tmp_path / "nowhere"))
    with pytest.raises(CommandError, match=r"no evaluations .* below it, nor results of a run"):
        report(str(tmp_path))
    (tmp_path / "begun").mkdir()
    write_results(tmp_path / "begun")
    with pytest.raises(CommandError, match=r"no results yet \(result.json is empty\)"):
        report(str(tmp_path))
    write_results(tmp_path / "begun", result(1, None, 0), result(2, None, 0))
    with pytest.raises(CommandError, match=r"its 2 results hold no evaluation .*evaluation_interv"):
        report(str(tmp_path))


@pytest.mark.parametrize("content", ["[1]\n", '{"training_iteration": 1}\n', "7\n"])
def test_results_of_something_else(tmp_path: Path, content: str):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(CommandError, match=r"result\.json: these are not results of CIKD"):
        report(str(tmp_path))


def test_a_place_that_cannot_be_written_to(tmp_path: Path):
    trial(tmp_path, "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match=r"file/report.*: Not a directory"):
        report(str(tmp_path), out=str(tmp_path / "file" / "report"))


def test_a_study_tells_its_settings(tmp_path: Path):
    cells = {}
    for variant, size in (("vanilla-sac", 1), ("cikd", 3)):
        for task in ("A-v0", "B-v0"):
            name = f"{task}_{variant}_seed0"
            config = {"env": task, "seed": 0, "ensemble_size": size, "tau": 0.005}
            if task == "A-v0":
                config["gamma"] = 0.9
            cells[name] = {"variant": variant, "steps": 200, "session": "s", "config": config}
            folder = trial(tmp_path / "s", name, 0)
            text = (folder / "result.json").read_text().replace("Task-v0", task)
            (folder / "result.json").write_text(text)
    (tmp_path / "cells.json").write_text(json.dumps(cells))
    (tmp_path / "study.json").write_text('{"baseline": "cikd"}')
    report(str(tmp_path))
    page = markdown(tmp_path)
    assert "baseline: **cikd**" in page
    assert "| `ensemble_size` | `1` | `3` | vanilla-sac |" in page
    assert "| `gamma` | `0.9` | `0.99` | vanilla-sac on A-v0; cikd on A-v0 |" in page
    assert "`tau`" not in page
    assert "Command, versions and machine: not recorded in this folder." in page
