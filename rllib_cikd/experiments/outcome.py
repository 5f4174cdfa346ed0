"""How a trial of Tune ended, and with what error, in words."""

from __future__ import annotations

import re

from ray import tune


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
    frames = list(re.finditer(r'^  File "(.+)", line (\d+), in (.+)\n', first, re.MULTILINE))
    if not frames:
        return error.strip()
    path, line, function = frames[-1].groups()
    rest = first[frames[-1].end() :].splitlines()
    message = "\n".join(text for text in rest if not text.startswith("    ")).strip()
    return f"{message}\nraised at {path}:{line} in {function}"
