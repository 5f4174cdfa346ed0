"""n perceptrons of equal shape evaluated together, with a backward pass of their own.

Written by hand because autograd's generic one costs a third more on a CPU: it keeps
pre-activations, masks them out of place and copies transposed weight gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rllib_cikd.engine.matrix_products import (
    affine,
    gradient_of_input,
    gradient_of_weight,
    one_by_one,
)


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


class _Evaluation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parameters: Tensor, stack: StackedPerceptrons) -> Tensor:
        activate = ACTIVATIONS[stack.activation][1]
        last = len(stack.weights) - 1
        ctx.stack = stack
        ctx.one_by_one = one_by_one(x, stack.weights)
        inputs, outputs = [], []
        for (y,), (weights, biases) in zip(
            _divide([x], ctx.one_by_one), stack.blocks(ctx.one_by_one), strict=True
        ):
            for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                inputs.append(y)
                relu = layer < last and stack.activation == "relu"  # the product does it in passing
                y = affine(y, weight, bias, relu)
                if layer < last and not relu:
                    y = activate(y)
            outputs.append(y)
        # The parameters only for autograd's check that nobody has changed them since.
        ctx.save_for_backward(parameters, *inputs)
        return torch.stack(outputs) if ctx.one_by_one else outputs[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        stack: StackedPerceptrons = ctx.stack
        parameters, *saved = ctx.saved_tensors
        layers = len(stack.weights)
        activation_backward = ACTIVATIONS[stack.activation][2]
        needs_x, needs_parameters = ctx.needs_input_grad[:2]
        grad_parameters = None
        if needs_parameters:
            grad_parameters = torch.empty_like(parameters)
            grad_weights, grad_biases = (
                _divide(some, ctx.one_by_one) for some in stack.split(grad_parameters)
            )
        grads = []
        blocks = stack.blocks(ctx.one_by_one)
        for i, (grad,) in enumerate(_divide([grad_outputs[0]], ctx.one_by_one)):
            weights, inputs = blocks[i][0], saved[i * layers : (i + 1) * layers]
            for layer in reversed(range(layers)):
                if needs_parameters:
                    gradient_of_weight(inputs[layer], grad, out=grad_weights[i][layer])
                    torch.sum(grad, -2, keepdim=True, out=grad_biases[i][layer])
                if layer > 0 or needs_x:
                    grad = gradient_of_input(grad, weights[layer])
                if layer > 0:
                    grad = activation_backward(grad, inputs[layer])
            grads.append(grad)
        if not needs_x:
            return None, grad_parameters, None
        grad = torch.stack(grads) if ctx.one_by_one else grads[0]
        return grad, grad_parameters, None


def _divide(tensors: Sequence[Tensor], one_by_one: bool) -> list[Sequence[Tensor]]:
    """What to compute with at a time: tensors `[n, ...]`; or `one_by_one`, n times `[...]`."""
    return list(zip(*(t.unbind(0) for t in tensors), strict=True)) if one_by_one else [tensors]


class StackedPerceptrons:
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
        self._alone = list(
            zip(_divide(self.weights, True), _divide(self.biases, True), strict=True)
        )
        self.parameters.requires_grad_(trainable)

    @classmethod
    def adopt(
        cls, networks: Sequence[nn.Sequential], activation: str, trainable: bool
    ) -> StackedPerceptrons:
        """Stacks the networks' parameters and turns the networks' own into views of the stack.

        Args:
            networks: Perceptrons, all of the same shape.
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

    def blocks(self, one_by_one: bool) -> list[tuple[Sequence[Tensor], Sequence[Tensor]]]:
        """`weights` and `biases`; or those of network k, `[in, out]` and `[1, out]`, for each k."""
        return self._alone if one_by_one else [(self.weights, self.biases)]

    def __call__(self, x: Tensor, frozen: bool = False) -> Tensor:
        """`[n, B, in]` -> `[n, B, out]`.

        Args:
            x: Each network's own inputs.
            frozen: Whether the gradient passes to `x` only, none to the parameters.
        """
        parameters = self._frozen if frozen else self.parameters
        return _Evaluation.apply(x, parameters, self)

    @torch.no_grad()
    def follow(self, online: StackedPerceptrons, tau: float) -> None:
        """Target networks' step towards the online ones: θ' ← θ' + τ (θ - θ')."""
        self.parameters.lerp_(online.parameters, tau)

    def select(self, networks: Sequence[int], trainable: bool = False) -> StackedPerceptrons:
        """Independent copies of some of the networks."""
        index = torch.as_tensor(list(networks), device=self.parameters.device)
        return StackedPerceptrons(
            [weight[index] for weight in self.weights],
            [bias[index] for bias in self.biases],
            self.activation,
            trainable,
        )

    @torch.no_grad()
    def assign(self, networks: Sequence[int], source: StackedPerceptrons) -> None:
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
            own[list(networks)] = other.to(own.device)


def _linears(network: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in network if isinstance(layer, nn.Linear)]
