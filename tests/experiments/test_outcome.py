"""How trials ended, in words, and the exit code that follows."""

import math
import textwrap
from types import SimpleNamespace

import pytest
from ray.tune import CheckpointConfig

from rllib_cikd.experiments.outcome import best_checkpoint, exit_code, root_cause, state

DONE = SimpleNamespace(error=None, metrics={"done": True})
CUT_OFF = SimpleNamespace(error=None, metrics={"done": False})
NEVER_BEGUN = SimpleNamespace(error=None, metrics=None)
FAILED = SimpleNamespace(error=RuntimeError("x"), metrics={"done": True})


def test_states():
    states = [state(result) for result in (DONE, CUT_OFF, NEVER_BEGUN, FAILED)]
    assert states == ["done", "unfinished", "unfinished", "failed"]


@pytest.mark.parametrize(
    ("results", "code", "words"),
    [
        ([DONE, DONE], 0, ""),
        ([DONE, FAILED, FAILED], 1, "2 failed; go on\n"),
        ([FAILED, CUT_OFF, NEVER_BEGUN, DONE], 130, "1 failed, 2 unfinished; go on\n"),
    ],
)
def test_exit_codes(capsys, results, code, words):
    assert exit_code(results, "go on") == code
    assert capsys.readouterr() == ("", words)


def test_root_cause_of_a_chain():
    error = textwrap.dedent("""\
        ray::CIKD.train() (pid=1)
          File "/a/inner.py", line 3, in step
            raise ValueError("one\\ntwo")
            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        ValueError: one
        two

        The above exception was the direct cause of the following exception:

          File "/a/outer.py", line 9, in sample
            raise RuntimeError from e
        RuntimeError
        """)
    assert root_cause(error) == "ValueError: one\ntwo\nraised at /a/inner.py:3 in step"
    assert root_cause("The actor died.\n") == "The actor died."


def test_root_cause_of_a_process_that_died():
    error = textwrap.dedent("""\
        The actor died unexpectedly before finishing this task.
            class_name: CIKD
            pid: 18260
        The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR \
        Worker exit detail: Worker exits with an exit code 3.""")
    assert root_cause(error).startswith(
        "The trial's process died (SYSTEM_ERROR: Worker exits with an exit code 3.). It left no"
    )


@pytest.mark.parametrize(
    ("order", "best"), [("max", ("b", "1,234")), ("min", ("a", "-2")), (None, None)]
)
def test_the_best_checkpoint(order, best):
    scored = [("c", math.nan), ("a", -2.0), ("b", 1234.0)]
    kept = [(SimpleNamespace(path=path), {"x/y": value}) for path, value in scored]
    config = CheckpointConfig()
    if order:
        config = CheckpointConfig(checkpoint_score_attribute="x/y", checkpoint_score_order=order)
    assert best_checkpoint(SimpleNamespace(best_checkpoints=kept), config) == best
    assert best_checkpoint(SimpleNamespace(best_checkpoints=kept[:1]), config) is None
