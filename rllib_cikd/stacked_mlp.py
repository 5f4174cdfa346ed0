"""n perceptrons of equal shape evaluated as one batched computation, with its own backward pass.

Written by hand because autograd's generic one costs a third more on a CPU: it keeps
pre-activations, masks them out of place and copies transposed weight gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: Below this many multiplications a product is not worth splitting by hand (see `_bmm`).
_LARGE_PRODUCT = 2**23


def _relu_backward(grad: Tensor, output: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward.grad_input(grad, output, 0, grad_input=grad)


def _tanh_backward(grad: Tensor, output: Tensor) -> Tensor:
    return torch.ops.aten.tanh_backward.grad_input(grad, output, grad_input=grad)


def _elu_backward(grad: Tensor, output: Tensor) -> Tensor:
    return torch.ops.aten.elu_backward.grad_input(grad, 1, 1, 1, True, output, grad_input=grad)


#: Per activation, by RLlib's name: the module, in-place forward, and backward from the output.
ACTIVATIONS: dict[str, tuple[type[nn.Module], Callable[..., Tensor], Callable[..., Tensor]]] = {
    "relu": (nn.ReLU, torch.relu_, _relu_backward),
    "tanh": (nn.Tanh, torch.tanh_, _tanh_backward),
    "elu": (nn.ELU, torch.nn.functional.elu_, _elu_backward),
}


def _bmm(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """`[n, i, j] @ [n, j, k]`, over all threads also where n is no multiple of their number.

    On CPU, `torch.bmm` gives each thread whole products: with three networks on two threads,
    one of them works alone for half of the time.
    """
    n, i, j = a.shape
    if a.is_cuda or n % torch.get_num_threads() == 0 or i * j * b.shape[2] < _LARGE_PRODUCT:
        return torch.bmm(a, b) if out is None else torch.bmm(a, b, out=out)
    if out is None:
        out = a.new_empty(n, i, b.shape[2])
    for network in range(n):
        torch.mm(a[network], b[network], out=out[network])
    return out


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """`[n, B, in] @ [n, in, out]`."""
    if weight.shape[2] == 1:  # one row times a matrix: a third of the time of the transposed
        return torch.bmm(weight.transpose(1, 2), x.transpose(1, 2)).view(*x.shape[:2], 1)
    return _bmm(x, weight)


def _gradient_of_weight(x: Tensor, grad: Tensor, out: Tensor) -> None:
    """`[n, in, B] @ [n, B, out]`, into `out`."""
    if grad.shape[2] == 1:
        torch.bmm(grad.transpose(1, 2), x, out=out.transpose(1, 2))
    else:
        _bmm(x.transpose(1, 2), grad, out=out)


def _gradient_of_input(grad: Tensor, weight: Tensor) -> Tensor:
    """`[n, B, out] @ [n, out, in]`."""
    if weight.shape[2] == 1:
        return grad * weight.transpose(1, 2)
    return _bmm(grad, weight.transpose(1, 2))


class _StackedMLPFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parameters: Tensor, mlp: StackedMLP, rows: int) -> Tensor:
        activate = ACTIVATIONS[mlp.activation][1]
        last = len(mlp.weights) - 1
        inputs = []
        for layer, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
            inputs.append(x[:, :rows])
            x = _linear(x, weight).add_(bias)
            if layer < last:
                x = activate(x)
        ctx.mlp, ctx.rows = mlp, x.shape[1]
        # The parameters only for autograd's check that nobody has changed them since.
        ctx.save_for_backward(parameters, *inputs)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        mlp: StackedMLP = ctx.mlp
        parameters, *inputs = ctx.saved_tensors
        rows = inputs[0].shape[1]
        grad = grad_outputs[0][:, :rows]
        activation_backward = ACTIVATIONS[mlp.activation][2]
        needs_x, needs_parameters = ctx.needs_input_grad[:2]
        grad_parameters = None
        if needs_parameters:
            grad_parameters = torch.empty_like(parameters)
            grad_weights, grad_biases = mlp.split(grad_parameters)
        for layer in reversed(range(len(mlp.weights))):
            if needs_parameters:
                _gradient_of_weight(inputs[layer], grad, out=grad_weights[layer])
                torch.sum(grad, 1, keepdim=True, out=grad_biases[layer])
            if layer > 0 or needs_x:
                grad = _gradient_of_input(grad, mlp.weights[layer])
            if layer > 0:
                grad = activation_backward(grad, inputs[layer])
        if needs_x and rows < ctx.rows:
            grad = nn.functional.pad(grad, (0, 0, 0, ctx.rows - rows))
        return grad if needs_x else None, grad_parameters, None, None


class StackedMLP:
    """n perceptrons of equal shape, evaluated together.

    All their weights and biases are one tensor, `parameters` `[P]`, so that the step of an
    optimiser or of target networks is one operation. `weights` and `biases` are views into it,
    and so become the n networks' own parameters (`adopt`): they stay ordinary modules for
    everyone who reads or loads them, as long as loading copies in place.

    Args:
        weights: Per layer `[n, in, out]`; their values are copied.
        biases: Per layer `[n, 1, out]`.
        activation: A key of `ACTIVATIONS`.
        trainable: Whether `parameters` requires a gradient.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        activation: str,
        trainable: bool = False,
    ):
        blocks = [block for layer in zip(weights, biases, strict=True) for block in layer]
        self._shapes = [block.shape for block in blocks]
        self.activation = activation
        self.parameters = torch.cat([block.detach().flatten() for block in blocks])
        self._frozen = self.parameters.detach()
        self.weights, self.biases = self.split(self._frozen)
        self.parameters.requires_grad_(trainable)

    @classmethod
    def adopt(
        cls, networks: Sequence[nn.Sequential], activation: str, trainable: bool
    ) -> StackedMLP:
        """Stacks the networks' parameters and turns the networks' own into views of the stack.

        Args:
            networks: As made by `sac_module.mlp`, all of the same shape.
            activation: Theirs, a key of `ACTIVATIONS`.
            trainable: Whether `parameters` requires a gradient.
        """
        layers = list(zip(*(_linears(network) for network in networks), strict=True))
        stack = cls(
            [torch.stack([linear.weight.t() for linear in layer]) for layer in layers],
            [torch.stack([linear.bias for linear in layer]).unsqueeze(1) for layer in layers],
            activation,
            trainable,
        )
        for layer, weight, bias in zip(layers, stack.weights, stack.biases, strict=True):
            for i, linear in enumerate(layer):
                linear.requires_grad_(False)
                linear.weight.data = weight[i].t()
                linear.bias.data = bias[i, 0]
        return stack

    def holds(self, networks: Sequence[nn.Sequential]) -> bool:
        """Whether the networks' parameters still are views into this stack."""
        return all(
            layer.weight.data_ptr() == weight[i].data_ptr()
            and layer.bias.data_ptr() == bias[i].data_ptr()
            for i, network in enumerate(networks)
            for layer, weight, bias in zip(
                _linears(network), self.weights, self.biases, strict=True
            )
        )

    def __len__(self) -> int:
        return len(self.weights[0])

    def split(self, flat: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Views into a tensor like `parameters`: per layer `[n, in, out]` and `[n, 1, out]`.

        Also for its gradient or an optimiser's moments.
        """
        blocks = flat.split([shape.numel() for shape in self._shapes])
        views = [block.view(shape) for block, shape in zip(blocks, self._shapes, strict=True)]
        return views[::2], views[1::2]

    def __call__(self, x: Tensor, frozen: bool = False, gradient_rows: int | None = None) -> Tensor:
        """`[n, B, in]` -> `[n, B, out]`.

        Args:
            x: Each network's own inputs.
            frozen: Whether the gradient passes to `x` only, none to the parameters.
            gradient_rows: Of the B rows only so many, the first ones, pass a gradient on.
        """
        parameters = self._frozen if frozen else self.parameters
        return _StackedMLPFunction.apply(x, parameters, self, gradient_rows or x.shape[1])

    def select(self, networks: Sequence[int], trainable: bool = False) -> StackedMLP:
        """Independent copies of some of the networks."""
        index = torch.as_tensor(list(networks), device=self.parameters.device)
        return StackedMLP(
            [weight[index] for weight in self.weights],
            [bias[index] for bias in self.biases],
            self.activation,
            trainable,
        )

    @torch.no_grad()
    def assign(self, networks: Sequence[int], source: StackedMLP) -> None:
        """Overwrites some of the networks, in place; a source of one network serves them all.

        Raises:
            ValueError: If the source's networks have another shape.
        """
        if [shape[1:] for shape in self._shapes] != [shape[1:] for shape in source._shapes]:
            raise ValueError(
                "Networks of different shapes cannot be copied: "
                f"{[list(w.shape[1:]) for w in source.weights]} into "
                f"{[list(w.shape[1:]) for w in self.weights]}."
            )
        for own, other in zip(
            self.weights + self.biases, source.weights + source.biases, strict=True
        ):
            own[list(networks)] = other


def _linears(network: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in network if isinstance(layer, nn.Linear)]
