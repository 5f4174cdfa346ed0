"""One SAC gradient step of all members of a stack, as one batched computation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rllib_cikd.algorithm import losses
from rllib_cikd.algorithm.ensemble import MemberStack, q_values, q_values_of_pairs
from rllib_cikd.algorithm.learners import ALONE, Learners
from rllib_cikd.algorithm.losses import Loss
from rllib_cikd.algorithm.replay_buffer import Batch
from rllib_cikd.engine.optimizer import Adam

#: Values of `CIKDConfig.critic_targets`.
CRITIC_TARGETS = ("own", "shared")


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
    policy_delay: int = 1
    adam_beta1: float = 0.9


class SACUpdate:
    """SAC's optimisers and gradient step for a stack of n members.

    Adam is elementwise, so one optimiser over stacked parameters equals n separate ones.

    Args:
        stack: The members.
        settings: Of all of them.
        learners: Those that take this step at the same time, each with minibatches of its own.
    """

    #: What `step` reports of each member, in this order.
    STATISTICS = ("qf_loss", "policy_loss", "alpha_loss", "qf_mean", "logps", "alpha_value")

    def __init__(self, stack: MemberStack, settings: SACSettings, learners: Learners = ALONE):
        self.stack = stack
        self.settings = settings
        self._learners = learners
        self._parameters = {
            "critic": stack.critics.parameters,
            "actor": stack.policy.parameters,
            "alpha": stack.log_alpha,
        }
        self.optimizers = {
            name: Adam([parameters], lr=3e-4, beta1=settings.adam_beta1)
            for name, parameters in self._parameters.items()
        }
        for name, optimizer in self.optimizers.items():
            lr = getattr(settings, f"{name}_lr")
            if isinstance(lr, (int, float)):
                optimizer.param_groups[0]["lr"] = lr
        self._of_policy: list[Tensor] = []  # what the last step of the policies reported

    def step(self, batch: Batch, noise: Tensor, pairs: Tensor | None = None) -> Tensor:
        """One gradient step of critics, policy and temperature, then of the target networks.

        Args:
            batch: A minibatch for each of the n members, `[n, B, ...]`.
            noise: Standard normal, `[n, 2, B, A]`: for the actions at s and at s'. Discrete
                actions need none.
            pairs: The two target critics that each member bootstraps from, `[2, n]`, a permutation
                of all 2n; None: its own.

        Returns:
            The `STATISTICS` of this step, `[len(STATISTICS), n]`, without gradient.
        """
        stack, alpha = self.stack, self.stack.alpha
        noise_at_obs, noise_at_next_obs = noise.unbind(1)

        # Critics: one step towards the soft Bellman target.
        q, target = self._q_and_target(batch, noise_at_next_obs, alpha, pairs)
        critic_loss = losses.critic_loss(q, target)
        self._descend(critic=critic_loss)

        # Policy and temperature, in every `policy_delay`-th step: the critics as just updated judge
        # the policy's actions; they get no gradient from it.
        learns = self._policy_learns()
        if learns or not self._of_policy:
            policy = stack.policy.learning if learns else stack.policy
            actor_loss, log_probs = self._actor_loss(policy(batch.obs), batch, noise_at_obs, alpha)
            alpha_loss = losses.temperature_loss(
                stack.log_alpha, log_probs, self.settings.target_entropy
            )
            if learns:
                self._descend(actor=actor_loss, alpha=alpha_loss)
            log_prob = log_probs.detach().mean(-1)
            self._of_policy = [actor_loss.value, alpha_loss.value, log_prob]

        self._follow()
        actor, temperature, log_prob = self._of_policy
        q_mean = q.detach().mean(dim=(0, 2))
        return torch.stack(
            [critic_loss.value, actor, temperature, q_mean, log_prob, alpha.squeeze(-1)]
        )

    def _policy_learns(self) -> bool:
        """Whether the policies do in this step: in the first one, and then as often as is set."""
        if self.settings.policy_delay == 1:
            return True
        (critic,) = self.optimizers["critic"].state.values()
        return (int(critic["step"]) - 1) % self.settings.policy_delay == 0

    def _follow(self) -> None:
        """The target critics' step."""
        self.stack.target_critics.follow(self.stack.critics, self.settings.tau)

    def _q_and_target(
        self, batch: Batch, noise: Tensor, alpha: Tensor, pairs: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both critics at the transitions' actions, `[2, n, B]`, and their target, `[n, B]`."""
        target = self._td_target(batch, noise, alpha, pairs)
        return self._q(batch), target

    @torch.no_grad()
    def _td_target(
        self, batch: Batch, noise: Tensor, alpha: Tensor, pairs: Tensor | None
    ) -> Tensor:
        """The soft Bellman target, `[n, B]`."""
        next_actions, next_log_probs = losses.sample_squashed_gaussian(
            self.stack.policy(batch.next_obs), noise
        )
        next_q = self._next_q(torch.cat([batch.next_obs, next_actions], -1), pairs)
        return losses.td_target(batch.rewards, batch.discounts, next_q, next_log_probs, alpha)

    def _next_q(self, inputs: Tensor, pairs: Tensor | None) -> Tensor:
        """The values that each member bootstraps from, `[2, n, ...]` (see `q_values`)."""
        critics = self.stack.target_critics
        if pairs is None:
            return q_values(critics, inputs)
        return q_values_of_pairs(critics, inputs, pairs)

    def _q(self, batch: Batch) -> Tensor:
        """Both critics at the transitions' actions, `[2, n, B]`."""
        return q_values(self.stack.critics, batch.obs_and_actions)

    def _actor_loss(
        self, output: Tensor, batch: Batch, noise: Tensor, alpha: Tensor
    ) -> tuple[Loss, Tensor]:
        """The loss of policies with this output, and log π(a|s) of their actions, `[n, B]`."""
        actions, log_probs = losses.sample_squashed_gaussian(output, noise)
        q = q_values(self.stack.critics, torch.cat([batch.obs, actions], -1), frozen=True)
        return losses.actor_loss(log_probs, q, alpha), log_probs

    def _descend(self, **losses: Loss) -> None:
        """One step of each named optimiser on the sum over members of its loss."""
        for name in losses:
            self._parameters[name].grad = None
        outputs = [output for loss in losses.values() for output in loss.outputs]
        torch.autograd.backward(outputs, [g for loss in losses.values() for g in loss.gradients])
        gradients: dict[str, Any] = {name: self._parameters[name].grad for name in losses}
        self._learners.average(list(gradients.values()))
        for name, gradient in gradients.items():
            if self.settings.grad_clip is not None:
                clip_by_network_norm(self._by_network(name, gradient), self.settings.grad_clip)
            self.optimizers[name].descend()

    def _by_network(self, name: str, values: Tensor) -> list[Tensor]:
        """What an optimiser has for all its parameters, as views `[networks, ...]`."""
        if name == "alpha":
            return [values]
        networks = self.stack.policy if name == "actor" else self.stack.critics
        return networks.split(values)

    def renew_betas(self) -> None:
        """The optimisers' β1 is that of the settings again, after a state was loaded."""
        for optimizer in self.optimizers.values():
            (group,) = optimizer.param_groups
            group["betas"] = (self.settings.adam_beta1, group["betas"][1])

    def reset_moments(self, rows: list[int]) -> None:
        """Forgets the direction in which the policies and critics in these rows were moving.

        Adam's second moments stay: its step counter is common to all members, so that from zero
        they would make the first updates several times too large.
        """
        for name, networks in (("actor", rows), ("critic", self.stack.twins(rows))):
            for state in self.optimizers[name].state.values():
                for moment in self._by_network(name, state["exp_avg"]):
                    moment[networks] = 0.0


@torch.no_grad()
def clip_by_network_norm(gradients: list[Tensor], max_norm: float) -> None:
    """Scales each network's gradient, over all its layers, to at most `max_norm`, in place.

    Args:
        gradients: Of all layers of n networks, `[n, ...]` each.
        max_norm: The largest allowed Euclidean norm of one network's gradient.
    """
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
    scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))
