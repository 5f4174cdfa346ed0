"""n perceptrons of equal shape evaluated as one batched computation, with its own backward pass.

Written by hand because autograd's generic one costs a third more on a CPU: it keeps
pre-activations, masks them out of place and copies transposed weight gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

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


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    """`[n, i, j] @ [n, j, k]`, over all threads also where n is no multiple of their number.

    On CPU, `torch.bmm` gives each thread whole products: with three networks on two threads,
    one of them works alone for half of the time.
    """
    n, i, j = a.shape
    if a.is_cuda or n % torch.get_num_threads() == 0 or i * j * b.shape[2] < _LARGE_PRODUCT:
        return torch.bmm(a, b)
    out = a.new_empty(n, i, b.shape[2])
    for network in range(n):
        torch.mm(a[network], b[network], out=out[network])
    return out


class _StackedMLPFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: str, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[::2], parameters[1::2]
        activate = ACTIVATIONS[activation][1]
        inputs = []
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            inputs.append(x)
            x = _bmm(x, weight.transpose(1, 2)).add_(bias)
            if layer < len(weights) - 1:
                x = activate(x)
        ctx.activation = activation
        ctx.save_for_backward(*inputs, *weights)
        return x

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        (grad,) = grad_outputs
        saved = ctx.saved_tensors
        inputs, weights = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        activation_backward = ACTIVATIONS[ctx.activation][2]
        needs_x, _, *needs_parameters = ctx.needs_input_grad
        grads: list[Tensor | None] = [None] * (2 * len(weights))
        for layer in reversed(range(len(weights))):
            if needs_parameters[2 * layer]:
                grads[2 * layer] = _bmm(grad.transpose(1, 2), inputs[layer])
            if needs_parameters[2 * layer + 1]:
                grads[2 * layer + 1] = grad.sum(1, keepdim=True)
            if layer > 0:
                grad = activation_backward(_bmm(grad, weights[layer]), inputs[layer])
            elif needs_x:
                grad = _bmm(grad, weights[0])
        return (grad if needs_x else None, None, *grads)


class StackedMLP:
    """n perceptrons of equal shape, evaluated together.

    Layer l of all of them is one tensor. The n networks' own parameters are views into it
    (`adopt`), so the networks stay ordinary modules for everyone who reads or loads them, as
    long as loading copies in place.

    Args:
        weights: Per layer `[n, out, in]`.
        biases: Per layer `[n, 1, out]`.
        activation: A key of `ACTIVATIONS`.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor], activation: str):
        self.weights = list(weights)
        self.biases = list(biases)
        self.activation = activation
        self._parameters = [p for pair in zip(self.weights, self.biases, strict=True) for p in pair]

    @classmethod
    def adopt(
        cls, networks: Sequence[nn.Sequential], activation: str, trainable: bool
    ) -> StackedMLP:
        """Stacks the networks' parameters and turns the networks' own into views of the stack.

        Args:
            networks: As made by `sac_module.mlp`, all of the same shape.
            activation: Theirs, a key of `ACTIVATIONS`.
            trainable: Whether the stacked tensors require gradients.
        """
        weights, biases = [], []
        for layers in zip(*(_linears(network) for network in networks), strict=True):
            weight = torch.stack([layer.weight.detach() for layer in layers])
            bias = torch.stack([layer.bias.detach() for layer in layers]).unsqueeze(1)
            for i, layer in enumerate(layers):
                layer.requires_grad_(False)
                layer.weight.data = weight[i]
                layer.bias.data = bias[i, 0]
            weights.append(weight.requires_grad_(trainable))
            biases.append(bias.requires_grad_(trainable))
        return cls(weights, biases, activation)

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

    @property
    def parameters(self) -> list[Tensor]:
        """Weight and bias of each layer in turn."""
        return self._parameters

    def __call__(self, x: Tensor) -> Tensor:
        """`[n, B, in]` -> `[n, B, out]`."""
        return _StackedMLPFunction.apply(x, self.activation, *self._parameters)

    def frozen(self) -> StackedMLP:
        """The same networks (shared memory) with no gradient to their parameters."""
        return StackedMLP(
            [w.detach() for w in self.weights], [b.detach() for b in self.biases], self.activation
        )

    def select(self, networks: Sequence[int], trainable: bool = False) -> StackedMLP:
        """Independent copies of some of the networks."""
        index = torch.as_tensor(list(networks), device=self.weights[0].device)
        return StackedMLP(
            [w.detach()[index].requires_grad_(trainable) for w in self.weights],
            [b.detach()[index].requires_grad_(trainable) for b in self.biases],
            self.activation,
        )

    @torch.no_grad()
    def assign(self, networks: Sequence[int], source: StackedMLP) -> None:
        """Overwrites some of the networks, in place; a source of one network serves them all.

        Raises:
            ValueError: If the source's networks have another shape.
        """
        if [p.shape[1:] for p in self.parameters] != [p.shape[1:] for p in source.parameters]:
            raise ValueError(
                "Networks of different shapes cannot be copied: "
                f"{[list(w.shape[1:]) for w in source.weights]} into "
                f"{[list(w.shape[1:]) for w in self.weights]}."
            )
        for own, other in zip(self.parameters, source.parameters, strict=True):
            for i, network in enumerate(networks):
                own[network].copy_(other[i if len(other) > 1 else 0])


def _linears(network: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in network if isinstance(layer, nn.Linear)]
