"""How the trials of a run ended, with what errors, and what they leave, in words."""

from __future__ import annotations

import math
import re
import shlex
import sys
from pathlib import Path

from ray import tune
from ray.tune.utils import flatten_dict

from rllib_cikd.common.errors import FAILED, INTERRUPTED, OK
from rllib_cikd.common.result_keys import STEPS, SUMMARIES, TRAINING_RETURN, evaluation_key
from rllib_cikd.common.text import format_number, format_table, trial_label


def report_outcome(
    grid: tune.ResultGrid, folder: str, score: tune.CheckpointConfig, resume: str, verbose: bool
) -> int:
    """Says how each trial ended, where its files are and how to go on; returns the exit code.

    Args:
        grid: What `Tuner.fit` returned.
        folder: Of the run.
        score: What checkpoints are scored by, if by anything.
        resume: The command that goes on with the run.
        verbose: Whether errors are shown with their whole traceback.
    """
    results = sorted((grid[i] for i in range(len(grid))), key=lambda result: result.path)
    several = len(results) > 1
    print("", *([_table(results), ""] if several else []), sep="\n")
    for result in results:
        label = f"{_label(result)}: " if several else ""
        if result.error:
            print(f"{label}failed: {error_text(result, verbose)}", file=sys.stderr)
        if result.checkpoint:
            path = result.checkpoint.path
            if not several:
                print(f"checkpoint:  {path}")
            print(f"{label or 'evaluate it: '}{shlex.join(['rllib', 'evaluate', path])}")
            best = best_checkpoint(result, score)
            if best and best[0] != path:
                command = shlex.join(["rllib", "evaluate", best[0]])
                print(f"{label}the best, {score.checkpoint_score_attribute} {best[1]}: {command}")
        elif not result.error:
            print(f"{label}no checkpoint was written")
    print(f"TensorBoard: {shlex.join(['tensorboard', '--logdir', folder])}", flush=True)
    left = [result.checkpoint for result in results if state(result) != "done"]
    return exit_code(results, remedy([c.path for c in left if c], resume))


def remedy(checkpoints: list[str], resume: str) -> str:
    """How a run goes on that has left these checkpoints."""
    if checkpoints:
        return f"to go on from the last checkpoint{'s' * (len(checkpoints) > 1)}: {resume}"
    return f"no checkpoint was written, so it starts again from the beginning: {resume}"


def last_checkpoints(folder: str) -> list[str]:
    """The newest checkpoint of each trial in a run's folder."""
    newest = {path.parent: str(path) for path in sorted(Path(folder).glob("*/checkpoint_*"))}
    return list(newest.values())


def best_checkpoint(result: tune.Result, score: tune.CheckpointConfig) -> tuple[str, str] | None:
    """A trial's best checkpoint and its score as text; None if none has a score."""
    attribute = score.checkpoint_score_attribute
    if attribute is None:
        return None
    scored = [
        (float(metrics[attribute]), checkpoint.path)
        for checkpoint, metrics in result.best_checkpoints or []
        if not math.isnan(metrics.get(attribute, math.nan))
    ]
    if not scored:
        return None
    value, path = (min if score.checkpoint_score_order == "min" else max)(scored)
    return path, format_number(value)


def exit_code(results: list[tune.Result], remedy: str) -> int:
    """Counts on stderr the trials that are not done, with the remedy; returns the exit code."""
    states = [state(result) for result in results]
    if set(states) == {"done"}:
        return OK
    counts = ", ".join(f"{states.count(s)} {s}" for s in ("failed", "unfinished") if s in states)
    print(f"{counts}; {remedy}", file=sys.stderr)
    return INTERRUPTED if "unfinished" in states else FAILED


def state(result: tune.Result) -> str:
    """ "done", "failed" or "unfinished"."""
    if result.error:
        return "failed"
    return "done" if (result.metrics or {}).get("done") else "unfinished"


def error_text(result: tune.Result, verbose: bool) -> str:
    """The error of a trial: what was raised first and where, or with `verbose` all of it."""
    error = str(result.error)
    return f"{error if verbose else root_cause(error)}\nits log: {result.path}/error.txt"


def root_cause(error: str) -> str:
    """Shortens the traceback of a chain of exceptions to the first one and its last frame."""
    first = re.split(r"\n(?:The above exception was|During handling of)", error)[0]
    died = re.search(r"Worker exit type: (\w+)\s+Worker exit detail: (.*)", first)
    if "actor died unexpectedly" in first and died:
        return (
            f"The trial's process died ({died[1]}: {died[2].strip()}). It left no Python error: "
            "either memory ran out, or compiled code crashed, most likely that of the environment."
        )
    frames = list(re.finditer(r'^  File "(.+)", line (\d+), in (.+)\n', first, re.MULTILINE))
    if not frames:
        return error.strip()
    path, line, function = frames[-1].groups()
    rest = first[frames[-1].end() :].splitlines()
    message = "\n".join(text for text in rest if not text.startswith("    ")).strip()
    return f"{message}\nraised at {path}:{line} in {function}"


def _label(result: tune.Result) -> str:
    tag = (result.metrics or {}).get("experiment_tag")
    return trial_label(tag) if tag else Path(result.path).name


def _table(results: list[tune.Result]) -> str:
    """One row a trial: its state, and the last figures of its training and evaluation."""
    metrics = [flatten_dict(result.metrics or {}) for result in results]
    columns = {"steps": STEPS, "return": TRAINING_RETURN}
    columns |= {who: evaluation_key(who) for who in SUMMARIES}
    shown = [name for name, key in columns.items() if any(key in row for row in metrics)]
    rows = [["trial", "state", *shown]]
    for result, row in zip(results, metrics, strict=True):
        figures = [format_number(row.get(columns[name])) for name in shown]
        rows.append([_label(result), state(result), *figures])
    return format_table(rows)
