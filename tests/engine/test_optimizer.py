"""Adam, by both engines, against PyTorch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from rllib_cikd.engine import library, native
from rllib_cikd.engine.optimizer import Adam

SIZES = (1, 7, 16, 1003, 70_001)


@pytest.fixture(autouse=True, params=["native", "plain"])
def engine(request, monkeypatch) -> str:
    torch.manual_seed(0)
    if request.param == "plain":
        monkeypatch.setattr(library, "load", lambda: (None, "a test took it away."))
    elif not native.computes(torch.zeros(1)):
        pytest.skip(library.describe())
    return request.param


def _parameters(sizes: tuple[int, ...] = SIZES) -> list[Tensor]:
    return [torch.randn(size).requires_grad_() for size in sizes]


def _copies(parameters: list[Tensor], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [p.detach().clone().to(dtype).requires_grad_() for p in parameters]


def _give_gradients(*all_parameters: list[Tensor]) -> None:
    for same in zip(*all_parameters, strict=True):
        gradient = torch.randn(same[0].shape) * 10.0 ** torch.randint(-6, 3, same[0].shape)
        for p in same:
            p.grad = gradient.to(p.dtype)


@pytest.mark.parametrize("threads", [1, 2])
def test_equals_pytorch_s_adam_in_double_precision(threads):
    """Unfused, over 300 steps, with step sizes that change as number and as tensor."""
    before = torch.get_num_threads()
    own = _parameters()
    reference = _copies(own, torch.float64)
    optimizer, expected = Adam(own, lr=1e-3), torch.optim.Adam(reference, lr=1e-3)
    for step in range(300):
        if step % 100 == 50:
            lr = 1e-3 * (1.0 + step / 100)
            optimizer.param_groups[0]["lr"] = torch.tensor(lr) if step == 150 else lr
            expected.param_groups[0]["lr"] = lr
        _give_gradients(own, reference)
        torch.set_num_threads(threads)
        optimizer.descend()
        torch.set_num_threads(before)
        expected.step()
    for p, e in zip(own, reference, strict=True):
        torch.testing.assert_close(p.double(), e, rtol=1e-5, atol=1e-5)
        for name in ("step", "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(
                optimizer.state[p][name].double(),
                expected.state[e][name].double(),
                rtol=1e-4,
                atol=1e-5,
            )


def test_its_state_is_pytorch_s():
    """Names, shapes and types; each loads the other's and goes on with the same steps."""
    own = _parameters()
    theirs = _copies(own)
    optimizer, reference = Adam(own, lr=1e-3), torch.optim.Adam(theirs, lr=1e-3)
    for _ in range(3):
        _give_gradients(own, theirs)
        optimizer.descend()
        reference.step()
    state, expected = optimizer.state_dict()["state"], reference.state_dict()["state"]
    assert state.keys() == expected.keys()
    for place in state:
        assert state[place].keys() == expected[place].keys()
        for name, value in state[place].items():
            assert value.dtype == expected[place][name].dtype
            assert value.shape == expected[place][name].shape

    restored, reloaded = _copies(own), _copies(own)
    fresh, plain = Adam(restored, lr=9.0), torch.optim.Adam(reloaded, lr=9.0)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        _give_gradients(own, restored, reloaded)
        optimizer.descend()
        fresh.descend()
        plain.step()
    for p, q, r in zip(own, restored, reloaded, strict=True):
        assert torch.equal(p, q)
        torch.testing.assert_close(p, r)
    assert int(fresh.state[restored[0]]["step"]) == 6


def test_a_state_that_was_in_another_memory():
    """After `load_state_dict`, moments are new tensors: the step must use those."""
    own = _parameters((5,))
    optimizer = Adam(own, lr=1e-3)
    _give_gradients(own)
    optimizer.descend()
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][0]["exp_avg"].fill_(1.0)
    state["state"][0]["exp_avg_sq"].fill_(1.0)
    optimizer.load_state_dict(state)
    own[0].grad = torch.zeros(5)
    optimizer.descend()
    torch.testing.assert_close(optimizer.state[own[0]]["exp_avg"], torch.full((5,), 0.9))


@pytest.mark.parametrize("gradient", [float("nan"), float("inf")])
def test_what_is_not_finite_stays(gradient):
    own = _parameters((20,))
    optimizer = Adam(own, lr=1e-3)
    for step in range(3):
        own[0].grad = torch.randn(20)
        if step == 1:
            own[0].grad[4] = gradient
        optimizer.descend()
    assert not own[0][4].isfinite()
    assert own[0].isfinite().sum() == 19


def test_moments_of_dead_units_become_zero():
    """They decay for some thousand steps; no subnormal number is left, and nothing moves."""
    own = _parameters((64,))
    reference = _copies(own, torch.float64)
    optimizer, expected = Adam(own, lr=1e-3), torch.optim.Adam(reference, lr=1e-3)
    for step in range(1_000):
        alive = torch.ones(64)
        alive[: 32 if step > 20 else 0] = 0.0
        gradient = torch.randn(64) * alive
        own[0].grad, reference[0].grad = gradient, gradient.double()
        optimizer.descend()
        expected.step()
        if step > 20 and step % 100 == 99:
            moments = optimizer.state[own[0]]["exp_avg"]
            assert not ((moments != 0.0) & (moments.abs() < 1.2e-38)).any()
    assert not optimizer.state[own[0]]["exp_avg"][:32].any()
    assert optimizer.state[own[0]]["exp_avg"][32:].all()
    torch.testing.assert_close(own[0].double(), reference[0], rtol=1e-4, atol=1e-5)


def test_vanishing_second_moments_become_zero():
    own = _parameters((4,))
    optimizer = Adam(own, lr=1e-3)
    for _ in range(101):
        own[0].grad = torch.tensor([1e-17, 0.0, 1e-3, 1.0])
        optimizer.descend()
    moments = optimizer.state[own[0]]["exp_avg_sq"]
    assert moments[0] == 0.0
    assert moments[2] > 0.0


def test_a_gradient_that_is_not_contiguous():
    own, other = _parameters((6,)), _parameters((6,))
    with torch.no_grad():
        other[0].copy_(own[0])
    optimizers = Adam(own, lr=1e-3), Adam(other, lr=1e-3)
    for _ in range(3):
        wide = torch.randn(12)
        own[0].grad, other[0].grad = wide[::2], wide[::2].clone()
        for optimizer in optimizers:
            optimizer.descend()
    assert torch.equal(own[0], other[0])
