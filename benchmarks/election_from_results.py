"""Makes of a run with `assess_distillation` the files that `benchmarks/election_rules.py` judges.

    python benchmarks/election_from_results.py TRIAL... --out DIR

TRIAL is the folder of a trial, with `result.json`. It must have one environment, M = 5 and
iterations of one episode at most, as HalfCheetah's 1,000 steps, so that each episode's return
follows from how R_k changes. Written are `NAME.episodes.csv` and `NAME.elections.csv`, the latter
with `evaluation_after_last_phase`: each member's return when the phase before had just ended.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

M = 5


def episodes_of(results: list[dict[str, Any]]) -> pd.DataFrame:
    rows = []
    windows: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for result in results:
        ensemble = result["ensemble"]
        for member, count in ensemble["episodes_lifetime"].items():
            new, counts[member] = count - counts.get(member, 0), count
            mean = ensemble["return_mean"][member]
            if new > 1:
                raise SystemExit(f"{member} ended {new} episodes in one iteration.")
            if not new or math.isnan(mean):  # of the warm-up
                continue
            others = windows.get(member, [])[1 - M :]
            episode_return = mean * (len(others) + 1) - sum(others)
            windows[member] = [*others, episode_return]
            step = result["num_env_steps_sampled_lifetime"]
            row = {"step": step, "member": int(member.removeprefix("policy_"))}
            rows.append(row | {"episode_return": round(episode_return, 3), "random": 0})
    return pd.DataFrame(rows)


def elections_of(results: list[dict[str, Any]]) -> pd.DataFrame:
    rows, done, after = [], 0, {}
    for result in results:
        ensemble = result["ensemble"]
        if ensemble["num_distillations_lifetime"] == done:
            continue
        done = ensemble["num_distillations_lifetime"]
        phase = ensemble["distillation"]
        for member, evaluation in phase["return_before"].items():
            k = int(member.removeprefix("policy_"))
            rows.append(
                {
                    "step": result["num_env_steps_sampled_lifetime"],
                    "member": k,
                    "evaluation": evaluation,
                    "elected": int(k == ensemble["teacher"]),
                    "evaluation_after_last_phase": after.get(member, math.nan),
                }
            )
        after = phase["return_after"]
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trials", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for trial in args.trials:
        lines = (trial / "result.json").read_text().splitlines()
        results = [json.loads(line) for line in lines]
        config = results[0]["config"]
        name = f"{config['env']}_{trial.resolve().name}"
        for kind, table in (
            ("episodes", episodes_of(results)),
            ("elections", elections_of(results)),
        ):
            table.to_csv(
                args.out / f"{name}.{kind}.csv",
                index=False,
                float_format="%.6g",
                lineterminator="\n",
            )
        print(f"{name}: {results[-1]['ensemble']['num_distillations_lifetime']} phases")


if __name__ == "__main__":
    main()
