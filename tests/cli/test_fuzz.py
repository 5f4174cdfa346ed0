"""Wrong input by the hundred: `tests/fuzz.py`, which takes thousands by hand."""

import random

import pytest
from fuzz import draw_input, run_input


@pytest.mark.parametrize("part", range(4))
def test_wrong_input_ends_in_one_line(part):
    outcomes = []
    for number in range(part * 60, (part + 1) * 60):
        given = draw_input(random.Random(f"0/{number}"))
        outcome = run_input(given)
        assert not outcome.broken, f"0/{number}: {given}\n{outcome.broken}"
        outcomes.append(outcome)
    assert sum(outcome.exit_code == 2 for outcome in outcomes) > 40
