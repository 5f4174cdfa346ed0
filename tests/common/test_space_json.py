"""Spaces written as JSON are read as the same spaces."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces

from rllib_cikd.common.space_json import from_json, to_json

BOX = spaces.Box(np.array([-1.0, 0.1], np.float32), np.array([np.inf, 0.7], np.float32))


@pytest.mark.parametrize(
    "space",
    [
        BOX,
        spaces.Box(-5, 7, (2, 3), np.int16),
        spaces.Box(0.0, 1.0, (), np.float64),
        spaces.Box(0, 1, (2,), bool),
        spaces.Discrete(4, start=-2),
        spaces.MultiDiscrete([2, 3], start=[1, 0]),
        spaces.MultiBinary((2, 2)),
        spaces.Dict(b=BOX, a=spaces.Tuple([spaces.Discrete(2), BOX])),
    ],
)
def test_round_trip(space):
    assert from_json(json.loads(json.dumps(to_json(space)))) == space


def test_what_is_none():
    with pytest.raises(ValueError, match="cannot be written"):
        to_json(spaces.Text(3))
    for content in (
        {},
        {"kind": "Text"},
        {"kind": "Box", "low": [0]},
        {"kind": "Discrete", "n": 0},
    ):
        with pytest.raises(ValueError, match=r"is no (kind of )?space"):
            from_json({"start": 0, **content} if content else content)
