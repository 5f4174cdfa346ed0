"""The SAC update for discrete actions against plain PyTorch agents, weight by weight."""

from __future__ import annotations

import copy
import functools

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from rllib_cikd.algorithm import losses
from rllib_cikd.algorithm.categorical_update import CategoricalSACUpdate
from rllib_cikd.algorithm.ensemble import MemberStack, group_members
from rllib_cikd.algorithm.knowledge_sharing import (
    AdvantageFilter,
    Teacher,
    distance_to_teacher,
    distill,
    hard_copy,
)
from rllib_cikd.algorithm.replay_buffer import Batch
from rllib_cikd.algorithm.sac_update import SACSettings
from rllib_cikd.algorithm.updates import sac_update
from rllib_cikd.rllib.action_map import OneHot
from rllib_cikd.rllib.sac_module import SACModule

K, B, D, A = 3, 16, 5, 4
SETTINGS = SACSettings(
    actor_lr=1e-3, critic_lr=2e-3, alpha_lr=3e-3, gamma=31 / 32, tau=0.01, target_entropy=0.7
)
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}


def members(dtype: torch.dtype, hiddens: tuple[int, ...] = (24, 16)) -> list[SACModule]:
    torch.manual_seed(0)
    return [
        SACModule(
            observation_space=gym.spaces.Box(-9.0, 9.0, (D,), np.float32),
            action_space=OneHot(gym.spaces.Discrete(A)),
            model_config={"fcnet_hiddens": list(hiddens), "initial_alpha": 0.5 + k},
        ).to(dtype)
        for k in range(K)
    ]


def minibatch(dtype: torch.dtype, shape: tuple[int, ...] = (K, B)) -> Batch:
    obs, next_obs = torch.randn(*shape, D, dtype=dtype), torch.randn(*shape, D, dtype=dtype)
    actions = nn.functional.one_hot(torch.randint(A, shape), A).to(dtype)
    return Batch(
        obs=obs,
        actions=actions,
        obs_and_actions=torch.cat([obs, actions], -1),
        rewards=torch.randn(shape, dtype=dtype),
        discounts=SETTINGS.gamma * (torch.rand(shape) > 0.2).to(dtype),
        next_obs=next_obs,
    )


class PlainAgent:
    """One agent with an Adam for each loss, as in Christodoulou (2019), algorithm 1."""

    def __init__(self, module: SACModule):
        self.networks = copy.deepcopy(module)
        n = self.networks
        n.requires_grad_(True)
        critics = [*n.qf1.parameters(), *n.qf2.parameters()]
        self.critic_optimizer = torch.optim.Adam(critics, lr=SETTINGS.critic_lr)
        self.actor_optimizer = torch.optim.Adam(n.policy.parameters(), lr=SETTINGS.actor_lr)
        self.alpha_optimizer = torch.optim.Adam([n.log_alpha], lr=SETTINGS.alpha_lr)

    def update(self, batch: Batch, judges: tuple[nn.Module, nn.Module] | None = None) -> None:
        n = self.networks
        judge1, judge2 = judges or (n.target_qf1, n.target_qf2)
        alpha = n.log_alpha.detach().exp()
        with torch.no_grad():
            policy = Categorical(logits=n.policy(batch.next_obs))
            smaller = torch.minimum(judge1(batch.next_obs), judge2(batch.next_obs))
            value = (policy.probs * smaller).sum(-1) + alpha * policy.entropy()
            target = batch.rewards + batch.discounts * value
        choice = batch.actions.argmax(-1, keepdim=True)
        self.critic_optimizer.zero_grad()
        loss = sum(
            0.5 * nn.functional.mse_loss(q(batch.obs).gather(1, choice).squeeze(1), target)
            for q in (n.qf1, n.qf2)
        )
        loss.backward()
        self.critic_optimizer.step()

        policy = Categorical(logits=n.policy(batch.obs))
        with torch.no_grad():
            smaller = torch.minimum(n.qf1(batch.obs), n.qf2(batch.obs))
        self.actor_optimizer.zero_grad()
        ((-alpha * policy.entropy()) - (policy.probs * smaller).sum(-1)).mean().backward()
        self.actor_optimizer.step()

        self.alpha_optimizer.zero_grad()
        entropy = policy.entropy().detach()
        (-(n.log_alpha * (SETTINGS.target_entropy - entropy))).mean().backward()
        self.alpha_optimizer.step()
        with torch.no_grad():
            for q, target_q in ((n.qf1, n.target_qf1), (n.qf2, n.target_qf2)):
                for p, t in zip(q.parameters(), target_q.parameters(), strict=True):
                    t.lerp_(p, SETTINGS.tau)


@pytest.mark.parametrize("shared", [False, True], ids=["own targets", "shared targets"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thirty_updates_equal_plain_agents(dtype, shared):
    modules = members(dtype)
    plain = [PlainAgent(module) for module in modules]
    (stack,) = group_members(modules, [SETTINGS] * K)
    update = sac_update(stack, SETTINGS)
    assert isinstance(update, CategoricalSACUpdate)
    for _ in range(30):
        batch = minibatch(dtype)
        pairs = torch.randperm(2 * K).view(2, K) if shared else None
        update.step(batch, torch.empty(K, 2, B, 0, dtype=dtype), pairs)
        names = ("target_qf1", "target_qf2")
        judges = [copy.deepcopy(getattr(a.networks, name)) for name in names for a in plain]
        for k, agent in enumerate(plain):
            asked = None if pairs is None else (judges[pairs[0, k]], judges[pairs[1, k]])
            agent.update(Batch(*(x[k] for x in batch)), asked)
    for module, agent in zip(modules, plain, strict=True):
        expected = agent.networks.state_dict()
        for name, value in module.state_dict().items():
            torch.testing.assert_close(
                value, expected[name], rtol=0, atol=TOLERANCE[dtype], msg=name
            )


def test_expected_value_is_that_of_torch_distributions():
    logits, q = torch.randn(K, B, A).double(), torch.randn(2, K, B, A).double()
    value, log_probs = losses.expected_value(logits, q)
    policy = Categorical(logits=logits)
    torch.testing.assert_close(log_probs, -policy.entropy())
    # By hand: the mean over the actions of what each is worth.
    by_hand = sum(policy.probs[..., a] * q[..., a].amin(0) for a in range(A))
    torch.testing.assert_close(value, by_hand)
    with pytest.raises(ValueError, match="q has shape"):
        losses.expected_value(logits, q[:, :, :1])


def test_kl_is_that_of_torch_distributions():
    teacher, students = torch.randn(B, A).double(), torch.randn(2, B, A).double()
    kl = losses.categorical_kl(teacher, students)
    expected = torch.distributions.kl_divergence(
        Categorical(logits=teacher.expand(2, -1, -1)), Categorical(logits=students)
    ).mean(-1)
    torch.testing.assert_close(kl, expected)
    with pytest.raises(ValueError, match="number of actions"):
        losses.categorical_kl(teacher[:, :2], students)


def test_the_ensemble_s_values_of_choices_by_hand():
    """The student imitates where the mean of the members' smaller values prefers the teacher's."""
    modules = members(torch.float32)
    stack = MemberStack(range(K), modules)
    obs = torch.randn(64, D)
    outputs = stack.policy(obs.expand(K, -1, -1)).detach()
    imitated = AdvantageFilter([stack])(obs, outputs[1], outputs[[0, 2]])
    with torch.no_grad():
        values = sum(torch.minimum(m.qf1(obs), m.qf2(obs)) for m in modules) / K
    best = outputs.argmax(-1)
    for row, student in enumerate((0, 2)):
        of_teacher, of_student = (values.gather(1, best[k][:, None])[:, 0] for k in (1, student))
        assert torch.equal(imitated[row], (of_teacher > of_student).float())
        assert 0 < imitated[row].sum() < 64


def test_students_learn_the_teacher_s_policy_and_all_its_values():
    modules = members(torch.float32)
    stack = MemberStack(range(K), modules)
    with torch.no_grad():  # policies that differ more than fresh ones
        stack.policy.weights[-1].mul_(20.0)
    teacher = Teacher([stack], 1)
    held_out = minibatch(torch.float32, (512,))
    before = distance_to_teacher([stack], teacher, held_out)
    frozen = [p.clone() for p in modules[1].parameters()]
    batches = [minibatch(torch.float32, (64,)) for _ in range(400)]
    distill([stack], teacher, functools.partial(iter, batches), lr=3e-3)
    after = distance_to_teacher([stack], teacher, held_out)
    assert sorted(after) == [0, 2]
    for student, (kl, distance) in after.items():
        assert kl < 0.1 * before[student][0]
        assert distance < 0.1 * before[student][1]
    for p, old in zip(modules[1].parameters(), frozen, strict=True):
        assert torch.equal(p, old)
    # The distance is that over all actions.
    with torch.no_grad():
        expected = sum(
            (getattr(modules[0], q)(held_out.obs) - getattr(modules[1], q)(held_out.obs))
            .square()
            .mean()
            for q in ("qf1", "qf2")
        )
    assert after[0][1] == pytest.approx(float(expected), rel=1e-4)
    hard_copy([stack], teacher)
    assert all(kl == 0.0 for kl, _ in distance_to_teacher([stack], teacher, held_out).values())


def test_actions_are_one_hot_vectors():
    module = members(torch.float32)[0]
    obs = torch.randn(2_000, D)
    deterministic = module.deterministic_actions(obs)
    assert torch.equal(deterministic.argmax(-1), module.policy(obs).argmax(-1))
    with torch.no_grad():
        module.policy[-1].weight.zero_()
        module.policy[-1].bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]).log())
    module.generator = torch.Generator().manual_seed(1)
    drawn: Tensor = module.forward_exploration({"obs": obs})["actions"]
    module.act_randomly = True
    uniform = module.forward_exploration({"obs": obs})["actions"]
    for actions in (deterministic, drawn, uniform):
        assert actions.shape == (2_000, A)
        assert torch.equal(actions.sum(-1), torch.ones(2_000))
        assert torch.equal(actions.amax(-1), torch.ones(2_000))
    torch.testing.assert_close(drawn.mean(0), torch.tensor([0.1, 0.2, 0.3, 0.4]), rtol=0, atol=0.04)
    torch.testing.assert_close(uniform.mean(0), torch.full((A,), 0.25), rtol=0, atol=0.04)
