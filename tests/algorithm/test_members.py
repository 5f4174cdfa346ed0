"""Ids of members, and how an episode keeps its member."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rllib_cikd.algorithm.members import (
    acting_member,
    assign_member,
    member_of,
    policy_id,
    policy_ids,
)


def test_ids():
    assert policy_ids(3) == ["policy_0", "policy_1", "policy_2"]
    assert policy_id(11) == "policy_11"


@pytest.mark.parametrize("member", [0, 3, 12])
def test_an_episode_keeps_its_member(member):
    custom_data: dict = {}
    episode = SimpleNamespace(custom_data=custom_data, _custom_data=custom_data)
    assign_member(episode, member)
    assert member_of(episode) == member
    for _ in range(3):  # RLlib asks again at every cut
        assert acting_member("agent", episode) == policy_id(member)


def test_a_half_built_episode_has_a_member():
    """RLlib calls the mapping function once before the episode has its data."""
    assert acting_member("agent", SimpleNamespace()) == "policy_0"
    assert acting_member("agent", SimpleNamespace(_custom_data={}), worker=None) == "policy_0"
