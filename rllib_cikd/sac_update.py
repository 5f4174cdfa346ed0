"""One SAC gradient step of all members of a stack, as one batched computation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rllib_cikd import losses
from rllib_cikd.ensemble import MemberStack, policy_distribution, q_values
from rllib_cikd.replay_buffer import Batch


@dataclass(frozen=True)
class SACSettings:
    """SAC's hyperparameters of one member (defaults: the published values)."""

    actor_lr: Any = 3e-4
    critic_lr: Any = 3e-4
    alpha_lr: Any = 3e-4
    gamma: float = 0.99
    tau: float = 0.005
    target_entropy: float = -1.0
    grad_clip: float | None = None


class SACUpdate:
    """SAC's optimisers and gradient step for a stack of n members.

    Adam is elementwise, so one optimiser over stacked parameters equals n separate ones.
    """

    #: What `step` reports of each member, in this order.
    STATISTICS = ("qf_loss", "policy_loss", "alpha_loss", "qf_mean", "logps", "alpha_value")

    def __init__(self, stack: MemberStack, settings: SACSettings):
        self.stack = stack
        self.settings = settings
        self.optimizers = {
            name: torch.optim.Adam(parameters, lr=3e-4, fused=True)
            for name, parameters in (
                ("critic", stack.critics.parameters),
                ("actor", stack.policy.parameters),
                ("alpha", [stack.log_alpha]),
            )
        }
        for name, optimizer in self.optimizers.items():
            lr = getattr(settings, f"{name}_lr")
            if isinstance(lr, (int, float)):
                optimizer.param_groups[0]["lr"] = lr

    def step(self, batch: Batch, noise: Tensor) -> Tensor:
        """One gradient step of critics, policy and temperature, then of the target networks.

        Args:
            batch: A minibatch for each of the n members, `[n, B, ...]`.
            noise: Standard normal, `[2, n, B, A]`: for the actions at s and at s'.

        Returns:
            The `STATISTICS` of this step, `[len(STATISTICS), n]`, without gradient.
        """
        stack, alpha = self.stack, self.stack.alpha

        with torch.no_grad():
            next_actions, next_log_probs = losses.sample_squashed_gaussian(
                *policy_distribution(stack.policy, batch.next_obs), noise[1]
            )
            next_q = q_values(stack.target_critics, torch.cat([batch.next_obs, next_actions], -1))
            target = losses.td_target(batch.rewards, batch.discounts, next_q, next_log_probs, alpha)

        q = q_values(stack.critics, batch.obs_and_actions)
        critic_loss = losses.critic_loss(q, target)
        self._descend("critic", critic_loss)

        # The critics as just updated judge the policy; they get no gradient from it.
        actions, log_probs = losses.sample_squashed_gaussian(
            *policy_distribution(stack.policy, batch.obs), noise[0]
        )
        policy_q = q_values(stack.critics.frozen(), torch.cat([batch.obs, actions], -1))
        actor_loss = losses.actor_loss(log_probs, policy_q, alpha)
        self._descend("actor", actor_loss)

        alpha_loss = losses.temperature_loss(
            stack.log_alpha, log_probs, self.settings.target_entropy
        )
        self._descend("alpha", alpha_loss)

        with torch.no_grad():
            torch._foreach_lerp_(
                stack.target_critics.parameters, stack.critics.parameters, self.settings.tau
            )
            return torch.stack(
                [
                    critic_loss.detach(),
                    actor_loss.detach(),
                    alpha_loss.detach(),
                    q.detach().mean(dim=(0, 2)),
                    log_probs.detach().mean(-1),
                    alpha.squeeze(-1),
                ]
            )

    def _descend(self, name: str, loss: Tensor) -> None:
        """One optimiser step on the sum over members of `loss` `[n]`."""
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        if self.settings.grad_clip is not None:
            clip_by_network_norm(optimizer.param_groups[0]["params"], self.settings.grad_clip)
        optimizer.step()

    def reset_moments(self, rows: list[int]) -> None:
        """Forgets the optimisers' moments of the policies and critics in these rows."""
        for name, networks in (("actor", rows), ("critic", self.stack.twins(rows))):
            for state in self.optimizers[name].state.values():
                state["exp_avg"][networks] = 0.0
                state["exp_avg_sq"][networks] = 0.0


@torch.no_grad()
def clip_by_network_norm(parameters: list[Tensor], max_norm: float) -> None:
    """Scales each network's gradient, over all its layers, to at most `max_norm`.

    Args:
        parameters: Stacked tensors with gradients, `[n, ...]` each.
        max_norm: The largest allowed Euclidean norm of one network's gradient.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)
    scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(scale.view(-1, *[1] * (grad.dim() - 1)))
