"""Kinds of values that settings take, and what is wrong with a value that is of another kind."""

from __future__ import annotations

import inspect
import itertools
from dataclasses import dataclass
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np

#: Numbers beyond it are taken for mistakes, unless a setting says otherwise.
LARGEST = 10**12


class Kind:
    """What values a setting takes."""

    @property
    def words(self) -> str:
        """Completes "must be …"."""
        raise NotImplementedError

    def problem(self, value: Any) -> str | None:
        """Completes "VALUE: …" for a value that is not of this kind; None if it is."""
        raise NotImplementedError


@dataclass(frozen=True)
class Number(Kind):
    """A finite number within bounds; numpy's scalars are numbers, True and False are not."""

    above: float | None = None
    at_least: float | None = None
    at_most: float = LARGEST
    or_none: bool = False
    noun = "a number"

    @property
    def words(self) -> str:
        return f"{self._from} and at most {_plain(self.at_most)}{self._or_none}"

    @property
    def _from(self) -> str:
        if self.above is not None:
            return f"{self.noun} above {_plain(self.above)}"
        if self.at_least is not None:
            return f"{self.noun} of at least {_plain(self.at_least)}"
        return f"{self.noun} of at least {_plain(-self.at_most)}"

    @property
    def _or_none(self) -> str:
        return ", or None" if self.or_none else ""

    def _is_one(self, value: Any) -> bool:
        return is_number(value)

    def problem(self, value: Any) -> str | None:
        if value is None and self.or_none:
            return None
        if self._is_one(value):
            low = -self.at_most if self.at_least is None else self.at_least
            enough = value > self.above if self.above is not None else value >= low
            if enough and value <= self.at_most:
                return None
            if value > self.at_most:
                return f"must be {self.noun} of at most {_plain(self.at_most)}"
        return f"must be {self._from}{self._or_none}{self._hint(value)}"

    def _hint(self, value: Any) -> str:
        return " (write 1.0e-3, not 1e-3, in YAML)" if isinstance(value, str) else ""


@dataclass(frozen=True)
class Integer(Number):
    """An integer within bounds; 1e6 and 2.0 are floats, and refused with a hint."""

    noun = "an integer"

    def _is_one(self, value: Any) -> bool:
        return is_integer(value)

    def _hint(self, value: Any) -> str:
        """How to write 1e6 and the like, which Python and YAML read as floats."""
        whole = isinstance(value, float) and value.is_integer()
        return f" (write {int(value)})" if whole else ""


@dataclass(frozen=True)
class Schedule(Kind):
    """A number, or how it changes: [[0, 3e-4], [100000, 1e-4]], linear in between."""

    number: Number

    @property
    def words(self) -> str:
        return f"{self.number.words}, or a schedule [[0, value], [step, value], …]"

    def problem(self, value: Any) -> str | None:
        if not isinstance(value, (list, tuple)):
            return self.number.problem(value)
        example = "; a schedule is a list such as [[0, 3.0e-4], [100000, 1.0e-4]]"
        if len(value) < 2 or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in value):
            return f"must be two or more pairs of step and value{example}"
        steps = [step for step, _ in value]
        if not all(is_number(step) and step <= LARGEST for step in steps) or steps[0] != 0:
            return f"its steps must be numbers that begin with 0{example}"
        if any(not before < after for before, after in itertools.pairwise(steps)):
            return f"its steps must increase{example}"
        problems = [self.number.problem(number) for _, number in value]
        return next((f"each of its values {problem}" for problem in problems if problem), None)


@dataclass(frozen=True)
class Flag(Kind):
    """True or False, and nothing else that counts as such."""

    words = "True or False"

    def problem(self, value: Any) -> str | None:
        return None if isinstance(value, (bool, np.bool_)) else f"must be {self.words}"


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few values."""

    values: tuple[Any, ...]
    reason: str = ""

    @property
    def words(self) -> str:
        one = f"one of {list(self.values)}" if len(self.values) > 1 else repr(self.values[0])
        return f"{one}: {self.reason}" if self.reason else one

    def problem(self, value: Any) -> str | None:
        if any(same(value, choice) for choice in self.values):
            return None
        return f"must be {self.words}"


@dataclass(frozen=True)
class Either(Kind):
    """What one of several kinds takes."""

    kinds: tuple[Kind, ...]

    @property
    def words(self) -> str:
        return " or ".join(kind.words for kind in self.kinds)

    def problem(self, value: Any) -> str | None:
        if any(kind.problem(value) is None for kind in self.kinds):
            return None
        return f"must be {self.words}"


@dataclass(frozen=True)
class Mapping(Kind):
    """A dict with text as keys, and values of one kind."""

    of: Kind | None = None
    or_none: bool = False
    example: str = "{'name': value}"

    @property
    def words(self) -> str:
        values = "" if self.of is None else f" whose values are {self.of.words}"
        return f"a dict such as {self.example}{values}{', or None' if self.or_none else ''}"

    def problem(self, value: Any) -> str | None:
        if value is None and self.or_none:
            return None
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            return f"must be {self.words}"
        if self.of is not None and any(self.of.problem(v) for v in value.values()):
            return f"must be {self.words}"
        return None


@dataclass(frozen=True)
class SubclassOf(Kind):
    """A class that extends another one; with `many` also a list of such."""

    base: type
    or_none: bool = False
    many: bool = False

    @property
    def words(self) -> str:
        base = f"`{self.base.__module__}.{self.base.__name__}`"
        many = ", or a list of such" if self.many else ""
        return f"a subclass of {base}{many}{', or None' if self.or_none else ''}"

    def problem(self, value: Any) -> str | None:
        if value is None and self.or_none:
            return None
        classes = list(value) if self.many and isinstance(value, (list, tuple)) else [value]
        if all(inspect.isclass(c) and issubclass(c, self.base) for c in classes):
            return None
        return f"must be {self.words}"


@dataclass(frozen=True)
class Functions(Kind):
    """A function, a list of functions, or None."""

    words = "a function, a list of functions, or None"

    def problem(self, value: Any) -> str | None:
        functions = value if isinstance(value, (list, tuple)) else [value]
        if value is None or all(callable(function) for function in functions):
            return None
        return f"must be {self.words}"


@dataclass(frozen=True)
class Environment(Kind):
    """What RLlib takes for an environment."""

    words = (
        "a Gymnasium id, a name registered with `ray.tune.register_env`, or a subclass of "
        "`gymnasium.Env`"
    )

    def problem(self, value: Any) -> str | None:
        good = value is None or (isinstance(value, str) and value != "")
        good = good or (inspect.isclass(value) and issubclass(value, gym.Env))
        return None if good else f"is not supported: give {self.words}"


@dataclass(frozen=True)
class CheckedElsewhere(Kind):
    """A value of one of these types, whose content a function of its own checks."""

    description: str
    types: tuple[type, ...] = (dict,)

    @property
    def words(self) -> str:
        return self.description

    def problem(self, value: Any) -> str | None:
        return None if isinstance(value, self.types) else f"must be {self.words}"


def is_integer(value: Any) -> bool:
    """Whether it is an integer of Python's or numpy's; True and False are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a real number of Python's or numpy's, perhaps not a finite one."""
    return is_integer(value) or isinstance(value, (float, np.floating))


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal; arrays are never, nor is what cannot be compared.

    1 and 1.0 are the same, 1 and True are not.
    """
    if isinstance(a, (bool, np.bool_)) != isinstance(b, (bool, np.bool_)):
        return False
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return False
    try:
        return a is b or bool(a == b)
    except Exception:  # an array, or the user's own type
        return False


def show(value: Any) -> str:
    """A value on one line, cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # the user's own type
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 160 else f"{text[:157]}..."


def reject(field: str, value: Any, reason: str) -> NoReturn:
    """Raises the `ValueError` about a setting: its name, its value, and the reason or remedy."""
    raise ValueError(f"{field}={show(value)}: {reason}.")


def _plain(number: float) -> str:
    return str(int(number)) if float(number).is_integer() and abs(number) < 1e10 else f"{number:g}"
