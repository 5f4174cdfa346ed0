"""A plain PyTorch SAC agent, to compare the package's update with.

Written from the paper (Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018)
with ordinary `nn.Linear` networks, one ordinary Adam per loss and the densities of
`torch.distributions`. It imports nothing of the package, on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU}
NETWORKS = ("policy", "qf1", "qf2", "target_qf1", "target_qf2")


@dataclass(frozen=True)
class Minibatch:
    """What one agent learns from: B transitions, or B returns of several steps each."""

    obs: Tensor  # [B, D]
    actions: Tensor  # [B, A]
    rewards: Tensor  # [B]
    terminated: Tensor  # [B], 0 or 1; a time limit is no termination
    next_obs: Tensor  # [B, D]
    num_rewards: Tensor | int = 1  # how many rewards were summed, [B]


class ReferenceSAC:
    """One SAC agent.

    Args:
        weights: Initial weights, "policy.0.weight" and so on, and "log_alpha" `[1]`.
        dtype: Of all computations.
    """

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        *,
        target_entropy: float,
        actor_lr: float = 3e-4,
        critic_lr: float = 3e-4,
        alpha_lr: float = 3e-4,
        gamma: float = 0.99,
        tau: float = 0.005,
        grad_clip: float | None = None,
        activation: str = "relu",
        dtype: torch.dtype = torch.float32,
    ):
        self.gamma, self.tau = gamma, tau
        self.target_entropy, self.grad_clip = target_entropy, grad_clip
        self.networks = nn.ModuleDict(
            {name: _network(weights, name, activation, dtype) for name in NETWORKS}
        )
        self.log_alpha = torch.tensor(weights["log_alpha"], dtype=dtype, requires_grad=True)
        online_critics = [*self.networks["qf1"].parameters(), *self.networks["qf2"].parameters()]
        self.critic_optimizer = torch.optim.Adam(online_critics, lr=critic_lr)
        self.actor_optimizer = torch.optim.Adam(self.networks["policy"].parameters(), lr=actor_lr)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=alpha_lr)

    def weights(self) -> dict[str, Tensor]:
        """All weights, by the same names as at the start."""
        return {**self.networks.state_dict(), "log_alpha": self.log_alpha.detach()}

    def act(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterised actions `[B, A]` and their log-density `[B]`."""
        mean, log_std = self.networks["policy"](obs).chunk(2, dim=-1)
        std = log_std.clamp(-20.0, 2.0).exp()
        tanh = TanhTransform(cache_size=1)  # remembers u of tanh(u): atanh would lose digits
        squashed = TransformedDistribution(Independent(Normal(mean, std), 1), [tanh])
        actions = tanh(mean + std * noise)
        return actions, squashed.log_prob(actions)

    def q(self, name: str, obs: Tensor, actions: Tensor) -> Tensor:
        return self.networks[name](torch.cat([obs, actions], dim=1)).squeeze(1)

    def update(
        self,
        batch: Minibatch,
        noise: Tensor,
        next_noise: Tensor,
        judges: tuple[nn.Module, nn.Module] | None = None,
    ) -> dict[str, Tensor]:
        """Critics, then policy, then temperature, then target networks.

        `judges` are the two target critics to bootstrap from, its own if None.
        """
        judge1, judge2 = judges or (self.networks["target_qf1"], self.networks["target_qf2"])
        alpha = self.log_alpha.detach().exp()

        with torch.no_grad():
            next_actions, next_logp = self.act(batch.next_obs, next_noise)
            inputs = torch.cat([batch.next_obs, next_actions], dim=1)
            next_q1, next_q2 = judge1(inputs).squeeze(1), judge2(inputs).squeeze(1)
            next_value = torch.min(next_q1, next_q2) - alpha * next_logp
            bootstrap = self.gamma**batch.num_rewards * (1 - batch.terminated)
            target = batch.rewards + bootstrap * next_value
        q1 = self.q("qf1", batch.obs, batch.actions)
        q2 = self.q("qf2", batch.obs, batch.actions)
        critic_loss = 0.5 * ((q1 - target) ** 2).mean() + 0.5 * ((q2 - target) ** 2).mean()
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self._clip(self.networks["qf1"].parameters())
        self._clip(self.networks["qf2"].parameters())
        self.critic_optimizer.step()

        actions, logp = self.act(batch.obs, noise)
        min_q = torch.min(self.q("qf1", batch.obs, actions), self.q("qf2", batch.obs, actions))
        actor_loss = (alpha * logp - min_q).mean()
        self.actor_optimizer.zero_grad()
        actor_loss.backward()
        self._clip(self.networks["policy"].parameters())
        self.actor_optimizer.step()

        alpha_loss = -(self.log_alpha * (logp.detach() + self.target_entropy)).mean()
        self.alpha_optimizer.zero_grad()
        alpha_loss.backward()
        self._clip([self.log_alpha])
        self.alpha_optimizer.step()

        with torch.no_grad():
            for name in ("qf1", "qf2"):
                pairs = zip(
                    self.networks["target_" + name].parameters(),
                    self.networks[name].parameters(),
                    strict=True,
                )
                for target_weight, weight in pairs:
                    target_weight.mul_(1 - self.tau).add_(self.tau * weight)

        return {
            "qf_loss": critic_loss.detach(),
            "policy_loss": actor_loss.detach(),
            "alpha_loss": alpha_loss.detach(),
            "qf_mean": torch.stack([q1, q2]).detach().mean(),
            "logps": logp.detach().mean(),
            "alpha_value": alpha.squeeze(),
        }

    def _clip(self, parameters) -> None:
        if self.grad_clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.grad_clip)


def _network(
    weights: Mapping[str, np.ndarray], name: str, activation: str, dtype: torch.dtype
) -> nn.Sequential:
    """The perceptron whose layers these weights are, a linear layer last.

    Linear layers three places apart have a normalisation and an activation in between.
    """
    places = sorted({int(key.split(".")[1]) for key in weights if key.startswith(name + ".")})
    layers: list[nn.Module] = []
    for place in places:
        weight = torch.tensor(weights[f"{name}.{place}.weight"], dtype=dtype)
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
        linear.load_state_dict(
            {"weight": weight, "bias": torch.tensor(weights[f"{name}.{place}.bias"], dtype=dtype)}
        )
        norm = [Normalization()] if places[1:2] == [3] else []
        layers += [linear, *norm, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[: places[-1] + 1])


class Normalization(nn.Module):
    """Layer normalisation without parameters (Ba et al. 2016, eq. 3)."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt()


def assert_equal_weights(module: nn.Module, agent: ReferenceSAC, tolerance: float) -> None:
    """A member's weights and a plain agent's, of the same names."""
    ours, theirs = module.state_dict(), agent.weights()
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(
            ours[name],
            theirs[name],
            rtol=0,
            atol=tolerance,
            msg=lambda m, name=name: f"{name}: {m}",
        )
