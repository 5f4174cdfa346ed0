"""The stacked perceptrons and their hand-written backward pass against PyTorch's own."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rllib_cikd.algorithm.perceptron import perceptron as mlp
from rllib_cikd.engine import matrix_products, perceptrons
from rllib_cikd.engine.perceptrons import StackedPerceptrons

N, B, IN, OUT = 3, 7, 5, 2
ACTIVATIONS = ("relu", "tanh", "elu")
HIDDENS = ([], [6], [8, 6])


@pytest.fixture(autouse=True)
def _float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=["batched", "split", "one by one"])
def products(request, monkeypatch) -> list[int]:
    """All ways to multiply; the list grows with every product of a single network."""
    counter: list[int] = []

    def counting(single: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def product(*args, **kwargs) -> Tensor:
            counter.append(1)
            return single(*args, **kwargs)

        return product

    monkeypatch.setattr(matrix_products, "_LARGE_PRODUCT", 2**62)
    if request.param == "split":
        monkeypatch.setattr(matrix_products, "_LARGE_PRODUCT", 0)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # does not divide N
        monkeypatch.setattr(torch, "mm", counting(torch.mm))
    elif request.param == "one by one":  # oneDNN's operator itself has no float64
        monkeypatch.setattr(perceptrons, "one_by_one", lambda x, weights: True)
        monkeypatch.setattr(matrix_products, "_onednn", counting(_plain_product))
    yield counter
    assert bool(counter) == (request.param != "batched")  # it took the way it names


def _plain_product(
    a: Tensor, b: Tensor, bias: Tensor | None = None, activation: str = "none"
) -> Tensor:
    y = nn.functional.linear(a, b, bias)
    return y.relu() if activation == "relu" else y


def _networks(n: int = N, hiddens: list[int] | None = None, activation: str = "relu"):
    return [mlp(IN, [8, 6] if hiddens is None else hiddens, OUT, activation) for _ in range(n)]


def _twins(
    n: int = N, hiddens: list[int] | None = None, activation: str = "relu"
) -> tuple[list[nn.Sequential], StackedPerceptrons]:
    """Ordinary networks, and a stack that holds copies of them."""
    networks = _networks(n, hiddens, activation)
    return networks, StackedPerceptrons.adopt(copy.deepcopy(networks), activation, trainable=True)


def _separately(networks: list[nn.Sequential], x: Tensor) -> Tensor:
    return torch.stack([network(x[i]) for i, network in enumerate(networks)])


# ---------------------------------------------------------------- values and gradients


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hiddens", HIDDENS, ids=str)
@pytest.mark.usefixtures("products")
def test_equals_separate_networks_with_their_gradients(activation, hiddens):
    """Values, and gradients of all weights and inputs, against `nn.Sequential` and autograd."""
    networks, stack = _twins(N, hiddens, activation)
    x = torch.randn(N, B, IN, requires_grad=True)
    x_alone = x.detach().clone().requires_grad_()
    weight = torch.randn(N, B, OUT)

    output, expected = stack(x), _separately(networks, x_alone)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    (output * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(x.grad, x_alone.grad, rtol=1e-12, atol=1e-12)
    _assert_gradients(stack, networks)


def _assert_gradients(stack: StackedPerceptrons, networks: list[nn.Sequential]) -> None:
    """The stack's gradient holds those of the networks, and nothing else."""
    weights, biases = stack.split(stack.parameters.grad)
    assert sum(g.numel() for g in weights + biases) == stack.parameters.numel()
    for i, network in enumerate(networks):
        linears = [layer for layer in network if isinstance(layer, nn.Linear)]
        for linear, weight, bias in zip(linears, weights, biases, strict=True):
            torch.testing.assert_close(weight[i].t(), linear.weight.grad, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(bias[i, 0], linear.bias.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hiddens", HIDDENS, ids=str)
@pytest.mark.usefixtures("products")
def test_gradcheck(activation, hiddens):
    """Finite differences."""
    _, stack = _twins(N, hiddens, activation)
    x = torch.randn(N, 3, IN, requires_grad=True)

    assert torch.autograd.gradcheck(lambda x, _: stack(x), (x, stack.parameters))
    assert torch.autograd.gradcheck(lambda x: stack(x, frozen=True), (x,))


@pytest.mark.parametrize("out", [1, 2])
@pytest.mark.usefixtures("products")
def test_networks_with_a_single_output(out):
    """Critics have one; their last layer takes products of its own."""
    networks = [mlp(IN, [8, 6], out, "relu") for _ in range(N)]
    stack = StackedPerceptrons.adopt(copy.deepcopy(networks), "relu", trainable=True)
    x = torch.randn(N, B, IN, requires_grad=True)
    x_alone = x.detach().clone().requires_grad_()
    output, expected = stack(x), _separately(networks, x_alone)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    output.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, x_alone.grad, rtol=1e-12, atol=1e-12)
    _assert_gradients(stack, networks)


def test_changed_parameters_are_noticed_before_the_backward_pass():
    """As for every PyTorch module: gradients of other weights than the forward pass's are wrong."""
    _, stack = _twins()
    for output in (stack(torch.randn(N, B, IN)), _with_frozen(stack)):
        with torch.no_grad():
            stack.parameters.mul_(2.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()


def _with_frozen(stack: StackedPerceptrons) -> Tensor:
    return stack(torch.randn(N, B, IN, requires_grad=True), frozen=True)


def test_one_network_in_the_stack():
    networks, stack = _twins(1)
    x = torch.randn(1, B, IN)
    torch.testing.assert_close(stack(x), _separately(networks, x))
    assert len(stack) == 1


def test_float32_equals_separate_networks_to_rounding():
    torch.set_default_dtype(torch.float32)
    networks, stack = _twins(N, [64, 64])
    x = torch.randn(N, 32, IN)
    torch.testing.assert_close(stack(x), _separately(networks, x), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("products")
def test_an_expanded_input_is_shared_by_all_networks():
    """`obs.expand(n, -1, -1)` has no memory of its own; the gradients of its rows add up."""
    networks, stack = _twins()
    x = torch.randn(1, B, IN, requires_grad=True)
    x_alone = x.detach().clone().requires_grad_()
    stack(x.expand(N, -1, -1)).sum().backward()
    _separately(networks, x_alone.expand(N, -1, -1)).sum().backward()
    torch.testing.assert_close(x.grad, x_alone.grad)


@pytest.mark.parametrize("hiddens", HIDDENS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.usefixtures("products")
def test_backward_leaves_what_it_was_given(activation, hiddens):
    """Its activations' gradients are computed in place: neither saved tensors nor its input may
    change, so a second backward pass gives the same gradients."""
    _, stack = _twins(N, hiddens, activation)
    x = torch.randn(N, B, IN, requires_grad=True)
    output, grad_output = stack(x), torch.randn(N, B, OUT)
    given = grad_output.clone(), output.detach().clone(), x.detach().clone()
    inputs = [x, stack.parameters]
    first = torch.autograd.grad(output, inputs, grad_output, retain_graph=True)
    second = torch.autograd.grad(output, inputs, grad_output)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(given, (grad_output, output, x), strict=True))


def test_second_derivatives_are_refused():
    """The backward pass has none of its own: better an error than a wrong number."""
    _, stack = _twins()
    x = torch.randn(N, B, IN, requires_grad=True)
    (gradient,) = torch.autograd.grad(stack(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_two_passes_before_one_backward_add_up():
    networks, stack = _twins()
    x, y = torch.randn(2, N, B, IN)
    (stack(x) + 2 * stack(y)).sum().backward()
    (_separately(networks, x) + 2 * _separately(networks, y)).sum().backward()
    _assert_gradients(stack, networks)


@pytest.mark.parametrize("shapes", [((N, B, IN), (N, IN, OUT)), ((1, B, IN), (1, IN, OUT))])
def test_a_split_product_equals_bmm(shapes, monkeypatch):
    """Also with transposed operands, as the forward and backward passes have them."""
    monkeypatch.setattr(matrix_products, "_LARGE_PRODUCT", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    a, b = torch.randn(*shapes[0]), torch.randn(*shapes[1])
    transposed_a = a.transpose(1, 2).contiguous().transpose(1, 2)
    transposed_b = b.transpose(1, 2).contiguous().transpose(1, 2)
    for left in (a, transposed_a):
        for right in (b, transposed_b):
            torch.testing.assert_close(matrix_products._bmm(left, right), torch.bmm(a, b))


# ---------------------------------------------------------------- where gradients go


@pytest.mark.usefixtures("products")
def test_frozen_networks_pass_the_gradient_on_and_take_none():
    networks, stack = _twins()
    x = torch.randn(N, B, IN, requires_grad=True)
    x_alone = x.detach().clone().requires_grad_()
    stack(x, frozen=True).sum().backward()
    _separately(networks, x_alone).sum().backward()
    torch.testing.assert_close(x.grad, x_alone.grad, rtol=1e-12, atol=1e-12)
    assert stack.parameters.grad is None


def test_frozen_networks_are_the_stack_s():
    _, stack = _twins()
    x = torch.randn(N, B, IN)
    for _ in range(2):
        assert torch.equal(stack(x, frozen=True), stack(x))
        assert not stack(x, frozen=True).requires_grad
        with torch.no_grad():
            stack.parameters.mul_(1.5)


def test_a_network_s_input_moves_no_other_network():
    _, stack = _twins()
    stack(torch.randn(N, B, IN))[1].sum().backward()
    weights, biases = stack.split(stack.parameters.grad)
    for gradient in weights + biases:
        assert gradient[1].any()
        assert not gradient[0].any()
        assert not gradient[2].any()


# ---------------------------------------------------------------- adopt, select, assign


def test_adopted_networks_are_views_of_the_stack():
    networks = _networks()
    originals, x = copy.deepcopy(networks), torch.randn(N, B, IN)
    stack = StackedPerceptrons.adopt(networks, "relu", trainable=True)
    assert stack.holds(networks)
    torch.testing.assert_close(_separately(networks, x), _separately(originals, x))
    with torch.no_grad():
        stack.parameters.add_(0.1)
    assert torch.equal(networks[1][0].weight, stack.weights[0][1].t())
    assert torch.equal(networks[2][-1].bias, stack.biases[-1][2, 0])
    torch.testing.assert_close(_separately(networks, x), stack(x))
    assert stack.parameters.requires_grad
    assert not any(p.requires_grad for network in networks for p in network.parameters())


def test_untrainable_stack_requires_no_gradient():
    stack = StackedPerceptrons.adopt(_networks(), "relu", trainable=False)
    assert not stack.parameters.requires_grad


def test_loading_a_state_reaches_the_stack():
    """`load_state_dict` copies in place: the views survive it."""
    networks, others = _networks(), _networks()
    stack, x = StackedPerceptrons.adopt(networks, "relu", trainable=True), torch.randn(N, B, IN)
    for network, other in zip(networks, others, strict=True):
        network.load_state_dict(other.state_dict())
    assert stack.holds(networks)
    torch.testing.assert_close(stack(x), _separately(others, x))


def _new_weight(network: nn.Sequential) -> None:
    network[0].weight = nn.Parameter(network[0].weight.detach().clone())


def _new_bias_memory(network: nn.Sequential) -> None:
    network[-1].bias.data = network[-1].bias.data.clone()


def _other_dtype(network: nn.Sequential) -> None:
    network.float()


@pytest.mark.parametrize("detach", [_new_weight, _new_bias_memory, _other_dtype])
@pytest.mark.parametrize("place", [0, N - 1])
def test_holds_notices_a_detached_network(detach: Callable, place: int):
    networks = _networks()
    stack = StackedPerceptrons.adopt(networks, "relu", trainable=True)
    detach(networks[place])
    assert not stack.holds(networks)


def test_holds_notices_the_wrong_order():
    networks = _networks()
    stack = StackedPerceptrons.adopt(networks, "relu", trainable=True)
    assert not stack.holds(networks[::-1])


def test_selected_networks_are_independent_copies():
    networks, stack = _twins()
    selected, x = stack.select([2, 0], trainable=True), torch.randn(2, B, IN)
    expected = torch.stack([networks[2](x[0]), networks[0](x[1])])
    torch.testing.assert_close(selected(x), expected)
    assert selected.parameters.requires_grad
    assert selected.parameters.is_leaf
    assert not stack.select([1]).parameters.requires_grad
    before = stack.parameters.detach().clone()
    selected(x).sum().backward()
    with torch.no_grad():
        selected.parameters.zero_()
    assert torch.equal(stack.parameters, before)
    assert stack.parameters.grad is None


def test_assign_overwrites_only_the_named_networks_in_place():
    networks, source = _networks(4), _networks(2)
    stack = StackedPerceptrons.adopt(networks, "relu", trainable=True)
    originals = copy.deepcopy(networks)
    address = stack.parameters.data_ptr()
    stack.assign([3, 1], StackedPerceptrons.adopt(source, "relu", trainable=False))
    assert stack.parameters.data_ptr() == address
    assert stack.holds(networks)
    for network, expected in zip(
        networks, (originals[0], source[1], originals[2], source[0]), strict=True
    ):
        for p, q in zip(network.parameters(), expected.parameters(), strict=True):
            assert torch.equal(p, q)


def test_assign_from_one_network_serves_all():
    _, stack = _twins()
    source, x = _networks(1)[0], torch.randn(1, B, IN)
    one = StackedPerceptrons.adopt([copy.deepcopy(source)], "relu", trainable=False)
    stack.assign([0, 2], one)
    output = stack(x.expand(N, -1, -1))
    torch.testing.assert_close(output[0], source(x[0]))
    torch.testing.assert_close(output[2], source(x[0]))
    assert not torch.allclose(output[1], source(x[0]))
