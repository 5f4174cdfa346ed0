"""The fused SAC update against plain PyTorch agents, weight by weight.

Float64 runs show that the same thing is computed; float32 runs, that rounding stays rounding.
Over 50 updates, in which weights move by 0.01 to 0.15, the largest differences seen were 7e-16
in float64 and 4e-7 in float32; the plain agent in float32 differs from itself in float64 by
the same 4e-7.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from experience import A, D, Experience
from helpers import parameters_of
from reference_sac import Minibatch, ReferenceSAC, assert_equal_weights
from torch import Tensor

from rllib_cikd.algorithm import losses
from rllib_cikd.algorithm.ensemble import MemberStack, group_members, q_values
from rllib_cikd.algorithm.replay_buffer import Batch
from rllib_cikd.algorithm.sac_update import SACSettings, SACUpdate, clip_by_network_norm
from rllib_cikd.rllib.sac_module import SACModule

K, B = 3, 16
NUM_UPDATES = 50
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}

#: Every step size differs, and γ has few binary digits: γ^3 and the returns of `Experience`
#: are exact in float32, so that the plain agents can be given the same numbers in float64.
SETTINGS = SACSettings(
    actor_lr=1e-3, critic_lr=2e-3, alpha_lr=3e-3, gamma=31 / 32, tau=0.01, target_entropy=-1.5
)
ARGUMENTS = ("actor_lr", "critic_lr", "alpha_lr", "gamma", "tau", "target_entropy", "grad_clip")


def _spaces(obs_dim: int = D) -> dict[str, gym.Space]:
    return {
        "observation_space": gym.spaces.Box(-9.0, 9.0, (obs_dim,), np.float32),
        "action_space": gym.spaces.Box(-1.0, 1.0, (A,), np.float32),
    }


def _modules(
    num_members: int = K,
    activation: str = "relu",
    dtype: torch.dtype = torch.float32,
    hiddens: tuple[int, ...] = (24, 16),
    seed: int = 0,
    critic_layer_norm: bool = False,
) -> list[SACModule]:
    torch.manual_seed(seed)
    model_config = {
        "fcnet_hiddens": list(hiddens),
        "fcnet_activation": activation,
        "critic_layer_norm": critic_layer_norm,
    }
    return [
        SACModule(**_spaces(), model_config=model_config | {"initial_alpha": 0.5 + k}).to(dtype)
        for k in range(num_members)
    ]


def _reference(
    module: SACModule, settings: SACSettings, dtype: torch.dtype, **changes: Any
) -> ReferenceSAC:
    """A plain agent that starts with the module's weights."""
    arguments = {name: getattr(settings, name) for name in ARGUMENTS} | changes
    weights = {name: p.numpy() for name, p in parameters_of(module).items()}
    return ReferenceSAC(weights, activation=module.activation, dtype=dtype, **arguments)


def _minibatch(returns: dict[str, np.ndarray], rows: Tensor, dtype: torch.dtype) -> Minibatch:
    """These rows of `Experience.returns`."""
    return Minibatch(**{k: torch.tensor(v[rows.numpy()], dtype=dtype) for k, v in returns.items()})


def _cast(batch: Batch, dtype: torch.dtype) -> Batch:
    return Batch(*(x.to(dtype) for x in batch))


def _draws(num_members: int, num_updates: int = NUM_UPDATES) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and noise of each update."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_updates):
        rows = torch.randint(150, (num_members, B), generator=generator)
        yield rows, torch.randn(num_members, 2, B, A, generator=generator)


def _largest_difference(module: SACModule, weights: dict[str, Tensor], network: str) -> float:
    ours = module.state_dict()
    return max(
        float((ours[n] - w).abs().max()) for n, w in weights.items() if n.startswith(network)
    )


# ---------------------------------------------------------------- K members = K plain agents


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("num_members", "activation", "grad_clip", "n_step", "layer_norm"),
    [
        (K, "relu", None, 1, False),
        (K, "relu", 0.5, 1, False),
        (K, "tanh", None, 3, False),
        (1, "elu", None, 1, False),
        (1, "relu", 0.5, 3, False),
        (K, "relu", None, 1, True),
        (K, "tanh", 0.5, 1, True),
    ],
)
def test_fused_updates_equal_plain_agents(
    num_members, activation, grad_clip, n_step, layer_norm, dtype
):
    """50 updates, all networks and temperatures, and the statistics of every update."""
    settings = SACSettings(**{**vars(SETTINGS), "grad_clip": grad_clip})
    modules = _modules(num_members, activation, dtype, critic_layer_norm=layer_norm)
    initial = [parameters_of(m) for m in modules]
    agents = [_reference(m, settings, dtype) for m in modules]
    update = SACUpdate(MemberStack(range(num_members), modules), settings)
    experience = Experience()
    buffer, returns = experience.buffer(n_step), experience.returns(n_step, settings.gamma)

    for rows, noise in _draws(num_members):
        noise = noise.to(dtype)
        statistics = update.step(_cast(buffer.gather(rows, settings.gamma), dtype), noise)
        assert statistics.shape == (len(SACUpdate.STATISTICS), num_members)
        assert not statistics.requires_grad
        for k, agent in enumerate(agents):
            expected = agent.update(_minibatch(returns, rows[k], dtype), *noise[k])
            for name, value in zip(SACUpdate.STATISTICS, statistics[:, k], strict=True):
                torch.testing.assert_close(
                    value, expected[name], rtol=10 * TOLERANCE[dtype], atol=10 * TOLERANCE[dtype]
                )

    for module, agent, start in zip(modules, agents, initial, strict=True):
        assert_equal_weights(module, agent, TOLERANCE[dtype])
        for network in start:  # the comparison is one of weights that learned
            assert _largest_difference(module, start, network) > 3e-4, network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_shared_critic_targets_equal_plain_agents_that_ask_others(dtype):
    """Each member bootstraps from the two critics that a permutation of all 2K gives it."""
    modules = _modules(dtype=dtype)
    agents = [_reference(m, SETTINGS, dtype) for m in modules]
    update = SACUpdate(MemberStack(range(K), modules), SETTINGS)
    experience = Experience()
    buffer, returns = experience.buffer(1), experience.returns(1, SETTINGS.gamma)
    names = [(name, k) for name in ("target_qf1", "target_qf2") for k in range(K)]
    generator, asked = torch.Generator().manual_seed(2), set()

    for rows, noise in _draws(K):
        noise = noise.to(dtype)
        pairs = torch.randperm(2 * K, generator=generator).view(2, K)
        update.step(_cast(buffer.gather(rows, SETTINGS.gamma), dtype), noise, pairs)
        before = [copy.deepcopy(agents[k].networks[name]) for name, k in names]
        for k, agent in enumerate(agents):
            judges = before[pairs[0, k]], before[pairs[1, k]]
            agent.update(_minibatch(returns, rows[k], dtype), *noise[k], judges=judges)
            asked.add((int(pairs[0, k]), int(pairs[1, k]), k))

    assert len(asked) > 2 * K  # of the others, too
    for module, agent in zip(modules, agents, strict=True):
        assert_equal_weights(module, agent, TOLERANCE[dtype])


def test_own_pairs_are_what_no_pairs_are():
    rows, noise = next(_draws(K))
    batch = Experience().buffer(1).gather(rows, SETTINGS.gamma)
    weights = []
    for pairs in (None, torch.arange(2 * K).view(2, K)):
        modules = _modules()
        SACUpdate(MemberStack(range(K), modules), SETTINGS).step(batch, noise, pairs)
        weights.append([parameters_of(m) for m in modules])
    for one, other in zip(*weights, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "change",
    ["truncation_is_terminal", "no_clipping", "one_step_more", "other_noise", "tau", "gamma"],
)
def test_a_slightly_different_agent_is_told_apart(change):
    """Negative controls: what the comparison above must notice, it does, 1000-fold."""
    dtype, n_step = torch.float64, 2
    settings = SACSettings(**{**vars(SETTINGS), "grad_clip": 0.5})
    (module,) = _modules(1, dtype=dtype)
    changes = {"no_clipping": {"grad_clip": None}, "tau": {"tau": 0.02}}
    changes["gamma"] = {"gamma": 0.97}
    agent = _reference(module, settings, dtype, **changes.get(change, {}))
    update = SACUpdate(MemberStack([0], [module]), settings)
    experience = Experience()
    buffer = experience.buffer(n_step)
    if change == "truncation_is_terminal":
        experience.terminated |= experience.truncated
    returns = experience.returns(n_step + (change == "one_step_more"), settings.gamma)
    for rows, noise in _draws(1, 20):
        noise = noise.to(dtype)
        update.step(_cast(buffer.gather(rows, settings.gamma), dtype), noise)
        if change == "other_noise":
            noise = noise.flip(1)
        agent.update(_minibatch(returns, rows[0], dtype), *noise[0])
    with pytest.raises(AssertionError):
        assert_equal_weights(module, agent, 1000 * TOLERANCE[torch.float32])


# ---------------------------------------------------------------- fused = looped


@pytest.mark.parametrize("grad_clip", [None, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_looped_updates_equal_fused_updates(dtype, grad_clip):
    """The same members in one stack and in K stacks of one."""
    settings = SACSettings(**{**vars(SETTINGS), "grad_clip": grad_clip})
    fused_modules, looped_modules = _modules(dtype=dtype), _modules(dtype=dtype)
    initial = [parameters_of(m) for m in fused_modules]
    fused = [SACUpdate(s, settings) for s in group_members(fused_modules, [0, 0, 0])]
    looped = [SACUpdate(s, settings) for s in group_members(looped_modules, [0, 1, 2])]
    assert [u.stack.members for u in fused] == [[0, 1, 2]]
    assert [u.stack.members for u in looped] == [[0], [1], [2]]
    buffer = Experience().buffer()
    for rows, noise in _draws(K):
        for updates in (fused, looped):
            for update in updates:
                members = update.stack.members
                batch = _cast(buffer.gather(rows[members], settings.gamma), dtype)
                update.step(batch, noise[members].to(dtype))
    for one, other, start in zip(fused_modules, looped_modules, initial, strict=True):
        for name, weight in parameters_of(one).items():
            torch.testing.assert_close(
                weight, other.state_dict()[name], rtol=0, atol=TOLERANCE[dtype], msg=name
            )
        assert _largest_difference(one, start, "policy") > 1e-3


# ---------------------------------------------------------------- where gradients go


def test_another_member_s_minibatch_moves_no_weight():
    """Members 0 and 2 end with the same bits whatever member 1 learns from."""
    ends = []
    buffer = Experience().buffer()
    for variant in (0, 1):
        modules = _modules()
        update = SACUpdate(MemberStack(range(K), modules), SETTINGS)
        for rows, noise in _draws(K, 5):
            if variant:
                rows[1], noise[1] = rows[1].flip(0), 2 * noise[1].flip(1)
            update.step(buffer.gather(rows, SETTINGS.gamma), noise)
        ends.append([parameters_of(m) for m in modules])
    for k in (0, 2):
        assert all(torch.equal(ends[0][k][name], ends[1][k][name]) for name in ends[0][k])
    for network in ("policy", "qf1", "qf2", "target_qf1", "target_qf2", "log_alpha"):
        names = [name for name in ends[0][1] if name.startswith(network)]
        assert not all(torch.equal(ends[0][1][name], ends[1][1][name]) for name in names)


def test_each_loss_reaches_its_own_parameters_only():
    """After a step the gradients left behind are those of one loss each, by autograd alone."""
    modules = _modules(dtype=torch.float64)
    stack = MemberStack(range(K), modules)
    update = SACUpdate(stack, SETTINGS)
    (rows, noise), *_ = _draws(K)
    noise = noise.double()
    batch = _cast(Experience().buffer().gather(rows, SETTINGS.gamma), torch.float64)

    with torch.no_grad():
        next_actions, next_logp = losses.sample_squashed_gaussian(
            stack.policy(batch.next_obs), noise[:, 1]
        )
        next_q = q_values(stack.target_critics, torch.cat([batch.next_obs, next_actions], -1))
        target = losses.td_target(batch.rewards, batch.discounts, next_q, next_logp, stack.alpha)
    q = q_values(stack.critics, batch.obs_and_actions)
    critic_loss = 0.5 * (q - target).square().mean(-1)
    (critic_gradient,) = torch.autograd.grad(critic_loss.sum(), stack.critics.parameters)
    old_policy = stack.policy.select(range(K), trainable=True)
    old_alpha = stack.alpha

    update.step(batch, noise)

    # The actor loss added nothing.
    torch.testing.assert_close(stack.critics.parameters.grad, critic_gradient)
    actions, logp = losses.sample_squashed_gaussian(old_policy(batch.obs), noise[:, 0])
    # Judged by the critics as they are now, so after their step.
    q = q_values(stack.critics, torch.cat([batch.obs, actions], -1))
    actor_loss = (old_alpha * logp - q.amin(0)).mean(-1)
    (policy_gradient,) = torch.autograd.grad(actor_loss.sum(), old_policy.parameters)
    # The temperature's loss added nothing.
    torch.testing.assert_close(stack.policy.parameters.grad, policy_gradient)
    entropy_error = logp.detach().mean(-1, keepdim=True) + SETTINGS.target_entropy
    torch.testing.assert_close(stack.log_alpha.grad, -entropy_error)
    assert stack.target_critics.parameters.grad is None
    assert not stack.target_critics.parameters.requires_grad
    assert all(p.grad is None for module in modules for p in module.parameters())


def test_targets_follow_by_tau():
    """target ← (1 - τ) target + τ online, with the critics as just updated."""
    modules = _modules()
    update = SACUpdate(MemberStack(range(K), modules), SETTINGS)
    buffer = Experience().buffer()
    for rows, noise in _draws(K, 3):
        before = [parameters_of(m) for m in modules]
        update.step(buffer.gather(rows, SETTINGS.gamma), noise)
        for module, old in zip(modules, before, strict=True):
            new = module.state_dict()
            for name in [n for n in old if n.startswith("target_")]:
                online = new[name.removeprefix("target_")]
                expected = (1 - SETTINGS.tau) * old[name] + SETTINGS.tau * online
                torch.testing.assert_close(new[name], expected, rtol=0, atol=1e-7)
                assert not torch.equal(new[name], old[name])


# ---------------------------------------------------------------- clipping and resetting


def test_clipping_by_hand():
    """Network 0 has norm √(3² + 4²) = 5, over 2: scaled by 2/5. Network 1 has norm 1: as it is."""
    weight = torch.tensor([[[3.0, 0.0]], [[0.6, 0.0]]])
    bias = torch.tensor([[[4.0]], [[0.8]]])
    clip_by_network_norm([weight, bias], 2.0)
    torch.testing.assert_close(weight, torch.tensor([[[1.2, 0.0]], [[0.6, 0.0]]]))
    torch.testing.assert_close(bias, torch.tensor([[[1.6]], [[0.8]]]))


def test_reset_moments_forgets_only_the_named_members():
    modules = _modules()
    update = SACUpdate(MemberStack(range(K), modules), SETTINGS)
    buffer = Experience().buffer()
    for rows, noise in _draws(K, 2):
        update.step(buffer.gather(rows, SETTINGS.gamma), noise)

    def moments() -> dict[tuple[str, str], list[Tensor]]:
        networks = {"actor": update.stack.policy, "critic": update.stack.critics}
        return {
            (name, key): [block.clone() for block in stacked.split(state[key])]
            for name, stacked in networks.items()
            for state in update.optimizers[name].state.values()
            for key in ("exp_avg", "exp_avg_sq")
        }

    before = moments()
    update.reset_moments([2, 0])
    after = moments()
    # Twin-major: critics 0..2 are the members' first, 3..5 their second.
    reset = {"actor": [0, 2], "critic": [0, 2, 3, 5]}
    assert len(before) == 4
    for name, key in before:
        for old, new in zip(before[name, key], after[name, key], strict=True):
            for i in range(len(old)):
                assert old[i].any()
                forgotten = key == "exp_avg" and i in reset[name]
                assert torch.equal(new[i], torch.zeros_like(old[i]) if forgotten else old[i])


def test_a_reset_member_s_first_updates_are_of_ordinary_size():
    """The fresh networks move about as far in a few updates as the old ones did."""
    modules = _modules()
    update = SACUpdate(MemberStack(range(K), modules), SETTINGS)
    buffer = Experience().buffer()
    draws = list(_draws(K, 120))

    def moved(updates: list[tuple[Tensor, Tensor]]) -> float:
        before = parameters_of(modules[1])
        for rows, noise in updates:
            update.step(buffer.gather(rows, SETTINGS.gamma), noise)
        return _largest_difference(modules[1], before, "policy")

    moved(draws[:100])
    usual = moved(draws[100:110])
    update.reset_moments([1])
    assert 0.2 * usual < moved(draws[110:]) < 2.0 * usual
