"""SAC's losses and the distillation losses, as pure functions of tensors.

Shapes: K members come first, then the minibatch B, then features (A = action dimension).
Reduction: every loss is returned per member, `[K]`, as the mean over the member's own
minibatch. Learners backpropagate the *sum* over members, so that a member's gradient does not
depend on how many others there are.

SAC's losses come with their gradients by the networks' outputs, in closed form: small networks are
so quick that autograd's way back through a loss would cost a tenth of an update.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rllib_cikd.algorithm.perceptron import LOG_STD_MAX, LOG_STD_MIN
from rllib_cikd.engine import native, native_losses
from rllib_cikd.engine.squashed_gaussian import SquashedGaussian


class Loss(NamedTuple):
    """A loss of K members, and where backpropagation begins.

    Attributes:
        value: `[K]`, without gradient.
        outputs: Of networks, or parameters: what the loss depends on.
        gradients: Of the sum over members, by each of the outputs.
    """

    value: Tensor
    outputs: list[Tensor]
    gradients: list[Tensor]

    @classmethod
    def by_autograd(cls, value: Tensor) -> Loss:
        """Of a loss that autograd follows."""
        return cls(value.detach(), [value], [torch.ones_like(value)])


def _check_shape(name: str, tensor: Tensor, expected: torch.Size | tuple[int, ...]) -> None:
    # `[K, B] - [K, B, 1]` would broadcast to `[K, K, B]` without a word.
    if tensor.shape != torch.Size(expected):
        raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {list(expected)}.")


def sample_squashed_gaussian(output: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Reparameterised sample of tanh(Normal(mean, std)) with its log-density (SAC, appendix C).

    Args:
        output: Of the policy networks, `[K, B, 2A]`: mean and log std of the Gaussian before the
            squashing, the latter to be kept within SAC's bounds (`split_policy_output`).
        noise: Standard normal, `[K, B, A]`.

    Returns:
        Actions in (-1, 1), `[K, B, A]`, and their log-density, `[K, B]`.
    """
    _check_shape("output", output, (*noise.shape[:-1], 2 * noise.shape[-1]))
    return SquashedGaussian.apply(output, noise, (LOG_STD_MIN, LOG_STD_MAX))


def td_target(
    rewards: Tensor,
    discounts: Tensor,
    next_q: Tensor,
    next_log_probs: Tensor,
    alpha: Tensor,
) -> Tensor:
    """Soft Bellman target r + γ(1-d) (min_j Q'_j(s', a') - α log π(a'|s')) (SAC, eq. 3 and 5).

    Args:
        rewards: `[K, B]`; with n-step returns already the discounted sum.
        discounts: What the bootstrap value is multiplied with, `[K, B]`: γ^n, 0 after a
            termination. A time limit does not make it 0.
        next_q: Target critics at (s', a'), a' ~ π(s'), `[2, K, B]`.
        next_log_probs: log π(a'|s'), `[K, B]`.
        alpha: Temperatures, `[K, 1]`.
    """
    _check_shape("next_q", next_q, (2, *rewards.shape))
    _check_shape("discounts", discounts, rewards.shape)
    _check_shape("next_log_probs", next_log_probs, rewards.shape)
    _check_shape("alpha", alpha, (rewards.shape[0], 1))
    if native.computes(next_q):
        return native_losses.td_target(rewards, discounts, next_q, next_log_probs, alpha)
    soft_value = torch.minimum(next_q[0], next_q[1]) - alpha * next_log_probs
    return rewards + discounts * soft_value


@torch.no_grad()
def critic_loss(q: Tensor, target: Tensor) -> Loss:
    """Half the mean squared TD error, summed over the twins (SAC, eq. 5 and 6).

    Args:
        q: Critics at (s, a), `[2, K, B]`.
        target: What they should be, `[K, B]`, held fixed.
    """
    _check_shape("q", q, (2, *target.shape))
    if native.computes(q):
        value, by_q = native_losses.critic_loss(q, target)
        return Loss(value, [q], [by_q])
    error = q - target
    return Loss(0.5 * error.square().mean(-1).sum(0), [q], [error / q.shape[-1]])


@torch.no_grad()
def actor_loss(log_probs: Tensor, q: Tensor, alpha: Tensor) -> Loss:
    """E[α log π(a|s) - min_j Q_j(s, a)] with a reparameterised (SAC, eq. 7 to 9).

    Args:
        log_probs: `[K, B]`.
        q: Critics at (s, a), their parameters held fixed, `[2, K, B]`. Of two equal values the
            first has the gradient.
        alpha: Temperatures, `[K, 1]`, held fixed.
    """
    _check_shape("q", q, (2, *log_probs.shape))
    _check_shape("alpha", alpha, (log_probs.shape[0], 1))
    by_log_probs = (alpha / q.shape[-1]).expand_as(log_probs)
    if native.computes(q):
        value, by_q = native_losses.actor_loss(log_probs, q, alpha)
    else:
        value = (alpha * log_probs - torch.minimum(q[0], q[1])).mean(-1)
        first = q[0] <= q[1]
        by_q = torch.stack([first, ~first]).to(q.dtype) * (-1.0 / q.shape[-1])
    return Loss(value, [log_probs, q], [by_log_probs, by_q])


@torch.no_grad()
def temperature_loss(log_alpha: Tensor, log_probs: Tensor, target_entropy: float) -> Loss:
    """-log α · E[log π(a|s) + H] (SAC, eq. 18, in log α as all common programs have it).

    Args:
        log_alpha: `[K, 1]`.
        log_probs: `[K, B]`, held fixed.
        target_entropy: H, -dim(A) by default.
    """
    _check_shape("log_probs", log_probs, (log_alpha.shape[0], log_probs.shape[-1]))
    _check_shape("log_alpha", log_alpha, (log_probs.shape[0], 1))
    by_log_alpha = -(log_probs.mean(-1, keepdim=True) + target_entropy)
    return Loss((log_alpha * by_log_alpha).squeeze(-1), [log_alpha], [by_log_alpha])


def policy_kl(
    teacher_mean: Tensor,
    teacher_log_std: Tensor,
    student_mean: Tensor,
    student_log_std: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """KL(teacher ‖ student) of two tanh-squashed diagonal Gaussians (CIKD, policy distillation).

    The squashing is the same bijection on both sides, so this is the KL of the Gaussians
    before it, in closed form.

    Args:
        teacher_mean, teacher_log_std: `[B, A]`, held fixed; or `[S, B, A]`.
        student_mean, student_log_std: S students, `[S, B, A]`.
        weights: Of the states, `[S, B]`; None: 1.

    Returns:
        Summed over action dimensions, mean over the batch, `[S]`.
    """
    if teacher_mean.shape[-2:] != student_mean.shape[-2:]:
        raise ValueError(
            f"Teacher {list(teacher_mean.shape)} and students {list(student_mean.shape)} differ "
            "in batch or action dimension."
        )
    variance_ratio = (2.0 * (teacher_log_std - student_log_std)).exp()
    scaled_distance = (teacher_mean - student_mean) * (-student_log_std).exp()
    kl = student_log_std - teacher_log_std + 0.5 * (variance_ratio + scaled_distance.square() - 1)
    return _mean_over_states(kl.sum(-1), weights)


def categorical_kl(
    teacher_logits: Tensor, student_logits: Tensor, weights: Tensor | None = None
) -> Tensor:
    """KL(teacher ‖ student) of two softmax policies, mean over the batch.

    Args:
        teacher_logits: `[B, A]`, held fixed; or `[S, B, A]`.
        student_logits: S students, `[S, B, A]`.
        weights: Of the states, `[S, B]`; None: 1.

    Returns:
        `[S]`.
    """
    if teacher_logits.shape[-2:] != student_logits.shape[-2:]:
        raise ValueError(
            f"Teacher {list(teacher_logits.shape)} and students {list(student_logits.shape)} "
            "differ in batch or number of actions."
        )
    teacher, student = teacher_logits.log_softmax(-1), student_logits.log_softmax(-1)
    return _mean_over_states((teacher.exp() * (teacher - student)).sum(-1), weights)


def _mean_over_states(values: Tensor, weights: Tensor | None) -> Tensor:
    return (values if weights is None else weights * values).mean(-1)


def expected_value(logits: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """E_a[min_j Q_j(s, a)] and E_a[log π(a|s)] over a softmax policy (Christodoulou 2019, eq. 10).

    Args:
        logits: Of the policies, `[K, B, A]`.
        q: Both critics' values of all actions, `[2, K, B, A]`.

    Returns:
        `[K, B]` each; exact sums over the actions.
    """
    _check_shape("q", q, (2, *logits.shape))
    log_probs = logits.log_softmax(-1)
    probs = log_probs.exp()
    return (probs * torch.minimum(q[0], q[1])).sum(-1), (probs * log_probs).sum(-1)


def critic_distance(teacher_q: Tensor, student_q: Tensor) -> Tensor:
    """Mean squared distance of each twin to the teacher's same twin (CIKD, critic distillation).

    Args:
        teacher_q: `[2, 1, B]`, held fixed; or `[2, S, B]`. For discrete actions B values are
            those of all actions at all states.
        student_q: S students, `[2, S, B]`.

    Returns:
        Mean over the batch, summed over the twins, `[S]`.
    """
    if teacher_q.dim() != 3 or teacher_q.shape[-1] != student_q.shape[-1]:
        raise ValueError(
            f"teacher_q {list(teacher_q.shape)} and student_q {list(student_q.shape)} must be "
            "[2, 1, B] and [2, S, B]."
        )
    return (student_q - teacher_q).square().mean(-1).sum(0)
