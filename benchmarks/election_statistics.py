"""Trains CIKD and logs, at every phase, what a teacher could be elected by, and the truth.

    python benchmarks/election_statistics.py --env HalfCheetah-v5 --seed 0 --out DIR [--perfect]

With `--perfect` the best member by the truth teaches, not the one with the highest R_k: more than
that no election can bring, since the episodes of the truth are neither learned from nor counted.

Writes to DIR, as the run goes on:

- `NAME.episodes.csv`: every finished training episode: environment step at its end, member, return,
  and whether the warm-up's random actions are in it;
- `NAME.elections.csv`: a row for each phase and member: mean return of 20 deterministic episodes
  just before the phase (the truth), of 10 others (what a small evaluation would say), R_k, who was
  elected, and the members' actions as the critics value them (all members' critics, the others',
  the member's own; states of the whole buffer, of its last 5,000 transitions);
- `NAME.evaluations.csv`: the same evaluations in the form that `rllib report` reads.

`benchmarks/election_rules.py` judges rules of election by these files.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.core.learner.learner import Learner

from rllib_cikd import CIKD, CIKDConfig
from rllib_cikd.algorithm.ensemble import q_values
from rllib_cikd.algorithm.history import History
from rllib_cikd.algorithm.perceptron import split_policy_output
from rllib_cikd.rllib.learner_group import ask_learner
from rllib_cikd.rllib.transitions import EpisodeReader

RECENT = 5_000
STATES = 2_048


class Log:
    """Rows of one CSV, each written at once."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", newline="")
        self._writer: Any = None

    def write(self, **row: Any) -> None:
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, row, lineterminator="\n")
            self._writer.writeheader()
        self._writer.writerow(row)
        self._file.flush()


class LoggingReader(EpisodeReader):
    """Also logs finished episodes."""

    def __init__(self, log: Log, history: History):
        super().__init__()
        self._log, self._history = log, history

    def read(self, chunks, random_actions=False):
        transitions, finished = super().read(chunks, random_actions)
        for episode in finished:
            self._log.write(
                step=self._history.env_steps + len(transitions.get("rewards", ())),
                member=episode.member,
                episode_return=f"{episode.episode_return:.6g}",
                random=int(episode.random),
            )
        return transitions, finished


@torch.no_grad()
def values_of_actions(learner: Learner) -> dict[str, list[float]]:
    """Mean value of each member's action, by all critics, by the others' and by its own: `[K]`.

    A critic's value is the smaller of its twins', as SAC has it.
    """
    (stack,), buffer = learner.stacks, learner.replay_buffer
    size, k = len(buffer), len(stack)
    newest = buffer.num_added % buffer.capacity if buffer.num_added > size else size
    values: dict[str, list[float]] = {}
    for states, first in (("all", 0), ("recent", max(0, size - RECENT))):
        rows = torch.randint(first, size, (STATES,), device=learner._device)
        obs = buffer.gather(rows % max(newest, 1), 0.99).obs
        mean, _ = split_policy_output(stack.policy(obs.expand(k, -1, -1)))
        table = []
        for actions in mean.tanh():  # of member j, by every member's critics
            inputs = torch.cat([obs, actions], -1).expand(k, -1, -1)
            table.append(q_values(stack.critics, inputs).amin(0).mean(-1))
        q = torch.stack(table).cpu().numpy()  # [member, critic]
        own = np.diag(q)
        values[f"q_{states}"] = q.mean(1).tolist()
        values[f"q_{states}_own"] = own.tolist()
        values[f"q_{states}_others"] = ((q.sum(1) - own) / max(1, k - 1)).tolist()
    return values


class LoggedCIKD(CIKD):
    logs: dict[str, Log]

    def setup(self, config: CIKDConfig) -> None:
        super().setup(config)
        folder, name = Path(config.env_config["out"]), config.env_config["name"]
        self.logs = {
            kind: Log(folder / f"{name}.{kind}.csv")
            for kind in ("episodes", "elections", "evaluations")
        }
        self._reader = LoggingReader(self.logs["episodes"], self.history)
        self._began = time.monotonic()

    def _elect_teacher(self) -> int | None:
        truth = self.evaluate_members(20)
        second = self.evaluate_members(10, seed=1_000_000 + self.history.env_steps)
        values = ask_learner(self.learner_group, values_of_actions)
        means = self.history.return_means()
        teacher = super()._elect_teacher()
        returns = [float(member["returns"].mean()) for member in truth.values()]
        if self.config.env_config["perfect"]:
            teacher = int(np.argmax(returns))
        for k, (member, played) in enumerate(truth.items()):
            self.logs["elections"].write(
                step=self.history.env_steps,
                member=k,
                evaluation=f"{returns[k]:.6g}",
                deviation=f"{played['returns'].std(ddof=1):.6g}",
                second_evaluation=f"{second[member]['returns'].mean():.6g}",
                r_k=f"{means[k]:.6g}",
                elected="" if teacher is None else int(teacher == k),
                **{name: f"{value[k]:.6g}" for name, value in values.items()},
            )
        elected = self.history.elected
        summaries = {
            **{f"policy_{k}": value for k, value in enumerate(returns)},
            "best": max(returns),
            "worst": min(returns),
            "mean": float(np.mean(returns)),
            "elected": float("nan") if elected is None else returns[elected],
        }
        for member, value in summaries.items():
            self.logs["evaluations"].write(
                variant=self.config.env_config["variant"],
                task=self.config.env_config["task"],
                seed=self.config.seed,
                member=member,
                step=self.history.env_steps,
                **{"return": "" if np.isnan(value) else f"{value:.6g}"},
                wall_seconds=round(time.monotonic() - self._began, 1),
                updates=self.history.num_updates,
            )
        return teacher


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--perfect", action="store_true")
    parser.add_argument("--gpu", type=float, default=0.0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    import gymnasium as gym

    def make(context: dict[str, Any]) -> gym.Env:
        return gym.make(args.env)

    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    ray.tune.register_env("task", make)
    variant = "cikd-perfect-election" if args.perfect else "cikd"
    name = f"{args.env}_{variant}_seed{args.seed}"
    options = {"name": name, "task": args.env, "variant": variant, "perfect": args.perfect}
    config = (
        CIKDConfig(algo_class=LoggedCIKD)
        .environment("task", env_config={"out": str(args.out.resolve()), **options})
        .learners(num_gpus_per_learner=args.gpu)
        .debugging(seed=args.seed, log_level="ERROR")
    )
    algo = config.build_algo()
    began = time.monotonic()
    while algo.history.env_steps < args.steps:
        algo.train()
        if algo.history.env_steps % 10_000 < 1_000:
            speed = algo.history.env_steps / (time.monotonic() - began)
            print(f"{name} {algo.history.env_steps:,} steps, {speed:.0f} steps/s", flush=True)
    algo.stop()


if __name__ == "__main__":
    main()
