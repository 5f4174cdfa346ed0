"""Stacks of members: their batched passes, and parameters that are the members' own."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from rllib_cikd.algorithm.ensemble import MemberStack, group_members, q_values
from rllib_cikd.algorithm.perceptron import split_policy_output
from rllib_cikd.rllib.sac_module import SACModule

K, B, A, D = 3, 7, 2, 5
CRITICS = ("qf1", "qf2", "target_qf1", "target_qf2")


def _module(hiddens: tuple[int, ...] = (16, 12), **model_config) -> SACModule:
    return SACModule(
        observation_space=gym.spaces.Box(-9.0, 9.0, (D,), np.float32),
        action_space=gym.spaces.Box(-3.0, 1.0, (A,), np.float32),
        model_config={"fcnet_hiddens": list(hiddens), "initial_alpha": 1.0} | model_config,
    )


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_members_are_grouped_by_shape_activation_and_settings():
    """Members 0 and 3 are alike; 1 has other layers, 2 other units, 4 another setting, 5 other
    critics."""
    modules = [
        _module(),
        _module(hiddens=(16, 13)),
        _module(fcnet_activation="tanh"),
        _module(),
        _module(),
        _module(critic_layer_norm=True),
    ]
    stacks = group_members(modules, ["usual"] * 4 + ["another", "usual"])
    assert [s.members for s in stacks] == [[0, 3], [1], [2], [4], [5]]
    assert all(s.is_attached() for s in stacks)


def test_members_start_different_and_targets_start_equal():
    """Every network of every member differs from all others, except a target from its online."""
    stack = MemberStack(range(K), [_module() for _ in range(K)])
    for networks in (stack.policy, stack.critics):
        for weight in networks.weights + networks.biases:
            for i in range(len(weight)):
                for j in range(i):
                    assert not torch.equal(weight[i], weight[j])
    target, online = stack.target_critics.parameters, stack.critics.parameters
    assert torch.equal(target, online)
    assert target.data_ptr() != online.data_ptr()


def test_stacked_networks_have_the_spread_of_a_lone_one():
    """`nn.Linear` draws weights and biases from U(-1/√in, 1/√in), of standard deviation
    1/√(3 in). Drawn as one `[K, in, out]` tensor, `in` would be mistaken for K or K · in."""
    width = 200
    stack = MemberStack(range(K), [_module(hiddens=(width, width)) for _ in range(K)])
    for networks, in_dim in ((stack.policy, D), (stack.critics, D + A)):
        for weight, bias, fan_in in zip(
            networks.weights, networks.biases, (in_dim, width, width), strict=True
        ):
            bound = 1 / math.sqrt(fan_in)
            lone = nn.Linear(fan_in, weight.shape[2])
            for tensor, torch_own in ((weight, lone.weight), (bias, lone.bias)):
                for member in tensor.detach():
                    assert float(member.abs().max()) <= bound
                    assert float(torch_own.detach().abs().max()) <= bound
                    if member.numel() >= width:  # standard error of the spread: 3 % or less
                        assert float(member.abs().max()) > 0.95 * bound
                        spread = float(member.std())
                        assert spread == pytest.approx(bound / math.sqrt(3), rel=0.12)
                        assert spread == pytest.approx(float(torch_own.detach().std()), rel=0.15)


def test_stacked_passes_equal_the_members_own():
    """Policy outputs `[K, B, A]` and both critics `[2, K, B]`, each member at its own batch."""
    modules = [_module() for _ in range(K)]
    obs, actions = torch.randn(K, B, D), torch.rand(K, B, A)
    inputs = torch.cat([obs, actions], -1)
    expected = [
        (
            *split_policy_output(m.policy(obs[k])),
            torch.stack([q(inputs[k])[:, 0] for q in (m.qf1, m.qf2)]),
            torch.stack([q(inputs[k])[:, 0] for q in (m.target_qf1, m.target_qf2)]),
        )
        for k, m in enumerate(modules)
    ]
    stack = MemberStack(range(K), modules)
    mean, log_std = split_policy_output(stack.policy(obs))
    q, target_q = q_values(stack.critics, inputs), q_values(stack.target_critics, inputs)
    assert q.shape == target_q.shape == (2, K, B)
    for k, of_member in enumerate(expected):
        ours = mean[k], log_std[k], q[:, k], target_q[:, k]
        torch.testing.assert_close(ours, of_member)


def test_twins_of_members():
    """K = 3: first critics at 0 to 2, second at 3 to 5."""
    stack = MemberStack(range(K), [_module() for _ in range(K)])
    assert stack.twins([0, 2]) == [0, 2, 3, 5]


def test_temperatures_are_the_members_own():
    modules = [_module(initial_alpha=alpha) for alpha in (0.5, 1.0, 2.0)]
    stack = MemberStack(range(K), modules)
    torch.testing.assert_close(stack.alpha, torch.tensor([[0.5], [1.0], [2.0]]))
    assert not stack.alpha.requires_grad
    assert stack.log_alpha.requires_grad
    with torch.no_grad():
        stack.log_alpha[1] = 3.0
    assert modules[1].log_alpha.item() == 3.0


@pytest.mark.parametrize("load", ["set_state", "load_state_dict"])
@pytest.mark.parametrize("grouped", [True, False])
def test_loading_a_member_reaches_the_stack(load, grouped):
    """RLlib's checkpoints and weight syncs copy in place: views stay views."""
    modules, others = [_module() for _ in range(K)], [_module(initial_alpha=0.3) for _ in range(K)]
    stacks = group_members(modules, [0] * K if grouped else range(K))
    assert len(stacks) == (1 if grouped else K)
    for module, other in zip(modules, others, strict=True):
        if load == "set_state":
            module.set_state(other.get_state())
        else:
            module.load_state_dict(other.state_dict())
    for stack in stacks:
        assert stack.is_attached()
        torch.testing.assert_close(stack.alpha, torch.full((len(stack), 1), 0.3))
        obs = torch.randn(len(stack), B, D)
        mean, _ = split_policy_output(stack.policy(obs))
        for row, k in enumerate(stack.members):
            torch.testing.assert_close(mean[row].tanh(), others[k].deterministic_actions(obs[row]))


@pytest.mark.parametrize("network", ["policy", *CRITICS, "log_alpha"])
def test_a_detached_parameter_is_noticed(network):
    modules = [_module() for _ in range(K)]
    stack = MemberStack(range(K), modules)
    assert stack.is_attached()
    parameter = next(p for name, p in modules[2].named_parameters() if name.startswith(network))
    parameter.data = parameter.data.clone()
    assert not stack.is_attached()


def test_members_act_with_the_stack_s_weights():
    """What optimisers do to the stack, each member's actions follow."""
    modules, obs = [_module() for _ in range(K)], torch.randn(B, D)
    stack = MemberStack(range(K), modules)
    before = [m.deterministic_actions(obs) for m in modules]
    with torch.no_grad():
        stack.policy.biases[-1][1] += 1.0
    after = [m.deterministic_actions(obs) for m in modules]
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    torch.testing.assert_close(after[1].atanh(), before[1].atanh() + 1.0, rtol=1e-4, atol=1e-4)
