"""What a policy's and a critic's outputs mean: for continuous actions, and for discrete ones.

A head is chosen by the action space and is the same for all members. Discrete actions are one-hot
vectors `[A]` everywhere between the environment and the replay buffer.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from rllib_cikd.algorithm import losses
from rllib_cikd.algorithm.perceptron import split_policy_output
from rllib_cikd.algorithm.replay_buffer import Batch
from rllib_cikd.engine.perceptrons import StackedPerceptrons


class PolicyHead(Protocol):
    """What differs between kinds of actions; D observation dimensions, A of actions or choices."""

    def widths(self, obs_dim: int, action_dim: int) -> tuple[int, int, int]:
        """Outputs of a policy, inputs of a critic, outputs of a critic."""

    def target_entropy(self, action_dim: int) -> float:
        """H of SAC's temperature, where the user sets none."""

    def distribution(self, output: Tensor) -> Tensor:
        """Parameters of the distribution that the policy's output stands for."""

    def deterministic(self, output: Tensor) -> Tensor:
        """The action of the policy's output, `[..., A]`."""

    def sample(self, output: Tensor, generator: torch.Generator | None) -> Tensor:
        """An action drawn from the policy, `[B, A]`."""

    def random(self, size: int, action_dim: int, generator: torch.Generator | None) -> Tensor:
        """Actions drawn uniformly, `[size, A]`."""

    def kl(self, teacher_output: Tensor, student_output: Tensor, weights: Tensor | None) -> Tensor:
        """KL(teacher ‖ student), mean over the batch: `[B, P]` and `[S, B, P]` to `[S]`.

        Weights of states are `[S, B]`, if there are any.
        """

    def critic_inputs(self, batch: Batch) -> Tensor:
        """What critics are asked at these transitions."""

    def action_values(self, critics: StackedPerceptrons, obs: Tensor, actions: Tensor) -> Tensor:
        """What both critics of n members say of actions `[S, B, A]` at `[B, D]`: `[2, n, S, B]`."""


class GaussianHead:
    """Continuous actions in [-1, 1]: a tanh-squashed Gaussian, and critics of (s, a)."""

    def widths(self, obs_dim: int, action_dim: int) -> tuple[int, int, int]:
        return 2 * action_dim, obs_dim + action_dim, 1

    def target_entropy(self, action_dim: int) -> float:
        return -float(action_dim)

    def distribution(self, output: Tensor) -> Tensor:
        return torch.cat(split_policy_output(output), dim=-1)

    def deterministic(self, output: Tensor) -> Tensor:
        return split_policy_output(output)[0].tanh()

    def sample(self, output: Tensor, generator: torch.Generator | None) -> Tensor:
        mean, log_std = split_policy_output(output)
        noise = torch.randn(mean.shape, generator=generator)
        return (mean + log_std.exp() * noise.to(mean.device)).tanh()

    def random(self, size: int, action_dim: int, generator: torch.Generator | None) -> Tensor:
        return torch.rand((size, action_dim), generator=generator) * 2.0 - 1.0

    def kl(self, teacher_output: Tensor, student_output: Tensor, weights: Tensor | None) -> Tensor:
        teacher, student = split_policy_output(teacher_output), split_policy_output(student_output)
        return losses.policy_kl(*teacher, *student, weights)

    def critic_inputs(self, batch: Batch) -> Tensor:
        return batch.obs_and_actions

    def action_values(self, critics: StackedPerceptrons, obs: Tensor, actions: Tensor) -> Tensor:
        inputs = torch.cat([obs.expand(len(actions), -1, -1), actions], -1)
        return critics(inputs.flatten(0, 1)[None]).view(2, -1, *actions.shape[:2])


class CategoricalHead:
    """Discrete actions, as one-hot vectors: a softmax policy, and critics of s for each action."""

    def widths(self, obs_dim: int, action_dim: int) -> tuple[int, int, int]:
        return action_dim, obs_dim, action_dim

    def target_entropy(self, action_dim: int) -> float:
        return 0.98 * math.log(action_dim)

    def distribution(self, output: Tensor) -> Tensor:
        return output

    def deterministic(self, output: Tensor) -> Tensor:
        return _one_hot(output.argmax(-1), output.shape[-1])

    def sample(self, output: Tensor, generator: torch.Generator | None) -> Tensor:
        choices = torch.multinomial(output.softmax(-1).cpu(), 1, generator=generator).squeeze(-1)
        return _one_hot(choices, output.shape[-1]).to(output.device)

    def random(self, size: int, action_dim: int, generator: torch.Generator | None) -> Tensor:
        return _one_hot(torch.randint(action_dim, (size,), generator=generator), action_dim)

    def kl(self, teacher_output: Tensor, student_output: Tensor, weights: Tensor | None) -> Tensor:
        return losses.categorical_kl(teacher_output, student_output, weights)

    def critic_inputs(self, batch: Batch) -> Tensor:
        return batch.obs

    def action_values(self, critics: StackedPerceptrons, obs: Tensor, actions: Tensor) -> Tensor:
        of_all = critics(obs[None]).view(2, -1, 1, *actions.shape[1:])
        return (of_all * actions).sum(-1)


def _one_hot(choices: Tensor, count: int) -> Tensor:
    return torch.nn.functional.one_hot(choices, count).float()
