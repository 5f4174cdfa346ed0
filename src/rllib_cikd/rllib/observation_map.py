"""The one mapping from an environment's observations to the members' flat float32 vectors.

Training, evaluation and videos use it alike. Observations are cast and checked here, nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rllib_cikd.common.errors import EnvironmentFault, NotFinite

#: More numbers than this are no observation for a perceptron.
_MAX_DIM = 1_000_000

#: Squared, the largest finite float32 with some room: a smaller sum of squares is safe to cast.
_SAFE_SQUARE = 1e76

_FEATURES = (
    "Give features instead, through `gymnasium.wrappers.TransformObservation` or a "
    "`gymnasium.ObservationWrapper`"
)


class _Wrong(Exception):
    """What is wrong with a value, without where it came from."""

    def __init__(self, came: str, fault: type[EnvironmentFault] = EnvironmentFault):
        super().__init__(came)
        self.fault = fault


class MemberObservations(spaces.Box):
    """What members see: `[D]`, float32, unbounded.

    Args:
        own: The environment's own observation space, which these stand for.
        count: D.
    """

    def __init__(self, own: gym.Space, count: int):
        super().__init__(-np.inf, np.inf, (count,), np.float32)
        self.own = own

    @property
    def layout(self) -> Any:
        """What each of the D numbers is: the environment's space without its boxes' bounds."""
        return _layout_of(self.own)


def _layout_of(space: gym.Space) -> Any:
    if isinstance(space, spaces.Dict):
        return [(key, _layout_of(part)) for key, part in space.spaces.items()]
    if isinstance(space, spaces.Tuple):
        return [_layout_of(part) for part in space.spaces]
    return space.shape if isinstance(space, spaces.Box) else space


class ObservationMap:
    """Maps an environment's observations to float32 vectors `[D]`.

    Valid observations give what `gymnasium.spaces.flatten` gives: boxes of any shape row by row,
    discrete parts as one-hot vectors, dictionaries and tuples part after part. Whole numbers are
    accepted for float spaces, lists for arrays, and values beyond a box's bounds.

    Args:
        space: Its observation space.
        env_name: How error messages call the environment.

    Raises:
        EnvironmentFault: If the space has no fixed number of numbers, or is one of images.
    """

    def __init__(self, space: gym.Space, env_name: str):
        self.space = space
        self._env_name = env_name
        try:
            self._dim, self._fill = _reader_of(space, "observation")
        except _Wrong as wrong:
            raise EnvironmentFault(
                f"env={env_name!r} has the observation space {space}: {wrong}."
            ) from None
        box: Any = space if isinstance(space, spaces.Box) else None
        self._is_float_vector = box and len(box.shape) == 1 and box.dtype.kind == "f"
        self.member_space = MemberObservations(space, self._dim)

    def __call__(self, observation: Any, source: str) -> np.ndarray:
        """Returns the flat observation, a new array `[D]`.

        Args:
            observation: What the environment returned.
            source: The method that returned it, for messages.

        Raises:
            EnvironmentFault: If it is none of the declared space, or a number is not finite.
        """
        if (
            self._is_float_vector
            and type(observation) is np.ndarray
            and observation.shape == self.space.shape
            and observation.dtype.char in "fd"
            and float(observation.dot(observation)) < _SAFE_SQUARE  # False for NaN
        ):
            return observation.astype(np.float32)
        flat = np.empty(self._dim, np.float32)
        try:
            self._fill(observation, flat)
        except _Wrong as wrong:
            raise wrong.fault(
                f"env={self._env_name!r}: {source} returned {wrong}. It declares the observation "
                f"space {self.space}: return observations of that space, or declare the space "
                "that they have."
            ) from None
        return flat


_Fill = Callable[[Any, np.ndarray], None]


def _reader_of(space: gym.Space, where: str) -> tuple[int, _Fill]:
    """How many numbers a space has, and a function that writes a value's into an array."""
    dim: int
    fill: _Fill
    if isinstance(space, spaces.Dict):
        parts = {k: _reader_of(s, f"{where}[{k!r}]") for k, s in space.spaces.items()}
        dim, fill = sum(d for d, _ in parts.values()), _dict_reader(parts, where)
    elif isinstance(space, spaces.Tuple):
        members = [_reader_of(s, f"{where}[{i}]") for i, s in enumerate(space.spaces)]
        dim, fill = sum(d for d, _ in members), _tuple_reader(members, where)
    elif isinstance(space, spaces.Box):
        if space.dtype == np.uint8 and len(space.shape) >= 2:
            raise _Wrong(
                f"{where} is an image, and images are not supported: members are perceptrons. "
                f"{_FEATURES}"
            )
        dim, fill = math.prod(space.shape), _box_reader(space, where)
    elif isinstance(space, spaces.Discrete):
        dim, fill = int(space.n), _one_hot_reader(np.array([space.n]), space.start, (), where)
    elif isinstance(space, spaces.MultiDiscrete):
        fill = _one_hot_reader(space.nvec.ravel(), space.start, space.shape, where)
        dim = int(space.nvec.sum())
    elif isinstance(space, spaces.MultiBinary):
        bits = spaces.Box(0, 1, space.shape, np.int8)
        dim, fill = math.prod(space.shape), _box_reader(bits, where, within_bounds=True)
    else:
        raise _Wrong(
            f"{where} is a {type(space).__name__}, not a fixed number of numbers. {_FEATURES}"
        )
    if where == "observation" and not 0 < dim <= _MAX_DIM:
        raise _Wrong(f"flattened, it has {dim:,} numbers. {_FEATURES}, at most {_MAX_DIM:,}")
    return dim, fill


def _dict_reader(parts: dict[Any, tuple[int, _Fill]], where: str) -> _Fill:
    def fill(value: Any, out: np.ndarray) -> None:
        if not isinstance(value, Mapping):
            raise _Wrong(f"{_describe(value)} for the dictionary {where}")
        if value.keys() != parts.keys():
            raise _Wrong(
                f"a dictionary {where} with the keys {list(value)} instead of {list(parts)}"
            )
        start = 0
        for key, (dim, fill_part) in parts.items():
            fill_part(value[key], out[start : start + dim])
            start += dim

    return fill


def _tuple_reader(parts: list[tuple[int, _Fill]], where: str) -> _Fill:
    def fill(value: Any, out: np.ndarray) -> None:
        if not isinstance(value, (tuple, list, np.ndarray)) or len(value) != len(parts):
            raise _Wrong(f"{_describe(value)} for {where} of {len(parts)} parts")
        start = 0
        for part, (dim, fill_part) in zip(value, parts, strict=True):
            fill_part(part, out[start : start + dim])
            start += dim

    return fill


def _box_reader(space: spaces.Box, where: str, within_bounds: bool = False) -> _Fill:
    dtype: Any = space.dtype
    whole = dtype.kind != "f"

    def fill(value: Any, out: np.ndarray) -> None:
        array = _numbers(value, space.shape, where, whole)
        if within_bounds and not ((array >= space.low) & (array <= space.high)).all():
            raise _Wrong(f"{_describe(value)} for {where}, whose numbers are 0 or 1")
        out[:] = array.ravel()

    return fill


def _one_hot_reader(counts: np.ndarray, first: Any, shape: tuple[int, ...], where: str) -> _Fill:
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)

    def fill(value: Any, out: np.ndarray) -> None:
        if shape == () and isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(())
        array = _numbers(value, shape, where, whole=True)
        choices = np.atleast_1d(array - first).ravel()
        if not ((choices >= 0) & (choices < counts)).all():
            raise _Wrong(f"{_describe(value)} for {where}, which has no such choice")
        out[:] = 0.0
        out[starts + choices.astype(np.int64)] = 1.0

    return fill


def _numbers(value: Any, shape: tuple[int, ...], where: str, whole: bool) -> np.ndarray:
    """The value as an array of float64 (or its own integer type) that float32 can hold."""
    try:
        array = np.asarray(value)
    except Exception:  # ragged lists, tensors that need a gradient or are on a GPU
        raise _Wrong(f"{_describe(value)} for {where}, which is no array") from None
    if array.dtype.kind not in "fiub":
        raise _Wrong(f"{_describe(value)} for {where}")
    if array.shape != shape:
        raise _Wrong(f"an {where} of shape {array.shape} instead of {shape}")
    if array.dtype.kind == "b":
        return array.astype(np.int8)
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype(np.float32))
    if not finite.all():
        number = array[~finite].ravel()[0]
        hint = "too large for float32" if np.isfinite(number) else "a diverging simulation?"
        raise _Wrong(f"a non-finite {where} ({number}: {hint})", NotFinite)
    if whole and not (array == np.rint(array)).all():
        number = array[array != np.rint(array)].ravel()[0]
        raise _Wrong(f"an {where} with {number}, where its space has integers")
    return array


def _describe(value: Any) -> str:
    """A few words for a value of any kind."""
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
