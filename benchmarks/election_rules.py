"""Judges rules of election by the files that `benchmarks/election_statistics.py` wrote.

    python benchmarks/election_rules.py docs/results/election [--from-step 20000]

For each rule and task: the share of phases at which the best member was elected, the return given
away (the best member's less the elected one's) beside that of a blind draw, and the rank
correlation of the rule's statistic with the evaluation, over members within a phase; and the share
of what a perfect election would bring over a blind draw, with a 95 % bootstrap interval over the
phases. The truth is the mean return of the 20 deterministic episodes just before the phase. A phase
counts for a rule at which every member has its statistic.

The last rows say what so many deterministic episodes of each member would bring: their mean is
drawn from the evaluation's mean and deviation.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr


def windowed(last: int, horizon: float = np.inf, warm_up: bool = False) -> Callable:
    """R_k over the last so many episodes, of at most so many steps ago."""

    def rule(phase: pd.DataFrame, episodes: pd.DataFrame) -> pd.Series:
        step = phase["step"].iloc[0]
        some = episodes[(episodes["step"] <= step) & (episodes["step"] > step - horizon)]
        some = some if warm_up else some[some["random"] == 0]
        means = some.groupby("member")["episode_return"].apply(lambda r: r.tail(last).mean())
        return phase["member"].map(means)

    return rule


def recent_or_last(last: int, horizon: float) -> Callable:
    """`windowed`; where a member has no episode that recent, its last one."""
    recent, only_last = windowed(last, horizon), windowed(1)

    def rule(phase: pd.DataFrame, episodes: pd.DataFrame) -> pd.Series:
        return recent(phase, episodes).fillna(only_last(phase, episodes))

    return rule


def decayed(half: float) -> Callable:
    """The mean of all episodes, one of `half` steps ago with half the weight."""

    def rule(phase: pd.DataFrame, episodes: pd.DataFrame) -> pd.Series:
        step = phase["step"].iloc[0]
        some = episodes[(episodes["step"] <= step) & (episodes["random"] == 0)]
        weights = 0.5 ** ((step - some["step"]) / half)
        sums = (weights * some["episode_return"]).groupby(some["member"]).sum()
        return phase["member"].map(sums / weights.groupby(some["member"]).sum())

    return rule


def trend(horizon: float) -> Callable:
    """Each member's level where all share one slope: least squares over the last so many steps.

    A member that acted longer ago is not behind for that alone.
    """

    def rule(phase: pd.DataFrame, episodes: pd.DataFrame) -> pd.Series:
        step = phase["step"].iloc[0]
        some = episodes[(episodes["step"] <= step) & (episodes["step"] > step - horizon)]
        some = some[some["random"] == 0]
        members = phase["member"].tolist()
        if set(some["member"]) != set(members):
            return pd.Series(np.nan, phase.index)
        columns = [some["member"] == k for k in members] + [(some["step"] - step) / 1e3]
        inputs = np.stack(columns, axis=1).astype(float)
        levels = np.linalg.lstsq(inputs, some["episode_return"], rcond=None)[0]
        return phase["member"].map(dict(zip(members, levels, strict=False)))

    return rule


def column(name: str) -> Callable:
    """A column of the elections; NaN where a file lacks it."""
    return lambda phase, episodes: phase.get(name, pd.Series(np.nan, phase.index))


def both(phase: pd.DataFrame, episodes: pd.DataFrame) -> pd.Series:
    """R_k and the critics' opinion, each standardised over the members."""
    total: pd.Series = sum(
        (x - x.mean()) / (x.std(ddof=0) + 1e-9)
        for x in (windowed(5)(phase, episodes), column("q_all")(phase, episodes))
    )
    return total


RULES: dict[str, Callable] = {
    "R_k, last 5 episodes, warm-up included (the paper)": windowed(5, warm_up=True),
    "R_k, last 5 episodes, without the warm-up (default)": windowed(5),
    "last 3 episodes": windowed(3),
    "last 2 episodes": windowed(2),
    "last episode": windowed(1),
    "last 5 episodes, none older than 10,000 steps": windowed(5, 10_000),
    "last 5 episodes, none older than 5,000 steps": windowed(5, 5_000),
    "the same with 10,000, else a member's last episode": recent_or_last(5, 10_000),
    "the same with 5,000, else a member's last episode": recent_or_last(5, 5_000),
    "all episodes, half the weight every 2,500 steps": decayed(2_500),
    "all episodes, half the weight every 5,000 steps": decayed(5_000),
    "level over a common trend, last 10,000 steps": trend(10_000),
    "level over a common trend, last 20,000 steps": trend(20_000),
    "Q of the member's actions, all critics, whole buffer": column("q_all"),
    "Q of the member's actions, all critics, last 5,000 states": column("q_recent"),
    "Q by the others' critics": column("q_all_others"),
    "Q by its own critics": column("q_all_own"),
    "R_k and all critics, standardised": both,
    "10 deterministic episodes": column("second_evaluation"),
    "20 deterministic episodes, right after the phase before": column(
        "evaluation_after_last_phase"
    ),
}


def judge(folder: Path, from_step: int) -> pd.DataFrame:
    rows = []
    for path in sorted(folder.glob("*.elections.csv")):
        elections = pd.read_csv(path)
        episodes = pd.read_csv(path.with_name(path.name.replace("elections", "episodes")))
        task = path.name.split("_")[0]
        for step, phase in elections[elections["step"] >= from_step].groupby("step"):
            truth = phase["evaluation"]
            for name, rule in RULES.items():
                statistic = rule(phase, episodes)
                if statistic.isna().any():
                    continue
                elected = truth[statistic.idxmax()]
                rows.append(
                    {
                        "task": task,
                        "rule": name,
                        "step": step,
                        "right": elected == truth.max(),
                        "regret": truth.max() - elected,
                        "blind": truth.max() - truth.mean(),
                        "correlation": spearmanr(statistic, truth).statistic,
                    }
                )
    table = pd.DataFrame(rows).groupby(["task", "rule"], sort=False)
    result = table[["right", "regret", "blind", "correlation"]].mean()
    shares = table[["regret", "blind"]].apply(share_of_perfect)
    return result.join(shares).assign(phases=table.size())


def share_of_perfect(phases: pd.DataFrame) -> pd.Series:
    values = phases.to_numpy()
    rng = np.random.default_rng(0)
    samples = values[rng.integers(0, len(values), (4_000, len(values)))].sum(axis=1)
    low, high = np.quantile(1 - samples[:, 0] / samples[:, 1], [0.025, 0.975])
    regret, blind = values.sum(axis=0)
    return pd.Series({"share": 1 - regret / blind, "low": low, "high": high})


def few_episodes(folder: Path, from_step: int) -> pd.Series:
    """Shares of a perfect election, by task and number of deterministic episodes of each member."""
    tables = []
    for path in sorted(folder.glob("*.elections.csv")):
        elections = pd.read_csv(path)
        if "deviation" in elections:
            recent = elections[elections["step"] >= from_step]
            tables.append(recent.assign(task=path.name.split("_")[0], run=path.name))
    rng, shares = np.random.default_rng(0), {}
    for task, rows in pd.concat(tables).groupby("task", sort=False):
        phases = [phase for _, phase in rows.groupby(["run", "step"])]
        truth = np.stack([phase["evaluation"] for phase in phases])
        deviation = np.stack([phase["deviation"] for phase in phases])
        best = truth.max(axis=1)
        for number in (1, 2, 3, 5):
            noise = rng.normal(size=(1_000, *truth.shape)) * deviation / np.sqrt(number)
            elected = np.take_along_axis(truth[None], (truth + noise).argmax(-1)[..., None], -1)
            regret = (best - elected[..., 0]).mean()
            shares[task, number] = 1 - regret / (best - truth.mean(axis=1)).mean()
    return pd.Series(shares)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--from-step", type=int, default=20_000)
    args = parser.parse_args()
    table = judge(args.folder, args.from_step)
    for task, rows in table.groupby(level="task", sort=False):
        print(
            f"\n{task}\n{'rule':58} {'right':>6} {'regret':>8} {'blind':>8} {'rank':>6} phases"
            "  share of a perfect election's gain"
        )
        for (_, rule), r in rows.iterrows():
            print(
                f"{rule:58} {r['right']:6.0%} {r['regret']:8.0f} {r['blind']:8.0f} "
                f"{r['correlation']:6.2f} {r['phases']:6.0f}  "
                f"{r['share']:5.0%} [{r['low']:.0%} to {r['high']:.0%}]"
            )
    print("\ndeterministic episodes of each member: share of a perfect election's gain")
    for (task, number), share in few_episodes(args.folder, args.from_step).items():
        print(f"{task:20} {number:2d} {share:5.0%}")


if __name__ == "__main__":
    main()
