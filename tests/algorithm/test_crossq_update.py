"""The CrossQ update against plain PyTorch agents with `BatchNorm1d`, weight by weight."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from experience import A, D, Experience
from torch import Tensor, nn
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from rllib_cikd.algorithm.crossq_update import CrossQUpdate
from rllib_cikd.algorithm.ensemble import MemberStack
from rllib_cikd.algorithm.knowledge_sharing import Teacher, distill, hard_copy, reset_students
from rllib_cikd.algorithm.replay_buffer import Batch
from rllib_cikd.algorithm.sac_update import SACSettings, SACUpdate
from rllib_cikd.algorithm.updates import sac_update
from rllib_cikd.engine.batch_normalized import RunningNorm
from rllib_cikd.rllib.action_map import OneHot
from rllib_cikd.rllib.sac_module import SACModule

K, B = 3, 16
SETTINGS = SACSettings(
    *(1e-3, 2e-3, 3e-3),
    gamma=31 / 32,
    target_entropy=-1.5,
    policy_delay=3,
    adam_beta1=0.5,
)
F64 = torch.float64


def _modules(dtype: torch.dtype = F64, action_space: gym.Space | None = None) -> list[SACModule]:
    torch.manual_seed(0)
    spaces = {
        "observation_space": gym.spaces.Box(-9.0, 9.0, (D,), np.float32),
        "action_space": action_space or gym.spaces.Box(-1.0, 1.0, (A,), np.float32),
    }
    config = {"fcnet_hiddens": [24, 16], "batch_norm": True}
    return [
        SACModule(**spaces, model_config=config | {"initial_alpha": 0.5 + k}).to(dtype)
        for k in range(K)
    ]


class PlainCrossQ:
    """One agent, written from the paper (Bhatt et al. 2024, algorithm 1 and appendix)."""

    def __init__(self, module: SACModule):
        self.networks = {name: _plain(module, name) for name in ("policy", "qf1", "qf2")}
        self.log_alpha = module.log_alpha.detach().clone().requires_grad_()
        critics = [*self.networks["qf1"].parameters(), *self.networks["qf2"].parameters()]
        betas = (0.5, 0.999)
        self.optimizers = {
            "critic": torch.optim.Adam(critics, lr=SETTINGS.critic_lr, betas=betas),
            "actor": torch.optim.Adam(
                self.networks["policy"].parameters(), lr=SETTINGS.actor_lr, betas=betas
            ),
            "alpha": torch.optim.Adam([self.log_alpha], lr=SETTINGS.alpha_lr, betas=betas),
        }
        self.updates = 0

    def act(self, obs: Tensor, noise: Tensor, learns: bool) -> tuple[Tensor, Tensor]:
        mean, log_std = self.networks["policy"].train(learns)(obs).chunk(2, dim=-1)
        std = log_std.clamp(-20.0, 2.0).exp()
        tanh = TanhTransform(cache_size=1)
        squashed = TransformedDistribution(Independent(Normal(mean, std), 1), [tanh])
        actions = tanh(mean + std * noise)
        return actions, squashed.log_prob(actions)

    def update(self, batch: Batch, noise: Tensor, next_noise: Tensor) -> None:
        alpha = self.log_alpha.detach().exp()
        critics = [self.networks[name] for name in ("qf1", "qf2")]
        with torch.no_grad():
            next_actions, next_log_prob = self.act(batch.next_obs, next_noise, False)
        now = torch.cat([batch.obs, batch.actions], -1)
        both = torch.cat([now, torch.cat([batch.next_obs, next_actions], -1)])
        values = [critic.train()(both).squeeze(-1) for critic in critics]
        q, next_q = zip(*(v.chunk(2) for v in values), strict=True)
        next_value = torch.min(*next_q).detach() - alpha * next_log_prob
        target = batch.rewards + batch.discounts * next_value
        self._descend("critic", sum(0.5 * (x - target).square().mean() for x in q))
        if self.updates % 3 == 0:
            actions, log_prob = self.act(batch.obs, noise, True)
            inputs = torch.cat([batch.obs, actions], -1)
            judged = torch.min(*(critic.eval()(inputs).squeeze(-1) for critic in critics))
            self._descend("actor", (alpha * log_prob - judged).mean())
            entropy_error = log_prob.detach().mean() + SETTINGS.target_entropy
            self._descend("alpha", -(self.log_alpha * entropy_error).sum())
        self.updates += 1

    def _descend(self, name: str, loss: Any) -> None:
        self.optimizers[name].zero_grad()
        loss.backward()
        self.optimizers[name].step()


class _BatchNorm(nn.BatchNorm1d):
    """PyTorch's, whose first minibatch sets the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        self.momentum = 1.0 if self.num_batches_tracked == 0 else 0.01
        return super().forward(x)


def _plain(module: SACModule, name: str) -> nn.Sequential:
    """A network of the module by PyTorch's own layers."""
    layers: list[nn.Module] = []
    for layer in getattr(module, name):
        if isinstance(layer, RunningNorm):
            layers.append(_BatchNorm(len(layer.mean)))
        elif isinstance(layer, nn.Linear):
            linear = nn.Linear(layer.in_features, layer.out_features)
            linear.load_state_dict(layer.state_dict())
            layers.append(linear)
        else:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers).to(module.log_alpha.dtype)


def _assert_equal(module: SACModule, agent: PlainCrossQ, error: float) -> None:
    torch.testing.assert_close(module.log_alpha, agent.log_alpha, rtol=0, atol=error)
    for name, network in agent.networks.items():
        for mine, true in zip(getattr(module, name), network, strict=True):
            if isinstance(mine, RunningNorm):
                pairs = [
                    (mine.gain, true.weight),
                    (mine.offset, true.bias),
                    (mine.mean, true.running_mean),
                    (mine.variance, true.running_var),
                ]
            elif isinstance(mine, nn.Linear):
                pairs = [(mine.weight, true.weight), (mine.bias, true.bias)]
            else:
                continue
            for one, other in pairs:
                torch.testing.assert_close(one, other, rtol=0, atol=error, check_stride=False)


def _batches(num: int, dtype: torch.dtype) -> list[tuple[Batch, Tensor]]:
    buffer, generator = Experience().buffer(), torch.Generator().manual_seed(1)
    found = []
    for _ in range(num):
        rows = torch.randint(150, (K, B), generator=generator)
        batch = Batch(*(x.to(dtype) for x in buffer.gather(rows, SETTINGS.gamma)))
        noise = torch.randn(K, 2, B, A, generator=generator, dtype=torch.float64).to(dtype)
        found.append((batch, noise))
    return found


# Ten updates in float32: a unit that hardly varies is divided by little, so rounding grows.
@pytest.mark.parametrize(("dtype", "num", "error"), [(F64, 50, 1e-11), (torch.float32, 10, 2e-3)])
def test_fused_updates_equal_plain_agents(dtype, num, error):
    """Everything that learns, and the running statistics; policies in every third update."""
    modules = _modules(dtype)
    agents = [PlainCrossQ(module) for module in modules]
    start = [{n: p.clone() for n, p in module.state_dict().items()} for module in modules]
    update = sac_update(MemberStack(range(K), modules), SETTINGS)
    assert isinstance(update, CrossQUpdate)
    for batch, noise in _batches(num, dtype):
        statistics = update.step(batch, noise)
        assert statistics.shape == (len(SACUpdate.STATISTICS), K)
        assert torch.isfinite(statistics).all()
        for k, agent in enumerate(agents):
            agent.update(Batch(*(x[k] for x in batch)), *noise[k])
    for module, agent, before in zip(modules, agents, start, strict=True):
        _assert_equal(module, agent, error)
        for name, value in module.state_dict().items():
            moved = float((value - before[name]).abs().max()) > 1e-4
            assert moved != name.startswith("target_"), name


def test_the_policy_s_figures_stay_between_its_steps():
    update = sac_update(MemberStack(range(K), _modules()), SETTINGS)
    reported = torch.stack([update.step(*drawn) for drawn in _batches(4, F64)])
    policy = SACUpdate.STATISTICS.index("policy_loss")
    assert torch.equal(reported[0, policy], reported[2, policy])
    assert not torch.equal(reported[0, policy], reported[3, policy])


def test_a_restored_update_goes_on_with_the_same_delay():
    """The number of updates is that of the critics' optimiser, which is in every checkpoint."""
    ends = []
    for restores in (False, True):
        modules = _modules()
        update = sac_update(MemberStack(range(K), modules), SETTINGS)
        for i, drawn in enumerate(_batches(6, F64)):
            if restores and i == 2:
                states = {n: o.state_dict() for n, o in update.optimizers.items()}
                update = sac_update(MemberStack(range(K), modules), SETTINGS)
                for name, optimizer in update.optimizers.items():
                    optimizer.load_state_dict(states[name])
            assert torch.isfinite(update.step(*drawn)).all()
        ends.append([p.clone() for m in modules for p in m.state_dict().values()])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_students_come_closer_to_their_teacher(dtype):
    modules = _modules(dtype)
    stack = MemberStack(range(K), modules)
    update = sac_update(stack, SETTINGS)
    for drawn in _batches(300, dtype):  # until the running statistics are those of what is seen
        update.step(*drawn)
    (batch, _), *_ = _batches(1, dtype)
    batch = Batch(*(x[0] for x in batch))

    def distances() -> tuple[Tensor, Tensor]:
        obs, inputs = batch.obs.expand(K, -1, -1), batch.obs_and_actions.expand(K, -1, -1)
        actions, q = stack.policy(obs).chunk(2, -1)[0].tanh(), stack.critics(inputs).view(2, K, -1)
        return (actions - actions[1]).abs().mean((1, 2)), (q - q[:, 1:2]).abs().mean((0, 2))

    before = distances()
    teacher = [block[1].clone() for block in stack.policy.blocks]
    distill([stack], Teacher([stack], 1), lambda: [batch] * 200, lr=1e-3)
    for old, new in zip(before, distances(), strict=True):
        assert (new[[0, 2]] < 0.5 * old[[0, 2]]).all()
    assert all(torch.equal(b[1], t) for b, t in zip(stack.policy.blocks, teacher, strict=True))
    hard_copy([stack], Teacher([stack], 1))
    for difference in distances():
        assert difference.max() == 0
    assert stack.is_attached()


def test_fresh_students_have_seen_nothing():
    modules = _modules(torch.float32)
    stack = MemberStack(range(K), modules)
    update = sac_update(stack, SETTINGS)
    for drawn in _batches(5, torch.float32):
        update.step(*drawn)
    teacher = [block[1].clone() for block in stack.policy.blocks]
    reset_students([update], teacher=1, seed=0)
    for norm in (modules[0].policy[0], modules[2].qf2[0]):
        assert torch.equal(norm.mean, torch.zeros_like(norm.mean))
        assert torch.equal(norm.gain, torch.ones_like(norm.gain))
    assert all(torch.equal(b[1], t) for b, t in zip(stack.policy.blocks, teacher, strict=True))
    assert stack.is_attached()


def test_discrete_actions_are_refused():
    stack = MemberStack(range(K), _modules(action_space=OneHot(gym.spaces.Discrete(4))))
    with pytest.raises(ValueError, match="model_config: batch_norm=True is for continuous actions"):
        sac_update(stack, SETTINGS)
