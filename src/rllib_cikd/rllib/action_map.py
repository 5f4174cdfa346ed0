"""The one mapping from members' actions, in [-1, 1] or one-hot, to an environment's own.

Training, evaluation and videos use it alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rllib_cikd.common.errors import EnvironmentFault, NotFinite

#: From all boxes' numbers, float64, to an action or a part of one.
_Pack = Callable[[np.ndarray], Any]


class MemberActions(spaces.Box):
    """What members act in: [-1, 1] in every number, `[A]`, float32.

    Args:
        own: The environment's own action space, which these stand for.
        count: A.
    """

    def __init__(self, own: gym.Space, count: int, low: float = -1.0, high: float = 1.0):
        super().__init__(low, high, (count,), np.float32)
        self.own = own


class OneHot(MemberActions):
    """What members act in where actions are discrete: one-hot vectors `[A]`, float32."""

    def __init__(self, own: spaces.Discrete):
        super().__init__(own, int(own.n), 0.0, 1.0)

    def sample(self, mask: Any = None, probability: Any = None) -> np.ndarray:
        (count,) = self.shape
        return np.eye(count, dtype=np.float32)[self.np_random.integers(count)]

    def contains(self, x: Any) -> bool:
        return super().contains(x) and np.sum(x) == 1.0 and np.max(x) == 1.0


class _Refused(Exception):
    """What is wrong with a space."""


class ActionMap:
    """Maps members' actions, `[A]` in [-1, 1] or one-hot, to an environment's own.

    A box's numbers go linearly from its lower to its upper bounds, computed in float64, and are
    cast to its type; integers (and booleans) are rounded to the nearest. A dictionary or tuple of
    boxes takes its parts of the action one after the other. A `Discrete` action is a Python int,
    the place of the 1 in a one-hot vector, from the space's `start` on.

    Args:
        space: The environment's action space.
        env_name: How error messages call the environment.

    Raises:
        EnvironmentFault: If the space is neither discrete nor made of boxes with finite bounds.
    """

    #: What members act in.
    member_space: MemberActions
    #: Of discrete actions the first one; None for others.
    first: int | None = None
    #: Of the others, each number's bounds and whether it is rounded, `[A]`.
    low: np.ndarray
    high: np.ndarray
    whole: np.ndarray

    def __init__(self, space: gym.Space, env_name: str):
        self.space = space
        self._env_name = env_name
        if isinstance(space, spaces.Discrete):
            self.first = int(space.start)
            self.member_space = OneHot(space)
            return
        boxes: list[spaces.Box] = []
        try:
            self._pack = _packer_of(space, boxes, 0)
            if not sum(math.prod(box.shape) for box in boxes):
                raise _Refused("there is nothing to decide. Declare at least one number")
        except _Refused as wrong:
            raise EnvironmentFault(
                f"env={env_name!r} has the action space {space}: {wrong}."
            ) from None
        self.low = np.concatenate([box.low.ravel().astype(np.float64) for box in boxes])
        self.high = np.concatenate([box.high.ravel().astype(np.float64) for box in boxes])
        self.whole = np.concatenate(
            [np.full(math.prod(box.shape), np.dtype(box.dtype).kind != "f") for box in boxes]
        )
        self._half_low, self._half_high = 0.5 * self.low, 0.5 * self.high
        self.member_space = MemberActions(space, len(self.low))

    def __call__(self, action: np.ndarray) -> Any:
        """Returns the environment's action for a member's `[A]`.

        Raises:
            EnvironmentFault: If the action is not finite: the policy has diverged.
        """
        return self.batch(np.asarray(action)[None])[0]

    def batch(self, actions: np.ndarray) -> list[Any]:
        """Returns the environment's actions for members' actions `[N, A]`, as `__call__`."""
        if self.first is not None:
            return [self.first + int(choice) for choice in self._finite(actions).argmax(axis=-1)]
        return [self._pack(values) for values in self._values(actions)]

    def _values(self, actions: np.ndarray) -> np.ndarray:
        """Numbers between the bounds, float64, of the shape of `actions`."""
        actions = self._finite(actions)
        # Exact at both bounds, and for a symmetric box everywhere; no overflow for huge ones.
        values = (1.0 - actions) * self._half_low + (1.0 + actions) * self._half_high
        return np.minimum(np.maximum(values, self.low), self.high)

    def _finite(self, actions: np.ndarray) -> np.ndarray:
        """The actions as float64, checked."""
        actions = np.asarray(actions, dtype=np.float64)
        if not math.isfinite(actions.sum()):
            raise NotFinite(
                f"env={self._env_name!r} would get a non-finite action ({actions.tolist()}): the "
                "policy has diverged. Lower the learning rates, or set `grad_clip`."
            )
        return actions


def _packer_of(space: gym.Space, boxes: list[spaces.Box], start: int) -> _Pack:
    """A function from all boxes' numbers to an action of `space`, whose own begin at `start`.

    Appends the space's boxes to `boxes`, in the order of their numbers.
    """
    if isinstance(space, spaces.Dict):
        packers = dict(
            zip(space.spaces, _packers(space.spaces.values(), boxes, start), strict=True)
        )
        return lambda values: {key: pack(values) for key, pack in packers.items()}
    if isinstance(space, spaces.Tuple):
        parts = _packers(space.spaces, boxes, start)
        return lambda values: tuple(pack(values) for pack in parts)
    if isinstance(space, spaces.Box):
        _check_bounds(space)
        boxes.append(space)
        return _box_packer(space, slice(start, start + math.prod(space.shape)))
    if isinstance(space, spaces.Discrete):
        raise _Refused("discrete actions cannot stand beside others. Map a `Box` to them all")
    raise _Refused(
        f"{type(space).__name__} is not supported, actions are one `Discrete`, or `Box`es or "
        "dictionaries and tuples of them. Map a `Box` to it with a `gymnasium.ActionWrapper`"
    )


def _packers(members: Iterable[gym.Space], boxes: list[spaces.Box], start: int) -> list[_Pack]:
    packers = []
    for space in members:
        before = len(boxes)
        packers.append(_packer_of(space, boxes, start))
        start += sum(math.prod(box.shape) for box in boxes[before:])
    return packers


def _check_bounds(box: spaces.Box) -> None:
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    bounded = np.isfinite(low) & np.isfinite(high) & box.bounded_below & box.bounded_above
    if not bounded.all():
        raise _Refused(
            "an unbounded action space cannot be mapped from [-1, 1]. Declare finite bounds with "
            "`gymnasium.wrappers.TransformAction(env, lambda action: action, Box(low, high))`, and "
            "leave `ClipAction` out, which takes the bounds away: actions never leave them here"
        )
    if (low > high).any():
        raise _Refused("a lower bound is above its upper bound. Exchange them")


def _box_packer(box: spaces.Box, part: slice) -> _Pack:
    shape = box.shape
    dtype: Any = box.dtype

    def pack_floats(values: np.ndarray) -> np.ndarray:
        numbers = values[part].astype(dtype).reshape(shape)
        # Bounds of long double may lie between two float64 numbers.
        return numbers if dtype.itemsize <= 8 else np.clip(numbers, box.low, box.high)

    def pack_vector(values: np.ndarray) -> np.ndarray:
        return values[part].astype(dtype)

    def pack_integers(values: np.ndarray) -> np.ndarray:
        rounded = np.rint(values[part]).reshape(shape)
        if dtype.kind == "b":
            return rounded.astype(bool)
        # Comparing first: a bound of 64 bits may round to a float beyond its type.
        numbers = np.empty(shape, dtype)
        at_low, at_high = rounded <= box.low.astype(float), rounded >= box.high.astype(float)
        between = ~(at_low | at_high)
        numbers[at_high], numbers[at_low] = box.high[at_high], box.low[at_low]
        numbers[between] = rounded[between].astype(dtype)
        return numbers

    if dtype.kind != "f":
        return pack_integers
    return pack_vector if len(shape) == 1 and dtype.itemsize <= 8 else pack_floats
