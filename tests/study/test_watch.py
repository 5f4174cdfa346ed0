"""`rllib study watch`: the table of all runs of a study, from the files in its folder."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from study_examples import result, write_results

from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.run_lock import RunLock
from rllib_cikd.study import run_states, watch
from rllib_cikd.study.run_states import RunStates


def report(iteration: int, seconds: float = 2.0, **more) -> dict:
    """A result of two members after 100 steps an iteration; the last evaluation at 100 steps."""
    return {**result(iteration, 100, 1), "time_this_iter_s": seconds, **more}


def write_record(session: Path, **statuses: str) -> None:
    """Tune's record of a session: the status of each trial, by the name of its folder."""
    trials = [
        {
            "relative_logdir": name,
            "status": status,
            "experiment_tag": f"{i}_seed={i}",
            "stopping_criterion": {"num_env_steps_sampled_lifetime": 1000},
        }
        for i, (name, status) in enumerate(statuses.items())
    ]
    record = {"trial_data": [(json.dumps(trial), "{}") for trial in trials]}
    (session / "experiment_state-2026-01-31_12-00-00.json").write_text(json.dumps(record))


@pytest.fixture
def study(tmp_path) -> Path:
    """Five runs: one in each state, as long as a command goes on."""
    folder = tmp_path / "small"
    cells = {name: {"steps": 1000, "session": "session-1"} for name in "abcd"}
    cells["e"] = {"steps": 500, "session": "session-2"}
    session = folder / "session-1"
    for name in "abcd":
        (session / name).mkdir(parents=True)
    (folder / "cells.json").write_text(json.dumps(cells))
    write_record(session, a="TERMINATED", b="RUNNING", c="ERROR", d="PENDING")
    write_results(session / "a", report(10, done=True))
    # Of the last ten results, the one with the evaluation took 12 seconds.
    reports = [report(i, seconds=12.0 if i == 5 else 2.0) for i in range(1, 9)]
    write_results(session / "b", *reports, tail='{"training_iteration": 9, "num_')
    write_results(session / "c", report(3))
    return folder


@pytest.fixture
def being_trained(monkeypatch):
    """As if a command were training in the folder; a list to empty when it ends."""
    held = [True]
    monkeypatch.setattr(run_states, "in_use", lambda folder: bool(held))
    return held


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_runs_that_were_taken_out_are_not_shown(study, being_trained, capsys):
    (study / "study.json").write_text(json.dumps({"baseline": "v", "runs": ["a", "b", "new"]}))
    assert watch.watch(str(study)) == 0
    summary, _, _, *rows = capsys.readouterr().out.splitlines()
    assert summary == "small: 1 running, 1 ended, 7s left"
    assert [row.split()[0] for row in rows] == ["b", "a"]


def test_once_where_there_is_no_terminal(study, being_trained, capsys):
    assert watch.watch(str(study)) == 0
    summary, _, *table = capsys.readouterr().out.splitlines()
    # Run b has made 700 steps in 24 seconds: 200 of it are left, 1,000 of d and 500 of e.
    assert summary == "small: 1 running, 1 failed, 2 waiting, 1 ended, 58s left"
    columns = ["run", "state", "steps", "steps/s", "left", "R_k", "teacher", "mean", "best"]
    assert lines("\n".join(table)) == [
        columns,
        ["b", "running", "800/1,000", "29.2", "7s", "80", "160", "1", "5", "5"],
        ["c", "failed", "300/1,000", "-", "-", "30", "60", "1", "5", "5"],
        ["d", "waiting", "-/1,000", *"------"],
        ["e", "waiting", "-/500", *"------"],
        ["a", "ended", "1,000/1,000", "-", "-", "100", "200", "1", "5", "5"],
    ]


def test_a_study_that_was_cut_off(study):
    states = {run.name: run.state for run in RunStates(study).read()}
    assert states == {
        "b": "unfinished",
        "c": "failed",
        "d": "unfinished",
        "e": "unfinished",
        "a": "ended",
    }
    RunLock(study)  # of this very process, which does not train
    assert not RunStates(study).goes_on()


def test_what_changes_is_seen_and_half_written_files_are_not(study, being_trained):
    states = RunStates(study)
    record = next((study / "session-1").glob("experiment_state-*.json"))
    states.read()
    whole = record.read_text()
    record.write_text(whole[:-20])
    write_results(study / "session-1" / "d", report(1), report(2))
    runs = {run.name: run for run in states.read()}
    assert (runs["b"].state, runs["c"].state) == ("running", "failed")
    assert (runs["d"].steps, runs["d"].speed > 0) == (200, False)  # the record says it waits
    write_record(study / "session-1", a="TERMINATED", b="TERMINATED", c="RUNNING", d="RUNNING")
    runs = {run.name: run for run in states.read()}
    assert [runs[name].state for name in "abcd"] == ["ended", "ended", "running", "running"]
    assert runs["d"].speed == 50.0


def test_tunes_record_lags_behind_the_results(study, being_trained):
    write_results(study / "session-1" / "b", report(9), report(10, done=True))
    assert {run.name: run.state for run in RunStates(study).read()}["b"] == "ended"


def test_a_run_of_rllib_train(tmp_path, being_trained):
    folder = tmp_path / "mine"
    (folder / "CIKD_1").mkdir(parents=True)
    write_record(folder, CIKD_1="RUNNING")
    many = {f"policy_{k}": float(k) for k in (10, 2, 1)}
    last = report(4)
    last["ensemble"]["return_mean"] = many
    write_results(folder / "CIKD_1", report(3), last)
    (run,) = RunStates(folder).read()
    assert (run.name, run.state, run.steps, run.goal) == ("mine", "running", 400, 1000)
    assert run.returns == [1.0, 2.0, 10.0]
    write_record(folder, CIKD_1="RUNNING", CIKD_2="PENDING")
    assert [r.name for r in RunStates(folder).read()] == ["#0 seed=0", "#1 seed=1"]


def test_what_is_nothing_to_watch(tmp_path):
    with pytest.raises(CommandError, match=r"nowhere: no such folder\.$"):
        RunStates(tmp_path / "nowhere")
    with pytest.raises(CommandError, match=r"no study, nor a run of `rllib train`\. Give"):
        RunStates(tmp_path)
    (tmp_path / "cells.json").write_text("{")
    with pytest.raises(CommandError, match=r"cells\.json cannot be read: "):
        RunStates(tmp_path).read()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("end", ["the study ends", "Ctrl-C"])
def test_on_a_terminal_it_goes_on_until(study, being_trained, monkeypatch, end):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "40")
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        write_results(study / "session-1" / "b", report(8 + len(looks), done=len(looks) == 2))
        if len(looks) == 2:
            being_trained.clear()
        if end == "Ctrl-C":
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert watch.watch(str(study)) == 0
    shown = stream.getvalue()
    assert "small: 1 running, 1 failed, 2 waiting, 1 ended" in shown
    assert ("900/1,000" in shown) == (end == "the study ends")
    assert ("small: 1 failed, 2 unfinished, 2 ended" in shown) == (end == "the study ends")
    assert len(looks) == (2 if end == "the study ends" else 1)


def test_a_long_table_is_cut_to_the_terminal(study, being_trained):
    runs = RunStates(study).read()
    console = Console(width=120, file=io.StringIO())
    console.print(watch.screen("small", runs * 10, height=12))
    shown = console.file.getvalue().splitlines()
    assert len(shown) == 11
    assert shown[0].startswith("small: 10 running")
    assert shown[-1].strip() == "… and 43 more"
