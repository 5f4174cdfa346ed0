"""The parts of a replay buffer, side by side, are the ring that one learner would have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from experience import A, D, Experience

from rllib_cikd.algorithm import replay_buffer
from rllib_cikd.algorithm.learners import ALONE, Learners
from rllib_cikd.algorithm.replay_buffer import ReplayBuffer
from rllib_cikd.algorithm.replay_shard import ReplayShard, whole_of

CAPACITY = 24


def shards_of(size: int, capacity: int = CAPACITY) -> list[ReplayShard]:
    return [ReplayShard(capacity, D, A, learners=Learners(rank, size)) for rank in range(size)]


def fill(buffers: list, count: int, begin: int = 0) -> None:
    """Gives all of them transitions in fragments of 7, the last one shorter."""
    experience = vars(Experience())
    for start in range(begin, begin + count, 7):
        stop = min(start + 7, begin + count)
        for buffer in buffers:
            buffer.add(**{name: values[start:stop] for name, values in experience.items()})


def lone_ring(count: int, capacity: int = CAPACITY) -> ReplayBuffer:
    buffer = ReplayBuffer(capacity, D, A)
    fill([buffer], count)
    return buffer


def assert_same(state: dict, expected: dict) -> None:
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name], value)


def whole(shards: list[ReplayShard]) -> dict:
    return whole_of([shard.get_state() for shard in shards])


@pytest.mark.parametrize("count", [1, 20, 24, 61])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_they_hold_what_one_ring_holds(size, count):
    shards = shards_of(size)
    fill(shards, count)
    assert_same(whole(shards), lone_ring(count).get_state())
    held = [len(shard) for shard in shards]
    assert max(held) - min(held) <= 1
    for shard in shards:
        assert shard.capacity == CAPACITY // size
        assert shard.num_added_to_all == count
        assert shard.len_of_all == sum(held) == min(count, CAPACITY)
        assert shard.len_of_shortest == min(held)


@pytest.mark.parametrize("count", [20, 61])
@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 3), (3, 2), (2, 3)])
def test_a_stored_buffer_goes_on_in_any_number_of_learners(before, after, count):
    """With what comes then, they hold what a ring would hold that was never stored."""
    old, new = shards_of(before), shards_of(after)
    fill(old, count)
    for shard in new:
        shard.set_state(whole(old))
    assert_same(whole(new), whole(old))
    fill(new, 16, begin=count)
    straight = lone_ring(count)
    fill([straight], 16, begin=count)
    assert_same(whole(new), straight.get_state())


def test_a_full_ring_goes_into_larger_parts():
    """The oldest transition comes first there, as in one larger ring."""
    old, new = shards_of(2), shards_of(3, capacity=36)
    fill(old, 61)
    larger = ReplayBuffer(36, D, A)
    larger.set_state(lone_ring(61).get_state())
    for shard in new:
        shard.set_state(whole(old))
    assert_same(whole(new), larger.get_state())
    fill([*new, larger], 20, begin=61)
    assert_same(whole(new), larger.get_state())
    assert new[0].num_added_to_all == larger.num_added


def test_what_is_drawn_comes_from_its_own_part():
    first, second = shards_of(2)
    fill([first, second], 20)
    rewards = torch.tensor(Experience().rewards)
    for rank, shard in enumerate((first, second)):
        drawn = shard.gather(torch.arange(len(shard)), gamma=0.5)
        assert torch.equal(drawn.rewards, rewards[rank:20:2])


def test_links_of_a_lone_learner_are_stored():
    shard, buffer = (
        ReplayShard(60, D, A, n_step=3, learners=ALONE),
        ReplayBuffer(60, D, A, n_step=3),
    )
    fill([shard, buffer], 70)
    assert_same(shard.get_state(), buffer.get_state())
    again = ReplayShard(80, D, A, n_step=3)
    again.set_state(shard.get_state())
    rows = torch.arange(60)
    ours, theirs = again.gather(rows, 0.5), buffer.gather((rows + 10) % 60, 0.5)
    assert all(map(torch.equal, ours, theirs))


def test_the_memory_of_all_parts_must_be_there(monkeypatch):
    """On a CPU they share it; the message speaks of the whole buffer."""
    row = 4 * (2 * D + A + 2)
    monkeypatch.setattr(replay_buffer, "free_bytes", lambda device: 100 * row)
    shards_of(2, capacity=100)
    with pytest.raises(MemoryError, match=r"does not fit: 102 transitions.*at most 100 "):
        shards_of(2, capacity=102)
