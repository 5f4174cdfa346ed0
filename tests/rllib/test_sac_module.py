"""One member: its actions, its initial weights, and the stack its parameters become views of."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from rllib_cikd.algorithm.ensemble import MemberStack, group_members, policy_distribution, q_values
from rllib_cikd.algorithm.perceptron import LOG_STD_MAX, LOG_STD_MIN, split_policy_output
from rllib_cikd.rllib.sac_module import SACModule

K, B, A, D = 3, 7, 2, 5
CRITICS = ("qf1", "qf2", "target_qf1", "target_qf2")


def _module(
    inference_only: bool = False, hiddens: tuple[int, ...] = (16, 12), **model_config
) -> SACModule:
    return SACModule(
        observation_space=gym.spaces.Box(-9.0, 9.0, (D,), np.float32),
        action_space=gym.spaces.Box(-3.0, 1.0, (A,), np.float32),
        inference_only=inference_only,
        model_config={"fcnet_hiddens": list(hiddens), "initial_alpha": 1.0} | model_config,
    )


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _constant_policy(mean: list[float], log_std: list[float], **kwargs) -> SACModule:
    """A member whose Gaussian before the squashing is the same at every observation."""
    module = _module(**kwargs)
    with torch.no_grad():
        module.policy[-1].weight.zero_()
        module.policy[-1].bias.copy_(torch.tensor(mean + log_std))
    return module


def _explore(module: SACModule, num_actions: int) -> Tensor:
    batch = {Columns.OBS: torch.zeros(num_actions, D)}
    return module.forward_exploration(batch)[Columns.ACTIONS]


# ---------------------------------------------------------------- actions


@pytest.mark.parametrize("inference_only", [False, True])
def test_deterministic_action_is_tanh_of_the_mean(inference_only):
    """tanh(1.5) = 0.905148, where clipping the mean would give 1.0; tanh(-0.2) = -0.197375."""
    module = _constant_policy([1.5, -0.2], [1.0, -3.0], inference_only=inference_only)
    obs = torch.randn(B, D)
    expected = torch.tensor([[0.905148, -0.197375]]).expand(B, -1)
    torch.testing.assert_close(module.deterministic_actions(obs), expected, rtol=0, atol=1e-6)
    output = module.forward_inference({Columns.OBS: obs})
    assert set(output) == {Columns.ACTIONS}  # anything else would be stored with every step
    torch.testing.assert_close(output[Columns.ACTIONS], expected, rtol=0, atol=1e-6)
    assert not output[Columns.ACTIONS].requires_grad


def test_exploration_samples_the_squashed_gaussian():
    """Moments of 100,000 actions: those of u = atanh(a) are the Gaussian's, and the mean action
    is E[tanh(u)] by Gauss-Hermite quadrature, all within 4 standard errors."""
    mean, std, n = np.array([0.6, -0.4]), np.array([0.5, 0.8]), 100_000
    module = _constant_policy(mean.tolist(), np.log(std).tolist())
    output = module.forward_exploration({Columns.OBS: torch.randn(n, D)})
    assert set(output) == {Columns.ACTIONS}
    actions = output[Columns.ACTIONS].double().numpy()
    assert not output[Columns.ACTIONS].requires_grad
    assert np.abs(actions).max() < 1.0

    u = np.arctanh(actions)
    np.testing.assert_array_less(np.abs(u.mean(0) - mean), 4 * std / math.sqrt(n))
    np.testing.assert_array_less(np.abs(u.std(0) - std), 4 * std / math.sqrt(2 * n))
    correlation = np.corrcoef(u.T)[0, 1]
    assert abs(correlation) < 4 / math.sqrt(n)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    expected = np.tanh(mean + std * nodes[:, None]).T @ weights / math.sqrt(2 * math.pi)
    error = 4 * actions.std(0) / math.sqrt(n)
    np.testing.assert_array_less(np.abs(actions.mean(0) - expected), error)


def test_random_actions_are_uniform():
    """In [-1, 1], whatever the action bounds (here -3 and 1) and the policy are; 20 bins of
    40,000 draws: χ² below its 99.9 % quantile, 43.8 for 19 degrees of freedom."""
    module = _constant_policy([5.0, 5.0], [-3.0, -3.0])
    module.act_randomly = True
    actions = _explore(module, 20_000)
    assert actions.shape == (20_000, A)
    assert actions.min() >= -1.0
    assert actions.max() <= 1.0
    counts = torch.histc(actions, bins=20, min=-1.0, max=1.0)
    assert counts.sum() == 40_000
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 43.8
    # The deterministic action is not concerned: tanh(5) = 0.99991.
    assert (module.deterministic_actions(torch.zeros(1, D)) > 0.999).all()


@pytest.mark.parametrize("act_randomly", [False, True])
def test_exploration_follows_its_own_generator(act_randomly):
    """Same seed, same actions, wherever torch's global generator is, which is left alone."""
    module = _module()
    module.act_randomly = act_randomly
    drawn = []
    for seed, global_seed in ((1, 10), (1, 20), (2, 10)):
        module.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        drawn.append(torch.stack([_explore(module, B), _explore(module, B)]))
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0][0], drawn[0][1])


def test_observations_of_other_types_are_converted():
    module = _module()
    obs = torch.randint(-3, 4, (B, D))
    expected = module.deterministic_actions(obs.float())
    for typed in (obs, obs.double()):
        actions = module.forward_inference({Columns.OBS: typed})[Columns.ACTIONS]
        assert torch.equal(actions, expected)


def test_log_std_is_clipped_and_the_mean_is_not():
    """[mean | log std] side by side; log std within [-20, 2], SAC's published bounds."""
    output = torch.tensor([[100.0, -100.0, -50.0, 50.0], [1.0, 2.0, -19.0, 1.9]])
    mean, log_std = split_policy_output(output)
    assert mean.tolist() == [[100.0, -100.0], [1.0, 2.0]]
    torch.testing.assert_close(log_std, torch.tensor([[-20.0, 2.0], [-19.0, 1.9]]))
    assert (LOG_STD_MIN, LOG_STD_MAX) == (-20.0, 2.0)


def test_train_pass_gives_the_distribution():
    module = _constant_policy([0.3, -0.3], [9.0, -0.5])
    inputs = module.forward_train({Columns.OBS: torch.randn(B, D)})[Columns.ACTION_DIST_INPUTS]
    torch.testing.assert_close(inputs, torch.tensor([0.3, -0.3, 2.0, -0.5]).expand(B, -1))


# ---------------------------------------------------------------- what it is made of


def test_defaults_are_the_published_networks():
    """Two ReLU layers of 256; the policy gives 2A numbers; critics see D + A."""
    module = SACModule(
        observation_space=gym.spaces.Box(-9.0, 9.0, (D,), np.float32),
        action_space=gym.spaces.Box(-1.0, 1.0, (A,), np.float32),
        model_config={"initial_alpha": 0.2},
    )
    for name, in_dim, out_dim in [("policy", D, 2 * A), *((c, D + A, 1) for c in CRITICS)]:
        kinds = [type(layer) for layer in getattr(module, name)]
        assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
        shapes = [tuple(layer.weight.shape) for layer in getattr(module, name)[::2]]
        assert shapes == [(256, in_dim), (256, 256), (out_dim, 256)]
    assert module.log_alpha.item() == pytest.approx(math.log(0.2))


@pytest.mark.parametrize(("name", "kind"), [("relu", nn.ReLU), ("tanh", nn.Tanh), ("elu", nn.ELU)])
def test_model_settings_change_the_networks(name, kind):
    module = _module(fcnet_activation=name, fcnet_hiddens=[4])
    for network in ("policy", *CRITICS):
        layers = getattr(module, network)
        assert [type(layer) for layer in layers] == [nn.Linear, kind, nn.Linear]
        assert layers[0].out_features == 4


def test_inference_only_module_has_the_policy_alone():
    module = _module(inference_only=True)
    assert {name.split(".")[0] for name, _ in module.named_parameters()} == {"policy"}
    assert not any(hasattr(module, name) for name in (*CRITICS, "log_alpha"))


def test_inference_only_state_acts_the_same():
    """What travels to env runners: the policy's weights and nothing else, enough to act."""
    module = _module()
    full, small = module.get_state(), module.get_state(inference_only=True)
    assert {name.split(".")[0] for name in full} == {"policy", *CRITICS, "log_alpha"}
    assert {name.split(".")[0] for name in small} == {"policy"}
    runner, obs = _module(inference_only=True), torch.randn(B, D)
    assert not torch.equal(runner.deterministic_actions(obs), module.deterministic_actions(obs))
    runner.set_state(small)
    assert torch.equal(runner.deterministic_actions(obs), module.deterministic_actions(obs))


# ---------------------------------------------------------------- initial weights


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


# ---------------------------------------------------------------- the stack


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
    mean, log_std = policy_distribution(stack.policy, obs)
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
        mean, _ = policy_distribution(stack.policy, obs)
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
