"""Live progress: lines where there is no terminal, bars where there is one."""

import io
import logging
import pickle
import re
import sys
import time
from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial
from rich.console import Console

from rllib_cikd.common.result_keys import STEPS
from rllib_cikd.experiments.progress import ProgressCallback

NAN = float("nan")
FIRST = {
    STEPS: 1000,
    "training_iteration": 1,
    "ensemble": {"return_mean": {"policy_0": -280.4, "policy_1": NAN}, "teacher": NAN},
    "evaluation": {"ensemble": {"best_return_mean": NAN, "worst_return_mean": NAN}},
}
SECOND = {
    STEPS: 3000,
    "training_iteration": 3,
    "ensemble": {
        "return_mean": {f"policy_{k}": 1000.0 + k for k in (10, 2, 1)},
        "teacher": 2,
        "num_distillations_lifetime": 1,
    },
    "evaluation": {"ensemble": {"best_return_mean": 3412.0, "worst_return_mean": 2987.0}},
}


@pytest.fixture
def trial():
    """A trial until 10,000 steps."""
    return Trial("CIKD", stub=True, stopping_criterion={STEPS: 10_000})


@pytest.fixture
def report(monkeypatch, capsys, trial):
    """Returns a function that reports a result at a time, and gives what has been printed."""
    callback = ProgressCallback("cheetah")
    callback.setup()

    def report(seconds, **result):
        monkeypatch.setattr(time, "monotonic", lambda: seconds)
        callback.on_trial_result(iteration=1, trials=[trial], trial=trial, result=result)
        return capsys.readouterr().out

    return report


def test_lines_of_an_ensemble(report):
    assert report(100.0, **FIRST) == "cheetah  1,000/10,000 steps (10%) | R_k -280 -\n"
    # 2,000 steps in 20 s: 7,000 more take 70 s. Members in order of their numbers.
    assert report(120.0, **SECOND) == (
        "cheetah  3,000/10,000 steps (30%) | 100 steps/s | 1m 10s left | R_k 1,001 1,002 1,010 | "
        "teacher 2 (phase 1) | evaluation best 3,412, worst 2,987\n"
    )


def test_lines_are_not_too_frequent_but_tell_the_end(report):
    assert report(0.0, **{STEPS: 100})
    assert report(4.0, **{STEPS: 200}) == ""
    assert report(5.0, **{STEPS: 300})
    assert report(6.0, **{STEPS: 400}) == ""
    last = report(7.0, **{STEPS: 10_000}, done=True)
    assert "10,000/10,000 steps (100%)" in last
    assert "left" not in last


def test_lines_of_other_algorithms_and_of_nothing(report):
    line = report(0.0, env_runners={"episode_return_mean": 21.5})
    assert line == "cheetah  -/10,000 steps | return 21.5\n"
    assert report(10.0) == "cheetah  -/10,000 steps | return -\n"


def test_a_criterion_that_is_never_reported_is_named_once(report, trial):
    trial.stopping_criterion["distance"] = 5
    printed = [report(float(i), **FIRST, distanse=3) for i in range(20)]
    assert [i for i, text in enumerate(printed) if "`distance` is in `stop`" in text] == [9]


# ---------------------------------------------------------------- bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


def use_terminal(monkeypatch) -> Terminal:
    """Makes stdout a terminal of 100 columns. (A fixture cannot: pytest replaces stdout again.)"""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    return stream


def screen(callback: ProgressCallback, width: int = 97) -> list[str]:
    """The lines that a callback shows now, on a terminal three columns wider."""
    console = Console(width=width + 3, file=io.StringIO())
    console.print(callback._screen(width))
    lines = [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]
    assert all(len(line) <= width for line in lines)
    return lines


def test_a_lone_trials_bar(monkeypatch, trial):
    callback = ProgressCallback("cheetah")
    callback.on_trial_start(1, [trial], trial)
    (line,) = screen(callback)
    assert re.fullmatch(r"cheetah  ━+  starting", line)
    for seconds, result in ((100.0, FIRST), (120.0, SECOND)):
        monkeypatch.setattr(time, "monotonic", lambda seconds=seconds: seconds)
        callback.on_trial_result(2, [trial], trial, result)
    monkeypatch.setattr(time, "monotonic", lambda: 130.0)  # the time left goes on between reports
    first, second = screen(callback)
    bar = re.fullmatch(r"cheetah  ([━╸╺ ]+)3,000/10,000 steps \(30%\) \| (.*)", first)
    assert bar
    assert bar.group(2) == "100 steps/s | 1m 00s left"
    assert second == (
        "  R_k 1,001 1,002 1,010 | teacher 2 (phase 1) | evaluation best 3,412, worst 2,987"
    )
    assert len(screen(callback, width=60)) == 2  # cut, not wrapped
    callback.on_trial_complete(3, [trial], trial)
    assert screen(callback) == []


def test_bars_of_several_trials_are_a_line_each(monkeypatch):
    trials = [Trial("CIKD", stub=True, experiment_tag=f"{i}_size={i}") for i in (1, 2)]
    callback = ProgressCallback("cheetah", several_trials=True)
    monkeypatch.setattr(callback, "footer", lambda: "all: 0 of 2 ended")
    for trial in trials:
        callback.on_trial_start(1, trials, trial)
        callback.on_trial_result(1, trials, trial, SECOND)
    lines = screen(callback)
    assert len(lines) == 3
    for line, label in zip(lines, ("cheetah #1 size=1", "cheetah #2 size=2"), strict=False):
        assert re.match(rf"{label}  [━ ]+  3,000 steps \| R_k 1,001 1,002 1,010 \| teach.*…", line)
    assert lines[2] == "all: 0 of 2 ended"


def test_on_a_terminal_a_line_stays_when_a_trial_has_ended(monkeypatch, trial):
    terminal = use_terminal(monkeypatch)
    callback = ProgressCallback("cheetah")
    callback.setup()
    assert callback.has_bars
    callback.on_trial_start(1, [trial], trial)
    callback.on_trial_result(1, [trial], trial, {STEPS: 5_000})
    before_end = terminal.getvalue()
    callback.on_trial_result(2, [trial], trial, {STEPS: 10_000, "done": True})
    callback.on_experiment_end([trial])
    assert "cheetah  5,000/10,000 steps" not in before_end  # a bar, no lines
    assert "cheetah  10,000/10,000 steps (100%) | " in terminal.getvalue()
    assert sys.stdout is terminal


def test_logs_and_warnings_are_printed_above_the_bars(monkeypatch, trial):
    terminal, stderr = use_terminal(monkeypatch), Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    handler = logging.StreamHandler()  # as Ray's, made before there are bars
    logger = logging.getLogger("rllib_cikd.tests")
    logger.addHandler(handler)
    callback = ProgressCallback("cheetah")
    callback.setup()
    callback.on_trial_start(1, [trial], trial)
    logger.warning("a log")
    print("a warning", file=sys.stderr)
    callback.on_experiment_end([trial])
    logger.warning("afterwards")
    logger.removeHandler(handler)
    for text in ("a log", "a warning"):  # where the bars are, so that they make room
        assert text in terminal.getvalue()
    assert stderr.getvalue() == "afterwards\n"


@pytest.mark.parametrize("why", ["asked for", "a dumb terminal"])
def test_no_bars_on_a_terminal(monkeypatch, why):
    use_terminal(monkeypatch)
    callback = ProgressCallback("cheetah", bars=why != "asked for")
    if why == "a dumb terminal":
        monkeypatch.setenv("TERM", "dumb")
    callback.setup()
    assert not callback.has_bars


def test_tune_can_store_it():
    """With the run, before it starts: a resumed run has the same progress."""
    copy = pickle.loads(pickle.dumps(ProgressCallback("cheetah", several_trials=True)))
    assert copy.label(SimpleNamespace(experiment_tag="2_size=5")) == "cheetah #2 size=5"
