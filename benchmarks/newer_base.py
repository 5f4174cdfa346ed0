"""One SAC agent in plain PyTorch, with one part of newer agents at a time: what is each worth?

    python benchmarks/newer_base.py --env HalfCheetah-v5 --seed 0 --parts batch_norm --out DIR

The agent is SAC as its paper has it (two hidden layers of 256, one gradient step per environment
step after 10,000 random ones), and `--parts` change it:

- `layer_norm`: layer normalisation before each activation of the critics, without parameters;
- `batch_norm`: CrossQ (Bhatt et al. 2024) at this width: batch normalisation in critics and policy,
  one pass for (s, a) and (s', a'), no target networks, Adam with β1 = 0.5 and 1e-3, the policy
  learns in every third step;
- `no_affine`: of `batch_norm`, no gains and offsets;
- `unit_norm`: the weights of each hidden unit of the critics are kept at norm 1;
- `reward_norm`: rewards divided by the running deviation of the discounted return;
- `entropy`: the target entropy of a Gaussian with a deviation of 0.15 in every dimension;
- `tau`: 0.01 in place of 0.005;
- `decay`: step sizes fall linearly to a half.

Every 10,000 steps 20 deterministic episodes are played. Writes `NAME.evaluations.csv` in the form
that `rllib report` reads.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

PARTS = (
    "layer_norm",
    "batch_norm",
    "no_affine",
    "unit_norm",
    "reward_norm",
    "entropy",
    "tau",
    "decay",
)
GAMMA, BATCH, RANDOM_STEPS, WIDTH = 0.99, 256, 10_000, 256


def network(inputs: int, outputs: int, norm: str, affine: bool = True) -> nn.Sequential:
    """Two hidden layers; `norm` is "none", "layer" or "batch" (also of the inputs, as CrossQ)."""
    layers: list[nn.Module] = []
    if norm == "batch":
        layers.append(nn.BatchNorm1d(inputs, momentum=0.01, affine=affine))
    for width in (WIDTH, WIDTH):
        layers.append(nn.Linear(inputs, width))
        if norm == "layer":
            layers.append(nn.LayerNorm(width, elementwise_affine=False))
        layers.append(nn.ReLU())
        if norm == "batch":
            layers.append(nn.BatchNorm1d(width, momentum=0.01, affine=affine))
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class Agent:
    def __init__(self, obs_dim: int, action_dim: int, parts: set[str], steps: int):
        self.parts = parts
        self.joint = "batch_norm" in parts
        norm = "batch" if self.joint else "layer" if "layer_norm" in parts else "none"
        affine = "no_affine" not in parts
        self.policy = network(obs_dim, 2 * action_dim, "batch" if self.joint else "none", affine)
        self.critics = nn.ModuleList(
            network(obs_dim + action_dim, 1, norm, affine) for _ in range(2)
        )
        self.targets = nn.ModuleList(
            network(obs_dim + action_dim, 1, norm, affine) for _ in range(2)
        )
        self.targets.load_state_dict(self.critics.state_dict())
        self.log_alpha = torch.zeros(1, requires_grad=True)
        self.target_entropy = -float(action_dim)
        if "entropy" in parts:
            self.target_entropy = 0.5 * action_dim * math.log(2 * math.pi * math.e * 0.15**2)
        self.tau = 0.01 if "tau" in parts else 0.005
        lr, betas = (1e-3, (0.5, 0.999)) if self.joint else (3e-4, (0.9, 0.999))
        self.optimizers = [
            torch.optim.Adam(p, lr=lr, betas=betas)
            for p in (self.critics.parameters(), self.policy.parameters(), [self.log_alpha])
        ]
        if "decay" in parts:
            self.schedules = [
                torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.5, total_iters=steps)
                for o in self.optimizers
            ]
        self.updates = 0
        self._keep_norms()

    def _keep_norms(self) -> None:
        if "unit_norm" not in self.parts:
            return
        with torch.no_grad():
            for critic in self.critics:
                for layer in [x for x in critic if isinstance(x, nn.Linear)][:-1]:
                    layer.weight.div_(layer.weight.norm(dim=1, keepdim=True))

    def act(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterised actions and their log-density."""
        mean, log_std = self.policy(obs).chunk(2, -1)
        log_std = log_std.clamp(-20, 2)
        noise = torch.randn_like(mean)
        raw = mean + log_std.exp() * noise
        log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_prob = log_prob - 2 * (math.log(2) - raw - nn.functional.softplus(-2 * raw))
        return raw.tanh(), log_prob.sum(-1)

    @torch.no_grad()
    def choose(self, obs: np.ndarray, deterministic: bool) -> np.ndarray:
        self.policy.eval()
        x = torch.as_tensor(obs, dtype=torch.float32)
        action = self.policy(x).chunk(2, -1)[0].tanh() if deterministic else self.act(x)[0]
        self.policy.train()
        return action.numpy()

    def q(self, critics: nn.ModuleList, obs: Tensor, actions: Tensor) -> Tensor:
        inputs = torch.cat([obs, actions], -1)
        return torch.stack([critic(inputs).squeeze(-1) for critic in critics])

    def update(self, obs: Tensor, actions: Tensor, rewards: Tensor, going: Tensor, after: Tensor):
        alpha = self.log_alpha.detach().exp()
        with torch.no_grad():
            self.policy.eval()
            next_actions, next_log_prob = self.act(after)
            self.policy.train()
        if self.joint:  # one pass, so that both halves have the same statistics
            both = self.q(self.critics, torch.cat([obs, after]), torch.cat([actions, next_actions]))
            q, next_q = both.split(len(obs), dim=1)
            next_q = next_q.detach()
        else:
            q = self.q(self.critics, obs, actions)
            with torch.no_grad():
                next_q = self.q(self.targets, after, next_actions)
        target = rewards + GAMMA * going * (next_q.amin(0) - alpha * next_log_prob)
        self._descend(0, 0.5 * (q - target).square().mean(-1).sum())
        self._keep_norms()
        self.updates += 1
        if not self.joint or self.updates % 3 == 0:
            self.critics.eval().requires_grad_(False)
            own, log_prob = self.act(obs)
            self._descend(1, (alpha * log_prob - self.q(self.critics, obs, own).amin(0)).mean())
            self.critics.train().requires_grad_(True)
            entropy = log_prob.detach().mean() + self.target_entropy
            self._descend(2, -(self.log_alpha * entropy).sum())
        if not self.joint:
            with torch.no_grad():
                for t, p in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                    t.lerp_(p, self.tau)
        if "decay" in self.parts:
            for schedule in self.schedules:
                schedule.step()

    def _descend(self, which: int, loss: Tensor) -> None:
        self.optimizers[which].zero_grad()
        loss.backward()
        self.optimizers[which].step()


class RewardNorm:
    """Divides rewards by the running deviation of the discounted return."""

    def __init__(self):
        self.total, self.count, self.mean, self.m2 = 0.0, 0, 0.0, 0.0

    def see(self, reward: float, ended: bool) -> None:
        self.total = GAMMA * self.total + reward
        self.count += 1
        delta = self.total - self.mean
        self.mean += delta / self.count
        self.m2 += delta * (self.total - self.mean)
        if ended:
            self.total = 0.0

    @property
    def deviation(self) -> float:
        return math.sqrt(self.m2 / max(1, self.count)) + 1e-8


def evaluate(agent: Agent, envs: gym.vector.SyncVectorEnv, low, high, seed: int) -> float:
    """Mean return of as many deterministic episodes as there are environments."""
    obs, _ = envs.reset(seed=seed)
    total, running = np.zeros(envs.num_envs), np.ones(envs.num_envs, bool)
    while running.any():
        action = low + (agent.choose(obs, True) + 1) / 2 * (high - low)
        obs, reward, terminated, truncated, _ = envs.step(action)
        total += reward * running
        running &= ~(terminated | truncated)
    return float(total.mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=[])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    env = gym.make(args.env)
    evaluation = gym.vector.SyncVectorEnv([lambda: gym.make(args.env)] * 20)
    obs_dim, action_dim = env.observation_space.shape[0], env.action_space.shape[0]
    low, high = env.action_space.low, env.action_space.high
    agent, scale = Agent(obs_dim, action_dim, set(args.parts), args.steps), RewardNorm()
    widths = {"obs": obs_dim, "action": action_dim, "reward": 1, "going": 1, "after": obs_dim}
    buffer = {k: torch.zeros(args.steps, n) for k, n in widths.items()}

    task = f"cikd-{args.env.split('-')[0].lower()}"
    variant = "sac-" + ("-".join(args.parts) or "plain").replace("_", "-")
    args.out.mkdir(parents=True, exist_ok=True)
    file = (args.out / f"{task}_{variant}_seed{args.seed}.evaluations.csv").open("w", newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ("variant", "task", "seed", "member", "step", "return", "wall_seconds", "updates")
    )
    began = time.monotonic()
    obs, _ = env.reset(seed=args.seed)
    for step in range(args.steps):
        if step < RANDOM_STEPS:
            action = rng.uniform(-1, 1, action_dim).astype(np.float32)
        else:
            action = agent.choose(obs[None], False)[0]
        after, reward, terminated, truncated, _ = env.step(low + (action + 1) / 2 * (high - low))
        scale.see(float(reward), terminated or truncated)
        row = {"obs": obs, "action": action, "reward": reward, "going": not terminated}
        for name, value in {**row, "after": after}.items():
            buffer[name][step] = torch.as_tensor(np.asarray(value, np.float32))
        obs = after
        if terminated or truncated:
            obs, _ = env.reset()
        if step >= RANDOM_STEPS:
            rows = torch.randint(step + 1, (BATCH,))
            batch = {k: v[rows] for k, v in buffer.items()}
            rewards = batch["reward"][:, 0]
            if "reward_norm" in args.parts:
                rewards = rewards / scale.deviation
            agent.update(
                batch["obs"], batch["action"], rewards, batch["going"][:, 0], batch["after"]
            )
        if (step + 1) % 10_000 == 0:
            mean = evaluate(agent, evaluation, low, high, args.seed + step)
            seconds = round(time.monotonic() - began, 1)
            for member in ("policy_0", "best", "worst", "mean", "elected"):
                about = (variant, args.env, args.seed, member, step + 1)
                writer.writerow((*about, f"{mean:.6g}", seconds, agent.updates))
            file.flush()
            print(
                f"{variant} {args.env} seed {args.seed}: {step + 1:,} steps, {mean:.0f}", flush=True
            )


if __name__ == "__main__":
    main()
