"""The SAC gradient step for discrete actions (Christodoulou 2019, "SAC for discrete actions").

Policies are softmaxes over A actions, critics give the values of all of them, and expectations
over actions are sums instead of samples. All else is `SACUpdate`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rllib_cikd.algorithm import losses
from rllib_cikd.algorithm.losses import Loss
from rllib_cikd.algorithm.replay_buffer import Batch
from rllib_cikd.algorithm.sac_update import SACUpdate
from rllib_cikd.engine.perceptrons import StackedPerceptrons


class CategoricalSACUpdate(SACUpdate):
    """As `SACUpdate`; a minibatch's actions are one-hot vectors, and it needs no noise."""

    @torch.no_grad()
    def _td_target(
        self, batch: Batch, noise: Tensor, alpha: Tensor, pairs: Tensor | None
    ) -> Tensor:
        logits = self.stack.policy(batch.next_obs)
        next_q = self._next_q(batch.next_obs, pairs).view(2, *logits.shape)
        value, log_probs = losses.expected_value(logits, next_q)
        return batch.rewards + batch.discounts * (value - alpha * log_probs)

    def _q(self, batch: Batch) -> Tensor:
        return (_values(self.stack.critics, batch.obs) * batch.actions).sum(-1)

    def _actor_loss(
        self, output: Tensor, batch: Batch, noise: Tensor, alpha: Tensor
    ) -> tuple[Loss, Tensor]:
        with torch.no_grad():
            q = _values(self.stack.critics, batch.obs)
        value, log_probs = losses.expected_value(output, q)
        return Loss.by_autograd((alpha * log_probs - value).mean(-1)), log_probs


def _values(critics: StackedPerceptrons, obs: Tensor) -> Tensor:
    """Both critics' values of all actions at `[n, B, D]`: `[2, n, B, A]`."""
    return critics(obs).view(2, *obs.shape[:2], -1)
