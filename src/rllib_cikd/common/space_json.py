"""Gymnasium's spaces as plain JSON: read without unpickling anything, unlike RLlib's own form."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


def to_json(space: gym.Space) -> dict[str, Any]:
    """A JSON object for a space of numbers, or a dictionary or tuple of them.

    Raises:
        ValueError: If it is of another kind.
    """
    kind = type(space).__name__
    if isinstance(space, spaces.Box):
        bounds = {"low": space.low.tolist(), "high": space.high.tolist()}
        return {"kind": "Box", **bounds, "shape": list(space.shape), "dtype": str(space.dtype)}
    if isinstance(space, spaces.Discrete):
        return {"kind": kind, "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": kind, "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": kind, "shape": list(space.shape)}
    if isinstance(space, spaces.Dict):
        return {"kind": kind, "spaces": [[k, to_json(s)] for k, s in space.spaces.items()]}
    if isinstance(space, spaces.Tuple):
        return {"kind": kind, "spaces": [to_json(s) for s in space.spaces]}
    raise ValueError(f"{space}: a space of this kind cannot be written as JSON.")


def from_json(content: dict[str, Any]) -> gym.Space:
    """The space of which `to_json` gave this object.

    Raises:
        ValueError: If it is none.
    """
    try:
        kind = content["kind"]
        if kind == "Box":
            shape, dtype = tuple(content["shape"]), np.dtype(content["dtype"])
            low, high = (np.array(content[b], dtype).reshape(shape) for b in ("low", "high"))
            return spaces.Box(low, high, shape, dtype.type)
        if kind == "Discrete":
            return spaces.Discrete(content["n"], start=content["start"])
        if kind == "MultiDiscrete":
            return spaces.MultiDiscrete(content["nvec"], start=content["start"])
        if kind == "MultiBinary":
            return spaces.MultiBinary(content["shape"])
        if kind == "Dict":
            return spaces.Dict([(key, from_json(part)) for key, part in content["spaces"]])
        if kind == "Tuple":
            return spaces.Tuple([from_json(part) for part in content["spaces"]])
    except (KeyError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(f"{content!r} is no space: {error}") from error
    raise ValueError(f"{kind!r} is no kind of space.")
