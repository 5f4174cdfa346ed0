"""Samples of a tanh-squashed Gaussian against `torch.distributions` in double precision."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from rllib_cikd.engine import library, native
from rllib_cikd.engine.squashed_gaussian import SquashedGaussian

SIMD = ("avx512", "avx2", "baseline")


@pytest.fixture(params=["native", "plain"])
def engine(request, monkeypatch) -> str:
    if request.param == "plain":
        monkeypatch.setattr(library, "load", lambda: (None, "a test took it away."))
    elif not native.computes(torch.zeros(1)):
        pytest.skip(library.describe())
    return request.param


def _drawn(n: int, batch: int, width: int, scale: float = 1.0) -> list[Tensor]:
    """Mean, log std and noise as SAC has them: parts of wider rows, every other batch."""
    torch.manual_seed(n * 10_000 + batch * 100 + width)
    mean, log_std = (scale * torch.randn(n, batch, 2 * width)).chunk(2, dim=-1)
    return [mean, log_std.clamp(-20, 2), torch.randn(n, 2, batch, width)[:, 1]]


def _exact(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    normal = Normal(mean, log_std.exp())
    u = mean + log_std.exp() * noise
    # The density of u, less the logarithm of the slope of tanh, which the transform computes from
    # u itself where it is cached.
    slope = TanhTransform().log_abs_det_jacobian(u, u.tanh())
    return u.tanh(), (normal.log_prob(u) - slope).sum(-1)


def test_the_formula_is_that_of_torch_distributions():
    mean, log_std, noise = (x.double() for x in _drawn(2, 5, 3))
    actions, log_density = _exact(mean, log_std, noise)
    squashed = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform())
    torch.testing.assert_close(squashed.log_prob(actions).sum(-1), log_density)


def test_random_shapes_and_their_gradients(engine):
    draw = random.Random(0)
    for _ in range(100):
        shape = draw.randint(1, 4), draw.randint(1, 40), draw.randint(1, 40)
        inputs = _drawn(*shape, scale=draw.choice([0.01, 1.0, 3.0]))
        leaves = [x.clone().requires_grad_() for x in inputs[:2]]
        exact = [x.double().requires_grad_() for x in inputs[:2]]
        weights = torch.randn(shape), torch.randn(shape[:2])
        for actions, density in (
            SquashedGaussian.apply(*leaves, inputs[2]),
            _exact(*exact, inputs[2].double()),
        ):
            ((actions * weights[0]).sum() + (density * weights[1]).sum()).backward()
        actions, density = SquashedGaussian.apply(*inputs)
        expected_actions, expected_density = _exact(*(x.double() for x in inputs))
        torch.testing.assert_close(actions.double(), expected_actions, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(density.double(), expected_density, rtol=1e-5, atol=1e-4)
        for mine, true in zip(leaves, exact, strict=True):
            size = true.grad.abs().max().clamp(min=1.0)
            torch.testing.assert_close(
                mine.grad.double() / size, true.grad / size, rtol=0, atol=1e-5
            )


@pytest.mark.parametrize("u", [0.0, 1e-6, 1e-3, 0.3, 1.0, 5.0, 9.0, 20.0, 100.0, 1e4])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_far_from_zero_and_close_to_it(engine, u, sign):
    mean = torch.full((1, 1, 3), sign * u)
    zero = torch.zeros_like(mean)
    actions, density = SquashedGaussian.apply(mean, zero, zero)
    expected = _exact(mean.double(), zero.double(), zero.double())
    torch.testing.assert_close(actions.double(), expected[0], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(density.double(), expected[1], rtol=1e-6, atol=2e-6)


def test_what_is_not_a_number_comes_out_as_such(engine):
    for place in range(3):
        inputs = _drawn(2, 4, 3)
        inputs[place] = inputs[place].clone()
        inputs[place][1, 2, 0] = float("nan")
        actions, density = SquashedGaussian.apply(*inputs)
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
    inputs = _drawn(3, 50, width)
    results = []
    for kind in (one, other):
        simd(kind)
        sampled = native.sample(*inputs)
        gradients = native.sample_gradient(*sampled[:2], inputs[2], sampled[2])
        results.append([*sampled, *gradients])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0 if equal else 1e-4, atol=0 if equal else 1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m, s, z: (m, s[:, :3], z), "log std has shape"),
        (lambda m, s, z: (m, s, z[..., :2]), "noise has shape"),
        (lambda m, s, z: (m.double(), s, z), "mean is torch.float64"),
        (lambda m, s, z: (m, s, z.to("meta")), "noise is torch.float32 on meta"),
    ],
)
def test_bad_arguments_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        native.sample(*change(*_drawn(2, 5, 3)))
    actions, deviations, density = native.sample(*_drawn(2, 5, 3))
    with pytest.raises(ValueError, match="the gradient of actions has shape"):
        native.sample_gradient(actions, deviations, actions[:, :2], density)
