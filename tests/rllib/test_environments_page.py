"""Each row of docs/ENVIRONMENTS.md: such an environment is made, and does what the row says."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import points
import pytest
from helpers import small_config
from ray.tune.registry import register_env

from rllib_cikd.common.errors import EnvironmentFault

PAGE = Path(__file__).parents[2] / "docs" / "ENVIRONMENTS.md"


def wrapped(wrapper: type) -> str:
    register_env(wrapper.__name__, lambda config: wrapper(points.Point(config)))
    return wrapper.__name__


#: The first cell of each row, and such an environment.
ENVIRONMENTS: dict[str, Callable[[], Any]] = {
    "declares images (`uint8` of two or more dimensions)": lambda: points.Camera,
    "declares `Text`, `Graph`, `Sequence` or `OneOf`": lambda: points.Words,
    "declares `MultiBinary` or `MultiDiscrete` actions": lambda: points.Buttons,
    "declares unbounded actions": lambda: points.Unbounded,
    "has other spaces in evaluation, another env runner or sub-environment": lambda: (
        points.Stronger
    ),
    "is wrapped in `NormalizeObservation`": lambda: wrapped(gym.wrappers.NormalizeObservation),
    "is wrapped in `NormalizeReward`": lambda: wrapped(gym.wrappers.NormalizeReward),
    "has a `reset` without `seed`": lambda: points.ResetWithoutSeed,
    "returns only the observation from `reset`": lambda: points.OnlyObservation,
    "returns four values from `step`": lambda: points.FourValues,
    "returns an observation of another shape": lambda: points.WrongShape,
    "returns `None` as observation": lambda: points.NoObservation,
    "returns a fraction where integers are declared": lambda: points.FractionForInteger,
    "returns an observation that is not finite": lambda: points.DivergedObservation,
    "returns `None` as reward": lambda: points.NoReward,
    "returns a reward that is not finite": lambda: points.DivergedReward,
    "returns no `bool` as `terminated`": lambda: points.FlagIsNone,
    "returns no dictionary as `info`": lambda: points.InfoIsNone,
    "does not end its episodes, in evaluation": lambda: points.Endless,
    "does not end its episodes, in training": lambda: points.Endless,
    "raises an exception": lambda: points.Raises,
}


def rows() -> dict[str, tuple[str, str]]:
    """Of each row, by its first cell: where it happens, and the words of the message."""
    table = PAGE.read_text().split("| the environment … |")[1].split("\n\n")[0]
    found = {}
    for line in table.splitlines()[2:]:
        first, second, _ = (cell.strip() for cell in line.strip("|").split("|"))
        where, words = re.fullmatch(r'([^"]*)"(.*)"', second).groups()
        found[first] = (where, words)
    return found


def test_every_row_has_its_environment():
    assert list(rows()) == list(ENVIRONMENTS)


@pytest.mark.parametrize("row", ENVIRONMENTS)
def test_it_happens_as_the_page_says(build, caplog, row):
    where, words = rows()[row]
    points.Raises.steps = 0
    config = small_config(ENVIRONMENTS[row](), max_evaluation_steps=50)
    if where.startswith("before the run"):
        with pytest.raises(EnvironmentFault) as error:
            build(config)
        message = str(error.value)
    elif where.startswith("a warning, once"):
        with caplog.at_level(logging.WARNING):
            algo = build(config.training(max_evaluation_steps=20_000))
            for _ in range(3):
                algo.train()
        (message,) = [m for m in caplog.messages if "TimeLimit" in m]
    elif where.startswith(("after", "when it is made")):
        with pytest.raises(EnvironmentFault) as error:
            build(config).evaluate()
        message = str(error.value)
    else:
        kind = RuntimeError if "raises" in row else EnvironmentFault
        for act in ("evaluate", "train"):
            points.Raises.steps = 0
            if act == "evaluate" and kind is RuntimeError:
                continue  # there the exception itself comes out
            with pytest.raises(kind) as error:
                getattr(build(config), act)()
            message = str(error.value)
            assert words in message
    assert words in message
    assert "\n" not in message
    assert "env='" in message


def test_the_settings_named_there_are_the_real_ones():
    text = PAGE.read_text()
    assert f"(`{small_config().max_evaluation_steps:,}`)".replace("`", "") in text
