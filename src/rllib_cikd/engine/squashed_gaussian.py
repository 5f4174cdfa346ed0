"""A reparameterised sample of a tanh-squashed Gaussian, natively or by PyTorch's operations."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from rllib_cikd.engine import native, native_elementwise

_LOG_2 = math.log(2.0)
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class SquashedGaussian(torch.autograd.Function):
    """Actions `[n, B, A]` and log-densities `[n, B]`, from a policy's output and standard noise.

    Output `[n, B, 2A]` are means and log stds, which are kept within `bounds`. Its own backward
    pass needs some ten operations, autograd's some forty.
    """

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, noise: Tensor, bounds: tuple[float, float]
    ) -> tuple[Tensor, Tensor]:
        ctx.bounds = bounds
        if _is_natives(noise):
            actions, deviation, log_density = native_elementwise.sample(output, noise, bounds)
            ctx.save_for_backward(output, actions, deviation)
            return actions, log_density
        mean, log_std = output.chunk(2, dim=-1)
        log_std = log_std.clamp(*bounds)
        deviation = log_std.exp().mul_(noise)
        pre_tanh = mean + deviation
        actions = pre_tanh.tanh()
        # log(1 - tanh(u)^2) in a form that does not underflow for large |u|.
        log_slope = 2.0 * (_LOG_2 - pre_tanh - F.softplus(-2.0 * pre_tanh))
        log_density = -0.5 * noise.square() - log_std - _HALF_LOG_2PI
        ctx.save_for_backward(output, actions, deviation)
        return actions, (log_density - log_slope).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        # u = mean + deviation: d action / du = 1 - action^2, d log-density / du = 2 action.
        output, actions, deviation = ctx.saved_tensors
        if _is_natives(actions):
            kept = output, ctx.bounds, actions, deviation
            return native_elementwise.sample_gradient(*kept, *grads), None, None
        grad_actions, grad_log_density = grads[0], grads[1].unsqueeze(-1)
        grad_mean = grad_actions * (1.0 - actions.square()) + grad_log_density * 2.0 * actions
        log_std = output.chunk(2, dim=-1)[1]
        within = log_std == log_std.clamp(*ctx.bounds)
        grad_log_std = (grad_mean * deviation - grad_log_density) * within
        return torch.cat([grad_mean, grad_log_std], dim=-1), None, None


def _is_natives(x: Tensor) -> bool:
    return native.computes(x) and x.dim() == 3 and x.numel() > 0
