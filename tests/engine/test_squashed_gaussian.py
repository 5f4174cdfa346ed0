"""Samples of a tanh-squashed Gaussian against `torch.distributions` in double precision."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from rllib_cikd.engine import library, native_elementwise
from rllib_cikd.engine.squashed_gaussian import SquashedGaussian

SIMD = ("avx512", "avx2", "baseline")
BOUNDS = (-20.0, 2.0)


def _drawn(n: int, batch: int, width: int, scale: float = 1.0) -> list[Tensor]:
    """A policy's output, some of it beyond the bounds, and noise of every other batch."""
    torch.manual_seed(n * 10_000 + batch * 100 + width)
    output = scale * torch.randn(n, batch, 2 * width)
    return [output, torch.randn(n, 2, batch, width)[:, 1]]


def _exact(output: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_std = output.chunk(2, dim=-1)
    log_std = log_std.clamp(*BOUNDS)
    normal = Normal(mean, log_std.exp())
    u = mean + log_std.exp() * noise
    # The density of u, less the logarithm of the slope of tanh, which the transform computes from
    # u itself where it is cached.
    slope = TanhTransform().log_abs_det_jacobian(u, u.tanh())
    return u.tanh(), (normal.log_prob(u) - slope).sum(-1)


def test_the_formula_is_that_of_torch_distributions():
    output, noise = (x.double() for x in _drawn(2, 5, 3))
    actions, log_density = _exact(output, noise)
    mean, log_std = output.chunk(2, dim=-1)
    std = log_std.clamp(*BOUNDS).exp()
    squashed = TransformedDistribution(Normal(mean, std), TanhTransform())
    torch.testing.assert_close(squashed.log_prob(actions).sum(-1), log_density)


def test_random_shapes_and_their_gradients(engine):
    draw = random.Random(0)
    for _ in range(100):
        shape = draw.randint(1, 4), draw.randint(1, 40), draw.randint(1, 40)
        output, noise = _drawn(*shape, scale=draw.choice([0.01, 1.0, 3.0]))
        mine, true = output.clone().requires_grad_(), output.double().requires_grad_()
        weights = torch.randn(shape), torch.randn(shape[:2])
        for actions, density in (
            SquashedGaussian.apply(mine, noise, BOUNDS),
            _exact(true, noise.double()),
        ):
            ((actions * weights[0]).sum() + (density * weights[1]).sum()).backward()
        actions, density = SquashedGaussian.apply(output, noise, BOUNDS)
        expected_actions, expected_density = _exact(output.double(), noise.double())
        torch.testing.assert_close(actions.double(), expected_actions, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(density.double(), expected_density, rtol=1e-5, atol=1e-4)
        for by_mine, by_true in zip(mine.grad.chunk(2, -1), true.grad.chunk(2, -1), strict=True):
            size = by_true.abs().max().clamp(min=1.0)
            torch.testing.assert_close(by_mine.double() / size, by_true / size, rtol=0, atol=1e-5)


def test_at_and_beyond_the_bounds(engine):
    """As of `torch.clamp`: at a bound there is a gradient, beyond it none."""
    low, high = BOUNDS
    below, above = math.nextafter(low, -math.inf), 2.0000002
    output = torch.tensor([[[0.5] * 7 + [-40.0, below - 1e-5, low, 0.0, high, above, 30.0]]])
    noise = torch.full((1, 1, 7), 0.1)
    mine, true = output.clone().requires_grad_(), output.double().requires_grad_()
    for actions, density in (
        SquashedGaussian.apply(mine, noise, BOUNDS),
        _exact(true, noise.double()),
    ):
        (3.0 * actions.sum() + density.sum()).backward()
    torch.testing.assert_close(mine.grad.double(), true.grad, rtol=1e-5, atol=1e-5)
    assert (mine.grad[0, 0, 7:] == 0).tolist() == [True, True, False, False, False, True, True]


@pytest.mark.parametrize("u", [0.0, 1e-6, 1e-3, 0.3, 1.0, 5.0, 9.0, 20.0, 100.0, 1e4])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_far_from_zero_and_close_to_it(engine, u, sign):
    zero = torch.zeros(1, 1, 3)
    output = torch.cat([torch.full((1, 1, 3), sign * u), zero], -1)
    actions, density = SquashedGaussian.apply(output, zero, BOUNDS)
    expected = _exact(output.double(), zero.double())
    torch.testing.assert_close(actions.double(), expected[0], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(density.double(), expected[1], rtol=1e-6, atol=2e-6)


def test_what_is_not_a_number_comes_out_as_such(engine):
    for which, place in ((0, 0), (0, 3), (1, 0)):  # a mean, a log std, noise
        inputs = _drawn(2, 4, 3)
        inputs[which] = inputs[which].clone().requires_grad_(which == 0)
        with torch.no_grad():
            inputs[which][1, 2, place] = float("nan")
        actions, density = SquashedGaussian.apply(*inputs, BOUNDS)
        if which == 0:
            (actions.sum() + density.sum()).backward()
            assert inputs[0].grad.isnan().nonzero()[:, :2].unique(dim=0).tolist() == [[1, 2]]
        assert actions.isnan().nonzero().tolist() == [[1, 2, 0]]
        assert density.isnan().nonzero().tolist() == [[1, 2]]


@pytest.fixture
def simd() -> Callable[[str], None]:
    """Changes the library's kernels; skips the test where this processor lacks them."""
    before = library.load()[1]
    lacking = [kind for i, kind in enumerate(SIMD) if library.loaded().engine_choose(i) is None]

    def choose(kind: str) -> None:
        if kind in lacking:
            pytest.skip("not on this processor")
        library.loaded().engine_choose(SIMD.index(kind))

    yield choose
    for place in range(len(SIMD)):
        if library.loaded().engine_choose(place) == before.encode():
            break


@pytest.mark.parametrize("width", [1, 6, 8, 17, 40])
@pytest.mark.parametrize(("one", "other", "equal"), [(*SIMD[:2], True), (*SIMD[1:], False)])
def test_kernels_agree(simd, width, one, other, equal):
    """To the bit between the two widths of vectors; the baseline has no fused multiply-add."""
    output, noise = _drawn(3, 50, width)
    results = []
    for kind in (one, other):
        simd(kind)
        sampled = native_elementwise.sample(output, noise, BOUNDS)
        gradient = native_elementwise.sample_gradient(
            output, BOUNDS, *sampled[:2], noise, sampled[2]
        )
        results.append([*sampled, gradient])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0 if equal else 1e-4, atol=0 if equal else 1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y, z: (y[:, :3], z), "output has shape"),
        (lambda y, z: (y, z[..., :2]), "output has shape"),
        (lambda y, z: (y[0], z[0]), "noise has shape"),
        (lambda y, z: (y.double(), z), "output is torch.float64"),
        (lambda y, z: (y, z.to("meta")), "noise is torch.float32 on meta"),
    ],
)
def test_bad_arguments_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        native_elementwise.sample(*change(*_drawn(2, 5, 3)), BOUNDS)
    output, noise = _drawn(2, 5, 3)
    sampled = actions, _, density = native_elementwise.sample(output, noise, BOUNDS)
    with pytest.raises(ValueError, match="the gradient of actions has shape"):
        native_elementwise.sample_gradient(output, BOUNDS, *sampled[:2], actions[:, :2], density)
