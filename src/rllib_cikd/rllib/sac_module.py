"""One member of the ensemble: a SAC agent's networks as an RLlib `RLModule`."""

from __future__ import annotations

import math
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.utils.annotations import override
from torch import Tensor, nn

from rllib_cikd.algorithm.perceptron import perceptron, split_policy_output

#: The model settings a member understands, with SAC's published values.
DEFAULT_MODEL_CONFIG: dict[str, Any] = {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"}


class SACModule(TorchRLModule, InferenceOnlyAPI):
    """Squashed-Gaussian policy, twin critics, their target networks and the temperature.

    Critics see the concatenation of observation and action. Actions are in [-1, 1]; RLlib's
    connectors (or `environment.unsquash_actions`) map them to the environment's bounds.
    `forward_inference` acts with tanh(mean), `forward_exploration` samples.

    Model settings (`config.rl_module(model_config={...})`): `fcnet_hiddens` (default
    [256, 256]) and `fcnet_activation` (default "relu"), for the policy and the critics alike.
    """

    #: Set by the env runner: explore with uniform random actions instead of the policy.
    act_randomly: bool = False
    #: Set by the env runner: source of the exploration noise (None: torch's global generator).
    generator: torch.Generator | None = None

    @override(TorchRLModule)
    def setup(self) -> None:
        obs_dim = self.observation_space.shape[0]
        action_dim = self.action_space.shape[0]
        model_config = DEFAULT_MODEL_CONFIG | dict(self.model_config or {})
        hiddens = list(model_config["fcnet_hiddens"])
        activation = self.activation = model_config["fcnet_activation"]

        self.policy = perceptron(obs_dim, hiddens, 2 * action_dim, activation)
        if self.inference_only:
            return
        self.qf1 = perceptron(obs_dim + action_dim, hiddens, 1, activation)
        self.qf2 = perceptron(obs_dim + action_dim, hiddens, 1, activation)
        self.target_qf1 = perceptron(obs_dim + action_dim, hiddens, 1, activation)
        self.target_qf2 = perceptron(obs_dim + action_dim, hiddens, 1, activation)
        self.target_qf1.load_state_dict(self.qf1.state_dict())
        self.target_qf2.load_state_dict(self.qf2.state_dict())
        self.log_alpha = nn.Parameter(torch.tensor([math.log(model_config["initial_alpha"])]))

    @override(InferenceOnlyAPI)
    def get_non_inference_attributes(self) -> list[str]:
        return ["qf1", "qf2", "target_qf1", "target_qf2", "log_alpha"]

    def deterministic_actions(self, obs: Tensor) -> Tensor:
        """tanh(mean) for observations `[B, D]`: actions in [-1, 1], `[B, A]`."""
        mean, _ = split_policy_output(self.policy(obs))
        return mean.tanh()

    @override(nn.Module)
    def train(self, mode: bool = True) -> SACModule:
        """Sets `training` of this module alone, not of its layers, which do not look at it.

        RLlib switches it twice for every action that is taken.
        """
        self.training = mode
        return self

    # Only actions leave the module: every other column would be stored in each episode step.
    @override(TorchRLModule)
    def _forward_inference(self, batch: dict[str, Any], **kwargs) -> dict[str, Tensor]:
        with torch.no_grad():
            return {Columns.ACTIONS: self.deterministic_actions(batch[Columns.OBS].float())}

    @override(TorchRLModule)
    def _forward_exploration(self, batch: dict[str, Any], **kwargs) -> dict[str, Tensor]:
        obs = batch[Columns.OBS].float()
        shape = (obs.shape[0], self.action_space.shape[0])
        with torch.no_grad():
            if self.act_randomly:
                actions = torch.rand(shape, generator=self.generator) * 2.0 - 1.0
            else:
                mean, log_std = split_policy_output(self.policy(obs))
                noise = torch.randn(shape, generator=self.generator)
                actions = (mean + log_std.exp() * noise.to(mean.device)).tanh()
        return {Columns.ACTIONS: actions}

    @override(TorchRLModule)
    def _forward_train(self, batch: dict[str, Any], **kwargs) -> dict[str, Tensor]:
        """Mean and log std of the policy; the learner uses the stacked networks instead."""
        mean, log_std = split_policy_output(self.policy(batch[Columns.OBS].float()))
        return {Columns.ACTION_DIST_INPUTS: torch.cat([mean, log_std], dim=-1)}
