"""Numbers, durations and tables as text."""

import pytest

from rllib_cikd.common.text import format_duration, format_number, format_table


@pytest.mark.parametrize(
    ("value", "text"),
    [(1_000_000, "1,000,000"), (3412.4, "3,412"), (-4.23, "-4.2"), (2.0, "2"), (0, "0")],
)
def test_numbers(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize("value", [float("nan"), None, "x"])
def test_no_number(value):
    assert format_number(value) == "-"


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45s"), (59.7, "1m 00s"), (750, "12m 30s"), (13_320, "3h 42m")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_tables():
    rows = [["member", "mean", ""], ["policy_0", "-1.5", "<-"], ["policy_10", "200", ""]]
    assert format_table(rows) == ("member     mean\npolicy_0   -1.5  <-\npolicy_10   200")
