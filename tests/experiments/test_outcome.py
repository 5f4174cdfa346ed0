"""How trials ended, in words, and the exit code that follows."""

import textwrap
from types import SimpleNamespace

import pytest

from rllib_cikd.experiments.outcome import exit_code, root_cause, state

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
