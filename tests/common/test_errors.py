"""What a person reads who mistyped a name."""

from __future__ import annotations

import pytest

from rllib_cikd.common.errors import CommandError, did_you_mean

KNOWN = ["ensemble_size", "evaluation_interval", "distillation_interval"]


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("ensmble_size", "ensemble_size"),
        ("evaluation_intervall", "evaluation_interval"),
        ("distilation_interval", "distillation_interval"),  # close to two names: the closest
    ],
)
def test_a_close_name_is_suggested(name, suggested):
    assert did_you_mean(name, KNOWN) == f" Did you mean {suggested!r}?"
    assert did_you_mean(name, iter(KNOWN)) == f" Did you mean {suggested!r}?"


@pytest.mark.parametrize("known", [KNOWN, []])
def test_nothing_is_suggested_where_nothing_is_close(known):
    assert did_you_mean("walrus", known) == ""


def test_what_cannot_be_done_is_a_value_error():
    """So that Python users of the package catch it as they do every bad setting."""
    with pytest.raises(ValueError, match="no such file"):
        raise CommandError("no such file")
