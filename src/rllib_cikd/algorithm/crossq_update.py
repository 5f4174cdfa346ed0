"""The SAC gradient step of critics with batch normalisation (CrossQ, Bhatt et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from rllib_cikd.algorithm import losses
from rllib_cikd.algorithm.ensemble import by_twins
from rllib_cikd.algorithm.replay_buffer import Batch
from rllib_cikd.algorithm.sac_update import SACUpdate


class CrossQUpdate(SACUpdate):
    """As `SACUpdate`, without target networks.

    The critics see (s, a) and (s', a') in one pass, so that both are normalised by the statistics
    of both, and bootstrap from their own values at (s', a'). Target critics stay as they were made.
    """

    def _q_and_target(
        self, batch: Batch, noise: Tensor, alpha: Tensor, pairs: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            next_actions, next_log_probs = losses.sample_squashed_gaussian(
                self.stack.policy(batch.next_obs), noise
            )
        next_inputs = torch.cat([batch.next_obs, next_actions], -1)
        both = self.stack.critics.learning(torch.cat([batch.obs_and_actions, next_inputs], 1))
        q, next_q = by_twins(both).chunk(2, dim=-1)
        target = losses.td_target(
            batch.rewards, batch.discounts, next_q.detach(), next_log_probs, alpha
        )
        return q, target

    def _follow(self) -> None:
        """There are none."""
