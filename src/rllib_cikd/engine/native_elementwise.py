"""What the engine's native library computes element by element, on float32 tensors on the CPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rllib_cikd.engine.library import loaded, num_threads
from rllib_cikd.engine.native import check


def adam(
    parameters: Tensor,
    gradient: Tensor,
    first_moments: Tensor,
    second_moments: Tensor,
    step: int,
    lr: float,
    betas: tuple[float, float],
    epsilon: float,
) -> None:
    """Adam's step number `step` (from 1 on), in place; tensors of equal shape.

    First moments below 1e-30 and second ones below 1e-32 become 0.

    Raises:
        ValueError: If a tensor has another shape, type or device.
    """
    library = loaded()
    for name, tensor in (
        ("parameters", parameters),
        ("the gradient", gradient),
        ("first moments", first_moments),
        ("second moments", second_moments),
    ):
        check(name, tensor, parameters.shape)
    if step < 1:
        raise ValueError(f"Adam's steps are counted from 1 on, not {step}.")
    beta1, beta2 = betas
    library.engine_adam(
        parameters.data_ptr(),
        gradient.data_ptr(),
        first_moments.data_ptr(),
        second_moments.data_ptr(),
        parameters.numel(),
        lr / (1.0 - beta1**step),
        beta2,
        1.0 - beta1,
        1.0 - beta2,
        1.0 / math.sqrt(1.0 - beta2**step),
        epsilon,
        num_threads(),
    )


def follow(target: Tensor, source: Tensor, tau: float) -> None:
    """`target += tau * (source - target)`, in place; tensors of equal shape.

    Raises:
        ValueError: If a tensor has another shape, type or device.
    """
    library = loaded()
    check("the source", source, target.shape)
    check("the target", target, target.shape)
    threads = num_threads()
    library.engine_follow(target.data_ptr(), source.data_ptr(), tau, target.numel(), threads)


def sample(
    output: Tensor, noise: Tensor, bounds: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """A sample of tanh-squashed Gaussians, what its gradient needs, and its log-density.

    Args:
        output: Means and logarithms of deviations, `[n, B, 2A]`, none of them 0.
        noise: Standard normal, `[n, B, A]`; its batches and rows may lie anywhere.
        bounds: Within which the logarithms are kept.

    Returns:
        Actions and deviations, `[n, B, A]`, and log-densities, `[n, B]`.

    Raises:
        ValueError: If a tensor has another shape, type or device.
    """
    library, shape = loaded(), noise.shape
    if noise.dim() != 3 or noise.numel() == 0:
        raise ValueError(f"noise has shape {list(shape)}, expected [n, B, A], none of them 0.")
    noise = noise if noise.stride(-1) == 1 else noise.contiguous()
    output = output.contiguous()
    check("output", output, (*shape[:-1], 2 * shape[-1]))
    check("noise", noise, shape, contiguous=False)
    actions, deviations = torch.empty(shape), torch.empty(shape)
    log_densities = torch.empty(shape[:2])
    library.engine_sample(
        *shape,
        output.data_ptr(),
        *bounds,
        noise.data_ptr(),
        noise.stride(0),
        noise.stride(1),
        actions.data_ptr(),
        deviations.data_ptr(),
        log_densities.data_ptr(),
    )
    return actions, deviations, log_densities


def sample_gradient(
    output: Tensor,
    bounds: tuple[float, float],
    actions: Tensor,
    deviations: Tensor,
    grad_actions: Tensor,
    grad_log_densities: Tensor,
) -> Tensor:
    """The gradient of `sample`'s `output`, from those of what it returned.

    As of `torch.clamp`: a logarithm at a bound has one, beyond it none.

    Raises:
        ValueError: If a tensor has another shape, type or device.
    """
    library, shape = loaded(), actions.shape
    output, grad_actions = output.contiguous(), grad_actions.contiguous()
    grad_log_densities = grad_log_densities.contiguous()
    check("output", output, (*shape[:-1], 2 * shape[-1]))
    check("actions", actions, shape)
    check("deviations", deviations, shape)
    check("the gradient of actions", grad_actions, shape)
    check("the gradient of log-densities", grad_log_densities, shape[:2])
    grad_output = torch.empty(output.shape)
    library.engine_sample_gradient(
        shape[0] * shape[1],
        shape[2],
        output.data_ptr(),
        *bounds,
        actions.data_ptr(),
        deviations.data_ptr(),
        grad_actions.data_ptr(),
        grad_log_densities.data_ptr(),
        grad_output.data_ptr(),
    )
    return grad_output
