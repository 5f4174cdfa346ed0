"""Stacked perceptrons with batch normalisation against PyTorch's `BatchNorm1d` in float64."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import Tensor, nn

from rllib_cikd.algorithm.perceptron import perceptron
from rllib_cikd.engine import library, native, native_normalization
from rllib_cikd.engine.batch_normalized import BatchNormalizedPerceptrons, RunningNorm

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU}


def _networks(n: int, widths: list[int], activation: str = "relu") -> list[nn.Sequential]:
    """Of which nothing is 0 or 1 that would be so at the start."""
    networks = []
    for _ in range(n):
        network = perceptron(widths[0], widths[1:-1], widths[-1], activation, "batch")
        for layer in network:
            if isinstance(layer, RunningNorm):
                with torch.no_grad():
                    layer.gain.uniform_(0.5, 2.0)
                    layer.offset.normal_()
                layer.mean.normal_()
                layer.variance.uniform_(0.5, 2.0)
        networks.append(network)
    return networks


def _reference(network: nn.Sequential) -> nn.Sequential:
    """The same by PyTorch's own layers, in double precision."""
    layers: list[nn.Module] = []
    for layer in network:
        if isinstance(layer, RunningNorm):
            norm = nn.BatchNorm1d(len(layer.mean), momentum=0.01)
            norm.weight.data, norm.bias.data = layer.gain.data.clone(), layer.offset.data.clone()
            norm.running_mean, norm.running_var = layer.mean.clone(), layer.variance.clone()
            layers.append(norm)
        else:
            layers.append(copy.deepcopy(layer).requires_grad_(True))
    return nn.Sequential(*layers).double()


def _grad(reference: nn.Sequential, kind: str) -> list[Tensor]:
    """Gradients as the stack has them, per layer."""
    linears = [layer for layer in reference if isinstance(layer, nn.Linear)]
    norms = [layer for layer in reference if isinstance(layer, nn.BatchNorm1d)]
    return {
        "weights": [layer.weight.grad.t() for layer in linears],
        "biases": [layer.bias.grad[None] for layer in linears],
        "gains": [layer.weight.grad[None] for layer in norms],
        "offsets": [layer.bias.grad[None] for layer in norms],
    }[kind]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shared", [False, True])
def test_random_shapes_equal_torch(engine, activation, shared):
    """Outputs, gradients of everything and running statistics, while learning and afterwards."""
    draw = random.Random(1)
    for case in range(12):
        torch.manual_seed(case)
        inputs, n = (draw.randint(1, 3), 1) if shared else (draw.randint(1, 4), 1)
        n = inputs * draw.randint(1, 3) if shared else inputs
        widths = [draw.randint(1, 70) for _ in range(draw.randint(2, 4))]
        networks = [net.to(_type_of(engine)) for net in _networks(n, widths, activation)]
        references = [_reference(network).train() for network in networks]
        stack = BatchNormalizedPerceptrons.adopt(networks, activation, trainable=True)
        x = torch.randn(inputs, draw.randint(4, 90), widths[0], dtype=_type_of(engine)) * 3 + 1
        exact = x.double().requires_grad_()
        x = x.requires_grad_()
        y = stack.learning(x)
        weights = torch.randn(y.shape)
        (y * weights).sum().backward()
        expected = torch.stack([r(exact[k % inputs]) for k, r in enumerate(references)])
        (expected * weights).sum().backward()
        _close(y, expected)
        _close(x.grad, exact.grad)
        for kind, blocks in zip(
            ("weights", "biases", "gains", "offsets"),
            stack.by_kind(stack.parameters.grad),
            strict=True,
        ):
            true = [_grad(reference, kind) for reference in references]
            for place, block in enumerate(blocks):
                _close(block, torch.stack([of_one[place] for of_one in true]))
        for reference, network in zip(references, networks, strict=True):
            reference.eval()
            norms = [layer for layer in network if isinstance(layer, RunningNorm)]
            true_norms = [layer for layer in reference if isinstance(layer, nn.BatchNorm1d)]
            for mine, true in zip(norms, true_norms, strict=True):
                _close(mine.mean, true.running_mean)
                _close(mine.variance, true.running_var)
        # By the running statistics: the stack, and each network by itself.
        after = torch.stack([r(exact[k % inputs]) for k, r in enumerate(references)])
        _close(stack(x), after)
        _close(torch.stack([net(x[k % inputs]) for k, net in enumerate(networks)]), after)


def _type_of(engine: str) -> torch.dtype:
    return torch.float32 if engine == "native" else torch.float64


def _close(mine: Tensor, true: Tensor) -> None:
    """To rounding; a unit that hardly varies is divided by little, which float32 has to pay for,
    in PyTorch as well (0.004 there)."""
    size, error = true.abs().max().clamp(min=1.0), 1e-10 if mine.dtype == torch.float64 else 5e-3
    torch.testing.assert_close(mine.double() / size, true / size, rtol=0, atol=error)


def test_the_first_minibatch_sets_the_running_statistics(engine):
    """Of new networks; those of others move by a hundredth of the way."""
    torch.manual_seed(0)
    new = perceptron(3, [8], 2, "relu", "batch")
    networks = [new, *_networks(1, [3, 8, 2])]
    networks = [network.to(_type_of(engine)) for network in networks]
    before = [layer.mean.clone() for layer in networks[1] if isinstance(layer, RunningNorm)]
    stack = BatchNormalizedPerceptrons.adopt(networks, "relu", trainable=True)
    x = torch.randn(2, 50, 3, dtype=_type_of(engine)) * 7 + 100
    for _ in range(2):  # the second time it has seen them
        stack.learning(x)
        torch.testing.assert_close(new[0].mean, x[0].mean(0))
        torch.testing.assert_close(new[0].variance, x[0].var(0))
    hidden = new[1](new[0](x[0])).relu()
    torch.testing.assert_close(new[3].mean, hidden.mean(0), rtol=1e-2, atol=1e-2)
    moved = before[0] + (1 - 0.99**2) * (x[1].mean(0) - before[0])
    torch.testing.assert_close(networks[1][0].mean, moved)


def test_inputs_far_from_0_keep_their_digits(engine):
    """Also one that is constant: learning, by the running statistics, and in each network alone."""
    torch.manual_seed(0)
    networks = [network.to(_type_of(engine)) for network in _networks(2, [4, 16, 3])]
    for network in networks:
        network[0].mean.zero_()
        network[0].variance.fill_(1.0)
    references = [_reference(network).train() for network in networks]
    stack = BatchNormalizedPerceptrons.adopt(networks, "relu", trainable=True)
    x = torch.randn(1, 64, 4, dtype=_type_of(engine))
    x[..., 0], x[..., 1] = 1e4, x[..., 1] + 1e3
    y = stack.learning(x)
    expected = torch.stack([reference(x[0].double()) for reference in references])
    error, limit = (y.double() - expected).abs().max(), 1e-3 * expected.std()
    assert error < limit
    for k, network in enumerate(networks):
        torch.testing.assert_close(stack(x)[k], network(x[0]), rtol=1e-3, atol=limit.item())


def test_frozen_networks_pass_the_gradient_to_their_inputs_alone(engine):
    torch.manual_seed(0)
    networks = [network.to(_type_of(engine)) for network in _networks(4, [5, 16, 8, 2])]
    references = [_reference(network).eval() for network in networks]
    stack = BatchNormalizedPerceptrons.adopt(networks, "relu", trainable=True)
    before = [block.clone() for block in stack.blocks]
    x = torch.randn(2, 30, 5, dtype=_type_of(engine)).requires_grad_()
    exact = x.detach().double().requires_grad_()
    stack(x, frozen=True).square().sum().backward()
    sum(r(exact[k % 2]).square().sum() for k, r in enumerate(references)).backward()
    _close(x.grad, exact.grad)
    assert stack.parameters.grad is None
    for block, old in zip(stack.blocks, before, strict=True):
        assert torch.equal(block, old)


def test_copies_are_independent_and_whole():
    """`select` and `assign` take gains, offsets and statistics along; modules see it."""
    torch.manual_seed(0)
    networks, others = _networks(3, [4, 8, 2]), _networks(2, [4, 8, 2])
    stack = BatchNormalizedPerceptrons.adopt(networks, "relu", trainable=True)
    other = BatchNormalizedPerceptrons.adopt(others, "relu", trainable=False)
    x = torch.randn(3, 6, 4)
    kept = stack.select([0, 2])
    expected = stack(x).detach()
    stack.assign([0, 1], other)
    torch.testing.assert_close(kept(x[[0, 2]]), expected[[0, 2]])
    torch.testing.assert_close(stack(x)[:2], other(x[:2]))
    torch.testing.assert_close(networks[1](x[1]), others[1](x[1]))
    assert stack.holds(networks)
    networks[0][0].mean = networks[0][0].mean.clone()
    assert not stack.holds(networks)


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def same(request):
    """By these kernels; checks that AVX-512 and AVX2, one thread and two, give the same bits."""
    if not native.computes(torch.zeros(1)):
        pytest.skip(library.describe())
    kinds, before = ("avx512", "avx2", "baseline"), library.load()[1]
    choose, threads = library.loaded().engine_choose, torch.get_num_threads()
    place = kinds.index(request.param)
    if choose(place) is None:
        pytest.skip("not on this processor")

    def check(compute) -> list[Tensor]:
        found = compute()
        if request.param != "baseline":  # which has no fused multiply-add
            for other, n in ((1, 1), (1, 2), (place, 3)):
                choose(other)
                torch.set_num_threads(n)
                assert all(map(torch.equal, compute(), found))
            choose(place)
            torch.set_num_threads(threads)
        return found

    yield check
    torch.set_num_threads(threads)
    next(i for i in range(len(kinds)) if choose(i) == before.encode())


def test_rectified_statistics(same):
    """Column by column, whatever the vectors' width."""
    for n, rows, width in ((1, 1, 1), (2, 3, 5), (3, 64, 64), (2, 300, 77), (4, 512, 256)):
        torch.manual_seed(rows)
        z = torch.randn(n, rows, width) + 0.5
        x, mean, variance = same(lambda z=z: native_normalization.rectify(z))
        assert torch.equal(x, z.relu())
        variances, means = torch.var_mean(x.double(), dim=1, correction=0, keepdim=True)
        torch.testing.assert_close(mean.double(), means, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(variance.double(), variances, rtol=1e-5, atol=1e-6)
        given = x, torch.randn(z.shape), torch.randn(mean.shape), torch.randn(mean.shape)
        (found,) = same(lambda given=given: [native_normalization.rectify_gradient(*given)])
        _, grad, scale, shift = given
        expected = (grad.double() + x * scale + shift) * (z > 0)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_folded_layers(same):
    """As PyTorch's batch normalisation and linear layer, with all gradients."""
    for n, inputs, outputs in ((1, 1, 1), (2, 3, 5), (3, 64, 1), (2, 77, 300), (3, 256, 256)):
        torch.manual_seed(inputs)
        layer = [
            torch.randn(n, inputs, outputs),
            torch.randn(n, 1, outputs),
            *(torch.randn(n, 1, inputs) for _ in range(3)),
            torch.rand(n, 1, inputs) + 0.5,
        ]

        def fold(layer=layer) -> list[Tensor]:
            folded = torch.full((layer[0].numel() + layer[1].numel(),), torch.nan)
            native_normalization.fold(layer, 1e-5, folded)
            return [folded]

        (folded,) = same(fold)
        weights, biases = folded.split([layer[0].numel(), layer[1].numel()])
        weights, biases = weights.view_as(layer[0]), biases.view_as(layer[1])
        exact = [block.double().requires_grad_() for block in layer]
        x, grad = torch.randn(n, 9, inputs), torch.randn(n, 9, outputs)
        expected = torch.stack(
            [
                nn.functional.linear((x[k] - mean) / (v + 1e-5).sqrt() * gain + offset, w.t(), b)
                for k, (w, b, gain, offset, mean, v) in enumerate(zip(*exact, strict=True))
            ]
        )
        found = torch.baddbmm(biases.double(), x.double(), weights.double())
        size = expected.abs().max()
        torch.testing.assert_close(found / size, expected / size, rtol=0, atol=1e-5)

        (expected * grad).sum().backward()
        grad_folded = torch.cat([(x.mT @ grad).flatten(), grad.sum(1).flatten()])

        def gradients(layer=layer, grad_folded=grad_folded, wanted=6) -> list[Tensor]:
            found = [torch.full_like(block, torch.nan) for block in layer[:wanted]]
            native_normalization.fold_gradient(layer, 1e-5, grad_folded, found)
            return found

        for one, true in zip(same(gradients), exact, strict=True):
            size = true.grad.abs().max().clamp(min=1.0)
            torch.testing.assert_close(one.double() / size, true.grad / size, rtol=0, atol=1e-5)
        # Without those of the statistics.
        assert all(map(torch.equal, gradients(wanted=4), gradients()[:4]))


def test_bad_layers_are_refused():
    if not native.computes(torch.zeros(1)):
        pytest.skip(library.describe())
    layer = [torch.ones(2, 3, 4), torch.ones(2, 1, 4), *(torch.ones(2, 1, 3) for _ in range(4))]
    for place, wrong in ((0, torch.ones(2, 4, 4)), (1, torch.ones(2, 1, 3)), (5, torch.ones(2, 3))):
        bad = [*layer[:place], wrong, *layer[place + 1 :]]
        with pytest.raises(ValueError, match="expected"):
            native_normalization.fold(bad, 1e-5, torch.empty(32))
    with pytest.raises(ValueError, match=r"expected \[32\]"):
        native_normalization.fold(layer, 1e-5, torch.empty(31))
    with pytest.raises(ValueError, match=r"expected \[2, 1, 3\]"):
        native_normalization.fold_gradient(
            layer, 1e-5, torch.ones(32), [*layer[:2], torch.ones(3), layer[3]]
        )


def test_not_a_number_is_not_hidden(engine):
    stack = BatchNormalizedPerceptrons.adopt(_networks(2, [3, 8, 1]), "relu", trainable=True)
    x = torch.randn(2, 10, 3)
    x[1, 4, 0] = float("nan")
    y = stack.learning(x)
    assert not y[0].isnan().any()
    assert y[1].isnan().all()
