"""A reparameterised sample of a tanh-squashed Gaussian, natively or by PyTorch's operations."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from rllib_cikd.engine import native

_LOG_2 = math.log(2.0)
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class SquashedGaussian(torch.autograd.Function):
    """Actions `[n, B, A]` and log-densities `[n, B]`, from means, log stds and standard noise.

    Its own backward pass needs six operations, autograd's some thirty.
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        if native.computes(mean) and mean.dim() == 3 and mean.numel():
            actions, deviation, log_density = native.sample(mean, log_std, noise)
            ctx.save_for_backward(actions, deviation)
            return actions, log_density
        deviation = log_std.exp().mul_(noise)
        pre_tanh = mean + deviation
        actions = pre_tanh.tanh()
        # log(1 - tanh(u)^2) in a form that does not underflow for large |u|.
        log_slope = 2.0 * (_LOG_2 - pre_tanh - F.softplus(-2.0 * pre_tanh))
        log_density = -0.5 * noise.square() - log_std - _HALF_LOG_2PI
        ctx.save_for_backward(actions, deviation)
        return actions, (log_density - log_slope).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        # u = mean + deviation: d action / du = 1 - action^2, d log-density / du = 2 action.
        actions, deviation = ctx.saved_tensors
        if native.computes(actions) and actions.dim() == 3 and actions.numel():
            return *native.sample_gradient(actions, deviation, *grads), None
        grad_actions, grad_log_density = grads[0], grads[1].unsqueeze(-1)
        grad_mean = grad_actions * (1.0 - actions.square()) + grad_log_density * 2.0 * actions
        return grad_mean, grad_mean * deviation - grad_log_density, None
