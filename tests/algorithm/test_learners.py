"""Two learners with minibatches of B are one learner with minibatches of 2 * B."""

from __future__ import annotations

import pytest
import torch
from two_learners import of_a_lone_one, of_both

TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}
STAGES = ("after_sac", "after_distillation")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two processes report, which had half of each minibatch each."""
    return of_both(tmp_path_factory.mktemp("two_learners"))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_they_learn_as_one_with_the_whole_minibatch(both, dtype):
    """20 SAC steps with clipped gradients, then 20 of distillation: all networks, temperatures."""
    lone = of_a_lone_one(dtype, slice(None))
    for stage in STAGES:
        for ours, expected in zip(both[0][dtype][stage], lone[stage], strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(
        both[0][dtype]["statistics"],
        lone["statistics"],
        rtol=10 * TOLERANCE[dtype],
        atol=10 * TOLERANCE[dtype],
    )


def test_half_of_the_minibatch_alone_is_told_apart(both):
    """A negative control: without the other one's gradients, all networks are others."""
    half = of_a_lone_one(torch.float64, slice(0, None, 2))
    *ours, _ = both[0][torch.float64]["after_sac"]
    *others, _ = half["after_sac"]
    assert len(ours) == 3
    for network, other in zip(ours, others, strict=True):
        assert float((network - other).abs().max()) > 1e-4


def test_they_begin_and_stay_with_the_same_bits(both):
    """Their own networks were drawn apart."""
    first, second = both
    for dtype in TOLERANCE:
        for stage in ("at_first", *STAGES, "statistics"):
            ours, theirs = first[dtype][stage], second[dtype][stage]
            assert all(map(torch.equal, ours, theirs)), stage
        start, end = first[dtype]["at_first"], first[dtype]["after_sac"]
        assert not any(map(torch.equal, start, end))


def test_each_draws_for_itself_and_all_get_a_common_seed(both):
    first, second = both
    assert not torch.equal(first["rows"], second["rows"])
    assert first["seed"] == second["seed"]


def test_no_one_waits_for_a_learner_that_has_failed(both):
    """Of an error or a death: the one says why, the other that another has failed, and at once."""
    first, second = both
    assert second["error"] == "ValueError: out of luck"
    assert first["error"].startswith("AnotherLearnerFailed: Another learner has failed")
    assert first["waited"] < 10
    assert first["loss"].startswith("Another learner has failed")
    assert first["waited_for_the_lost"] < 10
