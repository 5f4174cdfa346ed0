"""`rllib study run`: how a study is cut off, goes on and grows."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path

import pytest
from helpers import finish, start
from ray import tune
from study_examples import EXAMPLE, STUDY, result, write_results

from rllib_cikd import CIKD, CIKDConfig
from rllib_cikd.cli.main import main
from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.outcome import state
from rllib_cikd.experiments.tune_record import newest_record
from rllib_cikd.study import run
from rllib_cikd.study.folder import recorded_cells
from rllib_cikd.study.plan import load_study


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def runs_that_ended(session: Path) -> set[str]:
    """By Tune's record, as far as it can be read at this moment."""
    try:
        (record,) = session.glob("experiment_state-*.json")
        trials = [json.loads(trial) for trial, _ in json.loads(record.read_text())["trial_data"]]
    except ValueError:
        return set()
    return {t["config"]["__cell__"] for t in trials if t["status"] == "TERMINATED"}


def test_a_killed_study_goes_on_and_grows(project, capsys):
    """What has ended is not run again, what is added to the file is; changes are refused."""
    command = ["study", "run", "studies/small.yaml", "--storage-path", "results"]
    folder = project / "results" / "small"
    killed = start(*command, cwd=project)
    deadline = time.monotonic() + 240
    while not (ended := runs_that_ended(folder / "session-1")):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    assert len(ended) < 4
    raw_files = [path for name in ended for path in (folder / "raw").glob(f"{name}.*.csv")]
    assert len(raw_files) == 2 * len(ended)
    before = {path: path.read_text() for path in raw_files}  # with wall times

    exit_code, stdout, stderr = finish(start(*command, cwd=project))
    assert exit_code == 0, stderr
    assert "4 of 4 runs ended" in stdout
    assert {path: path.read_text() for path in raw_files} == before
    for variant, size in (("vanilla-sac", 1), ("cikd", 3)):
        for seed in (0, 1):
            raw = folder / "raw" / f"small_{variant}_seed{seed}"
            evaluations = rows(raw.with_name(f"{raw.name}.evaluations.csv"))
            members = {f"policy_{k}" for k in range(size)} | {"best", "worst", "mean", "elected"}
            assert {(row["member"], int(row["step"])) for row in evaluations} == {
                (member, step) for member in members for step in (400, 800)
            }
            assert {row["seed"] for row in evaluations} == {str(seed)}
            phases = rows(raw.with_name(f"{raw.name}.phases.csv"))
            assert len(phases) == (0 if size == 1 else 2 * size)

    for events in folder.glob("session-1/*/events.out.tfevents.*"):
        assert b"custom_scalars" in events.read_bytes()

    # One seed more: only its runs are trained.
    results = {p: p.stat().st_mtime for p in folder.glob("session-1/*/result.json")}
    study = project / "studies" / "small.yaml"
    study.write_text(STUDY.replace("[0, 1]", "[0, 1, 2]"))
    exit_code, stdout, stderr = finish(start(*command, cwd=project))
    assert exit_code == 0, stderr
    assert "6 of 6 runs ended" in stdout
    assert {p: p.stat().st_mtime for p in folder.glob("session-1/*/result.json")} == results
    assert {path.name for path in (folder / "session-2").glob("small_*")} == {
        "small_vanilla-sac_seed2",
        "small_cikd_seed2",
    }

    assert main(["report", str(folder)]) == 0
    report = (folder / "report" / "report.md").read_text()
    assert f"report: {folder / 'report' / 'report.html'}" in capsys.readouterr().out
    assert "baseline: **vanilla-sac**" in report
    assert (folder / "report" / "figures" / "learning-curves.png").stat().st_size > 10_000

    study.write_text(STUDY.replace("assess_distillation: true", "tau: 0.01"))
    exit_code, _, stderr = finish(start(*command, cwd=project))
    assert exit_code == 2
    assert "assess_distillation=True; now it is False" in stderr
    assert "--experiment-name" in stderr


def pretend_a_session(monkeypatch, folder: Path) -> None:
    """As if Tune had trained the runs in `cells.json`, and had nothing left to do."""
    monkeypatch.setattr(run, "_sessions", lambda *_: [folder / "session-1"])
    for name in ("set_horizons", "mend_run", "_resume"):
        monkeypatch.setattr(run, name, lambda *_: [])


def iterations(folder: Path) -> dict[int, list[int]]:
    """By seed, those of the runs of `vanilla-sac`."""
    return {
        int(path.parent.name.partition("_seed")[2]): [
            json.loads(line)["training_iteration"] for line in path.read_text().splitlines()
        ]
        for path in sorted(folder.glob("session-1/*/result.json"))
    }


class InterruptedOnce(tune.Callback):
    """Sends Ctrl-C with the first result."""

    interrupted = False

    def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
        if not self.interrupted:
            self.interrupted = True
            signal.raise_signal(signal.SIGINT)


def test_what_a_begun_study_asks_for_may_change(ray_cluster, project, monkeypatch, capsys):
    """Runs that were taken out are left alone until they are put back; a horizon may be raised;
    what was killed at its horizon is over."""
    path, folder = project / "studies" / "small.yaml", project / "results"

    def asks_for(seeds: str, steps: int, done: bool = True) -> list[str]:
        text = STUDY.replace("[vanilla-sac, cikd]", "[vanilla-sac]").replace("[0, 1]", seeds)
        path.write_text(text.replace("steps: 1000", f"steps: {steps}"))
        results = run.run_study(load_study(path), folder)
        run.collect_raw(folder)
        assert all(state(result) == "done" for result in results) is done
        return sorted(Path(result.path).name for result in results)

    with monkeypatch.context() as patch:
        callbacks = run._callbacks
        patch.setattr(run, "_callbacks", lambda *given: [*callbacks(*given), InterruptedOnce()])
        patch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "1")
        asks_for("[0, 1, 2, 3, 4, 5]", 1000, done=False)
    begun = iterations(folder)
    assert "seed5" not in newest_record(folder / "session-1").read_text()  # Tune makes it later
    assert all(len(found) < 5 for found in begun.values())
    ended = {seed: [1, 2, 3, 4, 5] for seed in (0, 5)}

    capsys.readouterr()
    assert asks_for("[0, 5]", 1000) == ["small_vanilla-sac_seed0", "small_vanilla-sac_seed5"]
    alone = ", ".join(f"small_vanilla-sac_seed{seed}" for seed in (1, 2, 3))
    assert f"so left alone: {alone} and 1 more\n" in capsys.readouterr().out
    assert iterations(folder) == begun | ended

    record = newest_record(folder / "session-1")
    text = record.read_text()
    record.write_text(text.replace('\\"status\\": \\"TERMINATED', '\\"status\\": \\"RUNNING'))
    assert record.read_text() != text
    assert len(asks_for("[0, 5]", 1000)) == 2
    assert iterations(folder) == begun | ended

    assert len(asks_for("[0, 1, 4]", 1400)) == 3
    further = {seed: [1, 2, 3, 4, 5, 6, 7] for seed in (0, 1, 4)}
    assert iterations(folder) == begun | ended | further
    for seed in (0, 1, 4):
        evaluations = rows(folder / "raw" / f"small_vanilla-sac_seed{seed}.evaluations.csv")
        assert {int(row["step"]) for row in evaluations} == {400, 800, 1200}


def test_a_horizon_is_not_lowered(project, monkeypatch):
    path, folder = project / "studies" / "small.yaml", project / "results"
    monkeypatch.setattr(run, "_start", lambda *_: [])
    run.run_study(load_study(path), folder)  # writes cells.json, but Tune is not started
    pretend_a_session(monkeypatch, folder)
    path.write_text(STUDY.replace("steps: 1000", "steps: 900"))
    with pytest.raises(CommandError, match=r"with steps=1000; now it is 900\. .* raised, not low"):
        run.run_study(load_study(path), folder)
    path.write_text(STUDY.replace("steps: 1000", "steps: 1100"))
    run.run_study(load_study(path), folder)
    assert {cell["steps"] for cell in recorded_cells(folder).values()} == {1100}


def test_a_default_that_changed_since_is_refused(project, monkeypatch):
    """Unless the study sets it to what it was."""
    path, folder = project / "studies" / "small.yaml", project / "results"
    monkeypatch.setattr(run, "_start", lambda *_: [])
    run.run_study(load_study(path), folder)  # writes cells.json, but Tune is not started
    pretend_a_session(monkeypatch, folder)
    run.run_study(load_study(path), folder)
    monkeypatch.setattr(
        CIKD, "get_default_config", lambda: CIKDConfig().training(return_window=7, tau=0.01)
    )
    path.write_text(STUDY.replace("true}", "true, return_window: 5}"))
    with pytest.raises(CommandError, match=r"begun .* with tau=0.005; now it is 0.01.*`config`"):
        run.run_study(load_study(path), folder)
    path.write_text(STUDY.replace("true}", "true, return_window: 5, tau: 0.005}"))
    run.run_study(load_study(path), folder)


def test_a_setting_that_did_not_exist_when_the_study_was_begun_is_no_change(project, monkeypatch):
    path, folder = project / "studies" / "small.yaml", project / "results"
    monkeypatch.setattr(run, "_start", lambda *_: [])
    run.run_study(load_study(path), folder)  # writes cells.json, but Tune is not started
    cells = json.loads((folder / "cells.json").read_text())
    for cell in cells.values():
        del cell["config"]["max_evaluation_steps"]
    (folder / "cells.json").write_text(json.dumps(cells))
    pretend_a_session(monkeypatch, folder)
    run.run_study(load_study(path), folder)
    path.write_text(STUDY.replace("true}", "true, max_evaluation_steps: 999}"))
    with pytest.raises(CommandError, match=r"begun .* max_evaluation_steps=20000; now it is 999"):
        run.run_study(load_study(path), folder)


@pytest.mark.parametrize("left", ["nothing", "a folder without a record"])
def test_a_session_killed_before_its_first_record_starts_anew(project, monkeypatch, left):
    study, folder = load_study(project / "studies" / "small.yaml"), project / "results"
    started = []
    monkeypatch.setattr(
        run, "_start", lambda study, cells, session: started.append((session, cells)) or []
    )
    run.run_study(study, folder)  # writes cells.json, but Tune is not started
    if left != "nothing":
        (folder / "session-1").mkdir()
        (folder / "session-1" / "tuner.pkl").write_bytes(b"")
    run.run_study(study, folder)
    assert started == [(folder / "session-1", study.cells)] * 2


def test_figures_have_the_names_that_tasks_have_now(project, monkeypatch):
    """A second example of the environment has been added to the study since."""
    path, folder = project / "studies" / "small.yaml", project / "results"
    monkeypatch.setattr(run, "_start", lambda *_: [])
    run.run_study(load_study(path), folder)  # writes cells.json, but Tune is not started
    trial = folder / "session-1" / "small_cikd_seed0"
    trial.mkdir(parents=True)
    write_results(trial, result(2, 200, 1))
    run.collect_raw(folder)
    raw = folder / "raw" / "small_cikd_seed0.evaluations.csv"
    assert {row["task"] for row in rows(raw)} == {"Pendulum-v1"}

    pretend_a_session(monkeypatch, folder)
    (project / "tuned_examples" / "heavy.yaml").write_text(EXAMPLE)
    path.write_text(STUDY.replace("[small]", "[small, heavy]"))
    run.run_study(load_study(path), folder)
    run.collect_raw(folder)
    assert {row["task"] for row in rows(raw)} == {"small"}


@pytest.mark.parametrize("newer", ["figures", "results"])
def test_figures_are_not_replaced_by_older_results(project, monkeypatch, newer):
    """Tune copies a run's last results after its figures have been written, unless it is killed."""
    study, folder = load_study(project / "studies" / "small.yaml"), project / "results"
    monkeypatch.setattr(run, "_start", lambda *_: [])
    run.run_study(study, folder)  # writes cells.json, but Tune is not started
    name = study.cells[0].name
    trial, raw = folder / "session-1" / name, folder / "raw"
    trial.mkdir(parents=True)
    write_results(trial, result(2, 200, 1), result(4, 400, 2))
    run.collect_raw(folder)
    whole = (raw / f"{name}.evaluations.csv").read_text()
    write_results(trial, result(2, 200, 1))
    now = time.time()
    os.utime(trial / "result.json", (now, now))
    for path in raw.glob("*.csv"):
        os.utime(path, (now, now + (1 if newer == "figures" else -1)))
    run.collect_raw(folder)
    kept = (raw / f"{name}.evaluations.csv").read_text() == whole
    assert kept is (newer == "figures")
