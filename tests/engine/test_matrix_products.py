"""oneDNN's products against float64 and PyTorch's own, and which processors they are for."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rllib_cikd.algorithm.perceptron import perceptron as mlp
from rllib_cikd.engine import matrix_products
from rllib_cikd.engine.matrix_products import (
    affine,
    gradient_of_input,
    gradient_of_weight,
    one_by_one,
)
from rllib_cikd.engine.perceptrons import StackedPerceptrons

with_onednn = pytest.mark.skipif(
    not matrix_products.onednn_is_there(), reason="this build of PyTorch has no such operator"
)

#: Rows, inputs and outputs of a layer.
SHAPES = [(256, 256, 256), (64, 23, 96), (64, 96, 12), (64, 96, 1), (33, 70, 65), (1, 80, 80)]


@pytest.fixture
def on_amd(monkeypatch):
    """As on a processor that oneDNN is chosen for, whatever the sizes."""
    monkeypatch.setattr(matrix_products, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(matrix_products, "_ONEDNN_MULTIPLICATIONS", 0)


def _matrix(rows: int, columns: int, storage: str) -> Tensor:
    if storage == "rows":
        return torch.randn(rows, columns)
    if storage == "columns":
        return torch.randn(columns, rows).t()
    if storage == "part":  # of a wider matrix
        return torch.randn(rows, columns + 3)[:, :columns]
    return torch.randn(1, columns).expand(rows, columns)  # "shared row"


def _assert_close(actual: Tensor, expected: np.ndarray, terms: int) -> None:
    """To the rounding of a sum of so many float32 products."""
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5, atol=1e-6 * terms**0.5 * 10)


@with_onednn
@pytest.mark.parametrize("storage", ["rows", "columns", "part", "shared row"])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_products_of_one_network_equal_float64(rows, inputs, outputs, storage):
    torch.manual_seed(0)
    x, grad = _matrix(rows, inputs, storage), _matrix(rows, outputs, storage)
    weight, bias = _matrix(inputs, outputs, storage), torch.randn(1, outputs)
    x64, grad64, weight64, bias64 = (t.double().numpy() for t in (x, grad, weight, bias))
    expected = x64 @ weight64 + bias64
    _assert_close(affine(x, weight, bias), expected, inputs)
    _assert_close(affine(x, weight, bias, relu=True), expected.clip(0), inputs)
    _assert_close(gradient_of_input(grad, weight), grad64 @ weight64.T, outputs)
    out = torch.full((inputs, outputs), torch.nan)
    gradient_of_weight(x, grad, out=out)
    _assert_close(out, x64.T @ grad64, rows)


@with_onednn
@pytest.mark.usefixtures("on_amd")
@pytest.mark.parametrize("activation", ["relu", "tanh", "elu"])
@pytest.mark.parametrize("out", [1, 12])
def test_a_stack_by_onednn_equals_separate_networks(activation, out, monkeypatch):
    """Values and all gradients in float32 against `nn.Sequential` and autograd in float64."""
    torch.manual_seed(0)
    calls = []
    operator = matrix_products._onednn
    monkeypatch.setattr(
        matrix_products, "_onednn", lambda *args: calls.append(1) or operator(*args)
    )
    networks = [mlp(17, [128, 96], out, activation) for _ in range(3)]
    stack = StackedPerceptrons.adopt(copy.deepcopy(networks), activation, trainable=True)
    networks = [network.double() for network in networks]
    x = torch.randn(3, 64, 17, requires_grad=True)
    x64 = x.detach().double().requires_grad_()
    weight = torch.randn(3, 64, out)
    output = stack(x)
    expected = torch.stack([network(x64[i]) for i, network in enumerate(networks)])
    (output * weight).sum().backward()
    (expected * weight).sum().backward()

    assert len(calls) >= 3 * (3 + 2)
    torch.testing.assert_close(output.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x.grad.double(), x64.grad, rtol=1e-4, atol=1e-5)
    weights, biases = stack.split(stack.parameters.grad.double())
    for i, network in enumerate(networks):
        linears = [layer for layer in network if isinstance(layer, nn.Linear)]
        for linear, weight_grad, bias_grad in zip(linears, weights, biases, strict=True):
            close = {"rtol": 1e-4, "atol": 1e-4}
            torch.testing.assert_close(weight_grad[i].t(), linear.weight.grad, **close)
            torch.testing.assert_close(bias_grad[i, 0], linear.bias.grad, **close)


@with_onednn
@pytest.mark.usefixtures("on_amd")
def test_the_same_stack_gives_the_same_bits_again():
    torch.manual_seed(0)
    stack = StackedPerceptrons.adopt(
        [mlp(17, [256, 256], 1, "relu") for _ in range(2)], "relu", trainable=True
    )
    x = torch.randn(2, 256, 17)
    gradients = [
        torch.autograd.grad(stack(x).square().sum(), stack.parameters)[0] for _ in range(5)
    ]
    assert all(torch.equal(gradients[0], gradient) for gradient in gradients)


@pytest.mark.parametrize(
    ("processor", "capability", "there", "expected"),
    [
        ("vendor_id : AuthenticAMD", "AVX512", True, True),
        ("vendor_id : AuthenticAMD", "AVX2", True, False),
        ("vendor_id : AuthenticAMD", "AVX512", False, False),
        ("vendor_id : GenuineIntel", "AVX512", True, False),
        ("", "DEFAULT", True, False),
    ],
)
def test_who_multiplies_follows_from_the_processor(
    processor, capability, there, expected, monkeypatch
):
    monkeypatch.setattr(matrix_products, "_processor", lambda: processor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(matrix_products, "onednn_is_there", lambda: there)
    assert matrix_products.onednn_is_faster.__wrapped__() is expected


def test_the_processor_is_described():
    assert matrix_products._processor()


@pytest.mark.parametrize(
    ("rows", "width", "threads", "dtype", "expected"),
    [
        (256, 256, 1, torch.float32, True),
        (256, 256, 2, torch.float32, True),
        (256, 64, 1, torch.float32, False),  # too small to be worth calls of its own
        (256, 128, 1, torch.float32, True),
        (256, 128, 4, torch.float32, False),  # several threads need more
        (256, 256, 1, torch.float64, False),
    ],
)
def test_large_float32_products_are_computed_one_by_one(
    rows, width, threads, dtype, expected, monkeypatch
):
    monkeypatch.setattr(matrix_products, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    weights = [torch.empty(6, 23, width), torch.empty(6, width, width), torch.empty(6, width, 1)]
    assert one_by_one(torch.empty(6, rows, 23, dtype=dtype), weights) is expected
    monkeypatch.setattr(matrix_products, "onednn_is_faster", lambda: False)
    assert one_by_one(torch.empty(6, rows, 23, dtype=dtype), weights) is False
