"""SAC's losses by the engine's native library, on float32 tensors on the CPU.

What `algorithm/losses.py` says of them holds: these are the same functions of the same arguments.
Some ten of PyTorch's operations on a thousand numbers would take as long as a network's layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rllib_cikd.engine.library import loaded
from rllib_cikd.engine.native import check


def td_target(
    rewards: Tensor, discounts: Tensor, next_q: Tensor, next_log_probs: Tensor, alpha: Tensor
) -> Tensor:
    """r + discount (min_j q_j - alpha log-density), `[K, B]`.

    Raises:
        ValueError: If a tensor has another shape, type or device.
    """
    library, shape = loaded(), rewards.shape
    check("rewards", rewards, shape, contiguous=False)
    check("discounts", discounts, shape, contiguous=False)
    next_q, next_log_probs = next_q.contiguous(), next_log_probs.contiguous()
    check("next_q", next_q, (2, *shape))
    check("next_log_probs", next_log_probs, shape)
    check("alpha", alpha, (shape[0], 1))
    target = torch.empty(shape)
    library.engine_td_target(
        *shape,
        rewards.data_ptr(),
        *rewards.stride(),
        discounts.data_ptr(),
        *discounts.stride(),
        next_q.data_ptr(),
        next_log_probs.data_ptr(),
        alpha.data_ptr(),
        target.data_ptr(),
    )
    return target


def critic_loss(q: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The value, `[K]`, and its gradient by q, `[2, K, B]`.

    Raises:
        ValueError: If a tensor has another shape, type or device.
    """
    library, shape = loaded(), target.shape
    q, target = q.contiguous(), target.contiguous()
    check("q", q, (2, *shape))
    check("target", target, shape)
    value, grad_q = torch.empty(shape[0]), torch.empty(q.shape)
    library.engine_critic_loss(
        *shape, q.data_ptr(), target.data_ptr(), value.data_ptr(), grad_q.data_ptr()
    )
    return value, grad_q


def actor_loss(log_probs: Tensor, q: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The value, `[K]`, and its gradient by q, `[2, K, B]`; that by a log-density is alpha / B.

    Raises:
        ValueError: If a tensor has another shape, type or device.
    """
    library, shape = loaded(), log_probs.shape
    log_probs, q = log_probs.contiguous(), q.contiguous()
    check("log_probs", log_probs, shape)
    check("q", q, (2, *shape))
    check("alpha", alpha, (shape[0], 1))
    value, grad_q = torch.empty(shape[0]), torch.empty(q.shape)
    library.engine_actor_loss(
        *shape,
        log_probs.data_ptr(),
        q.data_ptr(),
        alpha.data_ptr(),
        value.data_ptr(),
        grad_q.data_ptr(),
    )
    return value, grad_q
