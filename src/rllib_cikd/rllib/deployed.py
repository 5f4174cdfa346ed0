"""A member as one network, from observations to the environment's own actions."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rllib_cikd.algorithm.normalization import normalize
from rllib_cikd.rllib.action_map import ActionMap


class DeployedPolicy(nn.Module):
    """The deterministic policy with normalisation and action bounds inside.

    Takes flat observations `[B, D]`, float32. Gives actions `[B, A]` in the environment's units,
    float32, those of dictionaries and tuples part after part; or discrete actions `[B]`, int64.

    Args:
        member: A `SACModule`; its weights are copied.
        actions: The environment's.
    """

    obs_mean: Tensor
    obs_deviation: Tensor
    low: Tensor
    high: Tensor
    whole: Tensor

    def __init__(self, member: Any, actions: ActionMap):
        super().__init__()
        self.policy = copy.deepcopy(member.policy)
        self._head, self._first = member.head, actions.first
        self._normalizes = member.normalizes
        if self._normalizes:
            self.register_buffer("obs_mean", member.obs_mean.clone())
            self.register_buffer("obs_deviation", member.obs_deviation.clone())
        if self._first is None:
            self.register_buffer("low", torch.from_numpy(actions.low).float())
            self.register_buffer("high", torch.from_numpy(actions.high).float())
            self.register_buffer("whole", torch.from_numpy(actions.whole))
            self._rounds = bool(actions.whole.any())
        self.requires_grad_(False)

    def forward(self, observation: Tensor) -> Tensor:
        if self._normalizes:
            observation = normalize(observation, self.obs_mean, self.obs_deviation)
        output = self.policy(observation)
        if self._first is not None:
            return output.argmax(-1) + self._first
        action = self._head.deterministic(output)
        action = (1.0 - action) * (0.5 * self.low) + (1.0 + action) * (0.5 * self.high)
        action = torch.minimum(torch.maximum(action, self.low), self.high)
        return torch.where(self.whole, action.round(), action) if self._rounds else action
