"""The stacked perceptrons, by both engines, against PyTorch's own modules and autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rllib_cikd.algorithm.perceptron import perceptron as mlp
from rllib_cikd.engine import library, native
from rllib_cikd.engine.perceptrons import StackedPerceptrons

N, B, IN, OUT = 3, 7, 5, 2
#: With "normalized", hidden layers are normalised before the activation.
ACTIVATIONS = ("relu", "tanh", "elu", "normalized relu", "normalized tanh")
HIDDENS = ([], [6], [8, 6])


@pytest.fixture(autouse=True, params=["native", "plain"])
def engine(request, monkeypatch) -> str:
    """The native engine has float32 alone; the plain one is looked at in float64."""
    torch.manual_seed(0)
    if request.param == "plain":
        monkeypatch.setattr(library, "load", lambda: (None, "a test took it away."))
        torch.set_default_dtype(torch.float64)
    else:
        assert native.computes(torch.zeros(1)), library.describe()
    yield request.param
    torch.set_default_dtype(torch.float32)


def _assert_close(actual: Tensor, expected: Tensor) -> None:
    """To the type's rounding."""
    tolerance = 1e-12 if actual.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def _networks(n: int = N, hiddens: list[int] | None = None, activation: str = "relu"):
    *normalized, name = activation.split()
    widths = [8, 6] if hiddens is None else hiddens
    return [mlp(IN, widths, OUT, name, "layer" if normalized else "none") for _ in range(n)]


def _twins(
    n: int = N, hiddens: list[int] | None = None, activation: str = "relu"
) -> tuple[list[nn.Sequential], StackedPerceptrons]:
    """Ordinary networks, and a stack that holds copies of them."""
    networks = _networks(n, hiddens, activation)
    name = activation.split()[-1]
    return networks, StackedPerceptrons.adopt(copy.deepcopy(networks), name, trainable=True)


def _separately(networks: list[nn.Sequential], x: Tensor) -> Tensor:
    return torch.stack([network(x[i]) for i, network in enumerate(networks)])


# ---------------------------------------------------------------- values and gradients


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hiddens", HIDDENS, ids=str)
def test_equals_separate_networks_with_their_gradients(activation, hiddens):
    """Values, and gradients of all weights and inputs, against `nn.Sequential` and autograd."""
    networks, stack = _twins(N, hiddens, activation)
    x = torch.randn(N, B, IN, requires_grad=True)
    x_alone = x.detach().clone().requires_grad_()
    weight = torch.randn(N, B, OUT)

    output, expected = stack(x), _separately(networks, x_alone)
    _assert_close(output, expected)
    (output * weight).sum().backward()
    (expected * weight).sum().backward()
    _assert_close(x.grad, x_alone.grad)
    _assert_gradients(stack, networks)


def _assert_gradients(stack: StackedPerceptrons, networks: list[nn.Sequential]) -> None:
    """The stack's gradient holds those of the networks, and nothing else."""
    weights, biases = stack.by_kind(stack.parameters.grad)
    assert sum(g.numel() for g in weights + biases) == stack.parameters.numel()
    for i, network in enumerate(networks):
        linears = [layer for layer in network if isinstance(layer, nn.Linear)]
        for linear, weight, bias in zip(linears, weights, biases, strict=True):
            _assert_close(weight[i].t(), linear.weight.grad)
            _assert_close(bias[i, 0], linear.bias.grad)


@pytest.mark.parametrize("engine", ["plain"], indirect=True)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hiddens", HIDDENS, ids=str)
def test_gradcheck(activation, hiddens):
    """Finite differences, for which float32 is too coarse."""
    _, stack = _twins(N, hiddens, activation)
    x = torch.randn(N, 3, IN, requires_grad=True)

    assert torch.autograd.gradcheck(lambda x, _: stack(x), (x, stack.parameters))
    assert torch.autograd.gradcheck(lambda x: stack(x, frozen=True), (x,))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("rows", [B, 100])
def test_rows_without_a_gradient(rows, frozen, activation):
    """A gradient of 0 gives one of 0, as for the smaller one of two critics."""
    networks, stack = _twins(activation=activation)
    x = torch.randn(N, rows, IN, requires_grad=True)
    x_alone = x.detach().clone().requires_grad_()
    weight = torch.randn(N, rows, OUT) * (torch.rand(N, rows, 1) < 0.5)
    (stack(x, frozen=frozen) * weight).sum().backward()
    (_separately(networks, x_alone) * weight).sum().backward()
    _assert_close(x.grad, x_alone.grad)
    assert not x.grad[(weight == 0).all(-1)].any()
    if frozen:
        assert stack.parameters.grad is None
    else:
        _assert_gradients(stack, networks)


@pytest.mark.parametrize("out", [1, 2])
def test_networks_with_a_single_output(out):
    """Critics have one; their last layer takes products of its own."""
    networks = [mlp(IN, [8, 6], out, "relu") for _ in range(N)]
    stack = StackedPerceptrons.adopt(copy.deepcopy(networks), "relu", trainable=True)
    x = torch.randn(N, B, IN, requires_grad=True)
    x_alone = x.detach().clone().requires_grad_()
    output, expected = stack(x), _separately(networks, x_alone)
    _assert_close(output, expected)
    output.square().sum().backward()
    expected.square().sum().backward()
    _assert_close(x.grad, x_alone.grad)
    _assert_gradients(stack, networks)


def test_changed_parameters_are_noticed_before_the_backward_pass():
    """As for every PyTorch module: gradients of other weights than the forward pass's are wrong."""
    _, stack = _twins()
    for output in (stack(torch.randn(N, B, IN)), _with_frozen(stack)):
        with torch.no_grad():
            stack.parameters.mul_(2.0)
        with pytest.raises(RuntimeError, match=r"modified by an inplace|been modified inplace"):
            output.sum().backward()


def _with_frozen(stack: StackedPerceptrons) -> Tensor:
    return stack(torch.randn(N, B, IN, requires_grad=True), frozen=True)


def test_one_network_in_the_stack():
    networks, stack = _twins(1)
    x = torch.randn(1, B, IN)
    _assert_close(stack(x), _separately(networks, x))
    assert len(stack) == 1


def test_an_expanded_input_is_shared_by_all_networks():
    """`obs.expand(n, -1, -1)` has no memory of its own; the gradients of its rows add up."""
    networks, stack = _twins()
    x = torch.randn(1, B, IN, requires_grad=True)
    x_alone = x.detach().clone().requires_grad_()
    stack(x.expand(N, -1, -1)).sum().backward()
    _separately(networks, x_alone.expand(N, -1, -1)).sum().backward()
    _assert_close(x.grad, x_alone.grad)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("rows", [B, 70])
@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_networks_that_share_their_inputs(inputs, rows, frozen):
    """Both critics of a member judge the same actions; their gradients add up."""
    networks, stack = _twins(6)
    x = torch.randn(inputs, rows, IN, requires_grad=True)
    x_alone = x.detach().clone().requires_grad_()
    weight = torch.randn(6, rows, OUT)
    output = stack(x, frozen=frozen)
    expected = _separately(networks, torch.cat([x_alone] * (6 // inputs)))
    _assert_close(output, expected)
    (output * weight).sum().backward()
    (expected * weight).sum().backward()
    _assert_close(x.grad, x_alone.grad)
    with torch.no_grad():
        _assert_close(stack(x), expected)
    if not frozen:
        _assert_gradients(stack, networks)


@pytest.mark.parametrize("hiddens", HIDDENS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
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


def test_second_derivatives_are_refused(engine):
    """The native backward pass has none of its own: better an error than a wrong number."""
    _, stack = _twins()
    x = torch.randn(N, B, IN, requires_grad=True)
    (gradient,) = torch.autograd.grad(stack(x).square().sum(), x, create_graph=True)
    if engine == "plain":
        gradient.sum().backward()
        return
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_two_passes_before_one_backward_add_up():
    networks, stack = _twins()
    x, y = torch.randn(2, N, B, IN)
    (stack(x) + 2 * stack(y)).sum().backward()
    (_separately(networks, x) + 2 * _separately(networks, y)).sum().backward()
    _assert_gradients(stack, networks)


# ---------------------------------------------------------------- where gradients go


def test_frozen_networks_pass_the_gradient_on_and_take_none():
    networks, stack = _twins()
    x = torch.randn(N, B, IN, requires_grad=True)
    x_alone = x.detach().clone().requires_grad_()
    stack(x, frozen=True).sum().backward()
    _separately(networks, x_alone).sum().backward()
    _assert_close(x.grad, x_alone.grad)
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
    weights, biases = stack.by_kind(stack.parameters.grad)
    for gradient in weights + biases:
        assert gradient[1].any()
        assert not gradient[0].any()
        assert not gradient[2].any()


# ---------------------------------------------------------------- what is refused, target networks


@pytest.mark.parametrize("shape", [(N, B, IN + 1), (N + 1, B, IN), (2, B, IN), (0, B, IN), (B, IN)])
def test_inputs_of_another_shape_are_refused(shape):
    _, stack = _twins()
    with pytest.raises(ValueError, match=r"x has shape .*, expected \[3, B, 5\]"):
        stack(torch.randn(shape))


def test_inputs_of_another_type_are_refused():
    _, stack = _twins()
    with pytest.raises(ValueError, match=r"x is torch.float16 on cpu, the parameters are"):
        stack(torch.zeros(N, B, IN, dtype=torch.float16))


def test_no_rows():
    _, stack = _twins()
    assert stack(torch.zeros(N, 0, IN)).shape == (N, 0, OUT)


def test_target_networks_follow_by_tau():
    _, target = _twins(hiddens=[40, 40])
    _, source = _twins(hiddens=[40, 40])
    before, expected = target.parameters.detach().clone(), source.parameters.detach().clone()
    address = target.parameters.data_ptr()
    target.follow(source, 0.3)
    _assert_close(target.parameters.detach(), 0.7 * before + 0.3 * expected)
    assert target.parameters.data_ptr() == address
    assert torch.equal(source.parameters, expected)


# ---------------------------------------------------------------- adopt, select, assign


def test_adopted_networks_are_views_of_the_stack():
    networks = _networks()
    originals, x = copy.deepcopy(networks), torch.randn(N, B, IN)
    stack = StackedPerceptrons.adopt(networks, "relu", trainable=True)
    assert stack.holds(networks)
    _assert_close(_separately(networks, x), _separately(originals, x))
    with torch.no_grad():
        stack.parameters.add_(0.1)
    assert torch.equal(networks[1][0].weight, stack.weights[0][1].t())
    assert torch.equal(networks[2][-1].bias, stack.biases[-1][2, 0])
    _assert_close(_separately(networks, x), stack(x))
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
    _assert_close(stack(x), _separately(others, x))


def _new_weight(network: nn.Sequential) -> None:
    network[0].weight = nn.Parameter(network[0].weight.detach().clone())


def _new_bias_memory(network: nn.Sequential) -> None:
    network[-1].bias.data = network[-1].bias.data.clone()


def _other_dtype(network: nn.Sequential) -> None:
    network.half()


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
    _assert_close(selected(x), expected)
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
    _assert_close(output[0], source(x[0]))
    _assert_close(output[2], source(x[0]))
    assert not torch.allclose(output[1], source(x[0]))
