"""What learners draw: each its own, and from a stored state the same again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rllib_cikd.algorithm.draws import Draws
from rllib_cikd.algorithm.learners import ALONE, Learners

CPU = torch.device("cpu")


def draws_of(size: int, seed: int | None = 3) -> list[Draws]:
    return [Draws(seed, CPU, Learners(rank, size)) for rank in range(size)]


def rows(draws: Draws) -> list[int]:
    return draws.rows(10**6, (5,)).tolist()


def test_all_follows_from_the_seed_and_the_place():
    one, again = [[rows(d) for d in draws_of(3)] for _ in range(2)]
    assert one == again
    assert len({tuple(r) for r in one}) == 3
    assert one != [rows(d) for d in draws_of(3, seed=4)]
    assert one[0] == rows(Draws(3, CPU, ALONE))
    assert rows(Draws(None, CPU, ALONE)) != rows(Draws(None, CPU, ALONE))


def test_a_stored_state_goes_on_in_as_many_learners():
    draws = draws_of(2)
    states = [d.get_state() for d in draws]
    expected = [rows(d) for d in draws]
    others = draws_of(2, seed=9)
    for other in others:
        other.set_state(states)
    assert [rows(other) for other in others] == expected


def test_learners_that_were_not_there_draw_for_themselves():
    """Of three after two, the third one's draws follow from the stored state, and are its own."""
    draws = draws_of(2)
    states = [d.get_state() for d in draws]
    results = []
    for seed in (5, 6):
        three = draws_of(3, seed)
        for d in three:
            d.set_state(states)
        results.append([rows(d) for d in three])
    assert results[0] == results[1]
    assert results[0][:2] == [rows(d) for d in draws]
    assert len({tuple(r) for r in results[0]}) == 3
    (one,) = draws_of(1, seed=5)
    one.set_state(states)
    assert rows(one) == results[0][0]


@pytest.mark.parametrize("batch_size", [3, 4, 9])
def test_epochs_of_unequal_parts_have_the_same_number_of_minibatches(batch_size):
    """Parts of 8 and 7 rows: of batch 4, the longer one has two minibatches, the shorter one."""
    minibatches = [
        draws.epochs(size, 7, batch_size, 2)
        for draws, size in zip(draws_of(2), (8, 7), strict=True)
    ]
    number = {3: 2, 4: 1, 9: 1}[batch_size]
    for passes, size in zip(minibatches, (8, 7), strict=True):
        assert passes.shape == (2 * number, min(batch_size, 7))
        for epoch in passes.view(2, -1):
            assert len(np.unique(epoch)) == len(epoch)
            assert int(epoch.max()) < size
        assert not torch.equal(*passes.view(2, -1))
