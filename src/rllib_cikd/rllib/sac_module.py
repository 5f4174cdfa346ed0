"""One member of the ensemble: a SAC agent's networks as an RLlib `RLModule`."""

from __future__ import annotations

import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.utils.annotations import override
from torch import Tensor, nn

from rllib_cikd.algorithm.normalization import normalize
from rllib_cikd.algorithm.perceptron import perceptron
from rllib_cikd.algorithm.policy_heads import CategoricalHead, GaussianHead
from rllib_cikd.rllib.action_map import OneHot

#: The model settings a member understands, with SAC's published values.
DEFAULT_MODEL_CONFIG: dict[str, Any] = {
    "fcnet_hiddens": [256, 256],
    "fcnet_activation": "relu",
    "critic_layer_norm": False,
    "batch_norm": False,
}


def head_of(action_space: Any) -> CategoricalHead | GaussianHead:
    """What a policy's outputs mean, for actions of a member's space."""
    return CategoricalHead() if isinstance(action_space, OneHot) else GaussianHead()


class SACModule(TorchRLModule, InferenceOnlyAPI):
    """Policy, twin critics, their target networks and the temperature.

    Continuous actions are in [-1, 1], from a squashed Gaussian, and critics see observation and
    action side by side; discrete ones (`OneHot`) are one-hot vectors from a softmax, and critics
    give the values of all of them. `ActionMap` turns both into the environment's own actions.
    `forward_inference` acts with the likeliest action, `forward_exploration` samples.

    With `config.observation_filter` the observations are normalised first, by the statistics that
    the learner keeps.

    Model settings (`config.rl_module(model_config={...})`): `fcnet_hiddens` (default
    [256, 256]) and `fcnet_activation` (default "relu"), for the policy and the critics alike;
    `critic_layer_norm` (default False): the critics' hidden layers are normalised before their
    activation; `batch_norm` (default False): inputs of all linear layers are normalised by batch
    statistics, and critics learn without target networks (CrossQ, Bhatt et al. 2024).
    """

    #: Set by the env runner: explore with uniform random actions instead of the policy.
    act_randomly: bool = False
    #: Set by the env runner: source of the exploration noise (None: torch's global generator).
    generator: torch.Generator | None = None

    @override(TorchRLModule)
    def setup(self) -> None:
        (obs_dim,), (action_dim,) = self.observation_space.shape, self.action_space.shape
        self.head = head_of(self.action_space)
        model_config = DEFAULT_MODEL_CONFIG | dict(self.model_config or {})
        hiddens = list(model_config["fcnet_hiddens"])
        activation = self.activation = model_config["fcnet_activation"]

        policy_out, critic_in, critic_out = self.head.widths(obs_dim, action_dim)
        self.batch_norm = model_config["batch_norm"]
        norm = "batch" if self.batch_norm else "none"
        self.policy = perceptron(obs_dim, hiddens, policy_out, activation, norm)
        self.normalizes = model_config.get("normalize_observations", False)
        if self.normalizes:
            self.register_buffer("obs_mean", torch.zeros(obs_dim))
            self.register_buffer("obs_deviation", torch.ones(obs_dim))
        if self.inference_only:
            return
        norm = "layer" if model_config["critic_layer_norm"] else norm
        critic = (critic_in, hiddens, critic_out, activation, norm)
        self.qf1, self.qf2 = perceptron(*critic), perceptron(*critic)
        self.target_qf1, self.target_qf2 = perceptron(*critic), perceptron(*critic)
        self.target_qf1.load_state_dict(self.qf1.state_dict())
        self.target_qf2.load_state_dict(self.qf2.state_dict())
        self.log_alpha = nn.Parameter(torch.tensor([math.log(model_config["initial_alpha"])]))

    @override(InferenceOnlyAPI)
    def get_non_inference_attributes(self) -> list[str]:
        return ["qf1", "qf2", "target_qf1", "target_qf2", "log_alpha"]

    def policy_output(self, obs: Tensor) -> Tensor:
        """The policy network's output at observations `[B, D]` as the environment gives them."""
        if self.normalizes:
            obs = normalize(obs, self.obs_mean, self.obs_deviation)
        return self.policy(obs)

    def deterministic_actions(self, obs: Tensor) -> Tensor:
        """The likeliest actions at observations `[B, D]`: tanh(mean) or one-hot, `[B, A]`."""
        return self.head.deterministic(self.policy_output(obs))

    @override(TorchRLModule)
    def restore_from_path(
        self, path: str | Path, *, component: str | None = None, filesystem: Any = None, **kwargs
    ) -> None:
        """Loads a member's own folder of a checkpoint (see RLlib's method).

        Raises:
            ValueError: If it is one with other networks. Nothing has been loaded then.
        """
        if component is None:
            stored = _stored_model_config(os.fspath(path), filesystem)
            for name, default in DEFAULT_MODEL_CONFIG.items():
                old, new = (
                    (c or {}).get(name, default) for c in (stored, dict(self.model_config or {}))
                )
                if old != new and list(np.atleast_1d(old)) != list(np.atleast_1d(new)):
                    raise ValueError(
                        f"{name}={new!r}: was {old!r} in {path}: networks keep their shapes. Set "
                        "`model_config` as it was there, or load another member."
                    )
        super().restore_from_path(path, component=component, filesystem=filesystem, **kwargs)

    @override(TorchRLModule)
    def set_state(self, state: dict[str, Any]) -> None:
        """Loads weights: all, or those that acting needs, as env runners get them.

        Raises:
            ValueError: If some are missing, unknown or of another shape. RLlib would load the rest.
        """
        own = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        given = {name: tuple(np.shape(value)) for name, value in state.items()}
        for_learning = self.get_non_inference_attributes()
        acting, given_to_act = (
            {n: shape for n, shape in those.items() if n.split(".")[0] not in for_learning}
            for those in (own, given)
        )
        if self.inference_only or given == given_to_act:
            own, given = acting, given_to_act
        if own != given:
            name = min(set(own.items()) ^ set(given.items()))[0]
            raise ValueError(
                f"The weights are of other networks: {name} has shape {_shape(given.get(name))}, "
                f"expected {_shape(own.get(name))}. Give those of a member with the same "
                "`model_config`, observations and actions."
            )
        super().set_state(state)

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
        with torch.no_grad():
            if self.act_randomly:
                (action_dim,) = self.action_space.shape
                actions = self.head.random(len(obs), action_dim, self.generator)
            else:
                actions = self.head.sample(self.policy_output(obs), self.generator)
        return {Columns.ACTIONS: actions}

    @override(TorchRLModule)
    def _forward_train(self, batch: dict[str, Any], **kwargs) -> dict[str, Tensor]:
        """Mean and log std, or logits; the learner uses the stacked networks instead."""
        output = self.policy_output(batch[Columns.OBS].float())
        return {Columns.ACTION_DIST_INPUTS: self.head.distribution(output)}


def _stored_model_config(path: str, filesystem: Any) -> dict[str, Any]:
    """What the networks of a member's folder in a checkpoint were made of."""
    if filesystem is None:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(path)
    file = f"{path}/{SACModule.CLASS_AND_CTOR_ARGS_FILE_NAME}"
    with filesystem.open_input_stream(file) as stream:
        arguments = pickle.load(stream)["ctor_args_and_kwargs"][1]
    return dict(arguments["model_config"] or {})


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none, as it is not there" if shape is None else str(list(shape))
