"""By how much each variant is ahead of the baseline, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rllib_cikd.report.markdown import NONE, digits_for, interval, table
from rllib_cikd.report.statistics import Interval, mean_interval
from rllib_cikd.report.study_data import Curves, StudyData, last_common_step

_SUMMARIES = {"mean": "mean member", "elected": "elected member"}


@dataclass(frozen=True)
class Differences:
    """Final returns of a variant less those of the baseline's mean member, with the same seeds.

    Attributes:
        step: The last one which all these runs have.
        seeds: `[S]`, which both have.
        values: `[S]` of "mean" and of "elected"; the latter NaN where no member was elected.
    """

    step: int
    seeds: list[int]
    values: dict[str, np.ndarray]


def paired_differences(curves: Curves, baseline: Curves) -> Differences | None:
    """Of two variants on one task; None if they share no seed or no step."""
    seeds = [seed for seed in curves.seeds if seed in baseline.seeds]
    step = last_common_step([curves, baseline])
    if not seeds or step is None:
        return None
    others = _at(baseline, "mean", seeds, step)
    values = {who: _at(curves, who, seeds, step) - others for who in _SUMMARIES}
    return Differences(step, seeds, values)


def _at(curves: Curves, summary: str, seeds: Sequence[int], step: int) -> np.ndarray:
    return curves.at(summary, step)[[curves.seeds.index(seed) for seed in seeds]]


def headline(data: StudyData, variants: Sequence[str], baseline: str, method: str) -> list[str]:
    """Markdown blocks, before all else: how far the method ends above the baseline on each task.

    Where there is nothing to compare with, the final returns of the first variant.
    """
    lines = []
    if method == baseline:
        method = next((v for v in variants if v != baseline), method)
    for task in data.tasks:
        curves, other = data.curves.get((method, task)), data.curves.get((baseline, task))
        if curves is None:
            continue
        if method == baseline:
            lines.append(f"- **{task}**: {_final(curves)}")
        elif other is not None and (found := paired_differences(curves, other)) is not None:
            means = found.values["mean"]
            figure = _signed(mean_interval(means), digits_for(float(np.abs(means).max())))
            pairs = f"in {int((means > 0).sum())} of {len(means)} pairs of the same seed"
            lines.append(
                f"- **{task}**: {method} minus {baseline}: **{figure}** in mean final return at "
                f"step {found.step:,}; ahead {pairs}."
            )
    return ["\n".join(lines)] if lines else []


def _final(curves: Curves) -> str:
    """The final returns in words."""
    digits = digits_for(float(np.abs(curves.returns["mean"]).max()))
    summaries = _SUMMARIES if curves.num_members > 1 else {"mean": curves.variant}
    figures = {name: curves.returns[who][:, -1] for who, name in summaries.items()}
    text = ", ".join(
        f"{name} **{interval(mean_interval(values), digits)}**"
        for name, values in figures.items()
        if not np.isnan(values).any()
    )
    seeds = len(curves.seeds)
    return f"final return at step {curves.steps[-1]:,}: {text}" + (
        f"; mean of {seeds} seeds." if seeds > 1 else "."
    )


def differences_section(data: StudyData, variants: Sequence[str], baseline: str) -> list[str]:
    """Markdown blocks: a row for each task and variant other than the baseline; maybe none."""
    rows, alone = [], []
    for task in data.tasks:
        for curves in data.curves_of([v for v in variants if v != baseline], task):
            other = data.curves.get((baseline, task))
            found = paired_differences(curves, other) if other else None
            if found is None:
                alone.append(f"{curves.variant} on {task}")
                continue
            rows.append([task, curves.variant, *_cells(found, curves.num_members > 1)])
    header = ["task", "variant", *_SUMMARIES.values(), "pairs ahead", "at step"]
    text = (
        f"Final return less that of {baseline} (its mean member), run against run of the same "
        "seed: mean over the pairs, with a 95% bootstrap interval over them. *Pairs ahead*: in "
        "how many the mean member is above."
    )
    blocks = [text, table(header, rows, words=2)] if rows else []
    if alone:
        blocks.append(f"No pair with {baseline}, by seed and step: {', '.join(alone)}.")
    return blocks


def _cells(found: Differences, is_ensemble: bool) -> list[str]:
    means, elected = found.values["mean"], found.values["elected"]
    digits = digits_for(float(np.abs(means).max()))
    known = is_ensemble and not np.isnan(elected).any()
    return [
        _signed(mean_interval(means), digits),
        _signed(mean_interval(elected), digits) if known else NONE if is_ensemble else "=",
        f"{int((means > 0).sum())} of {len(means)}",
        f"{found.step:,}",
    ]


def _signed(figures: Interval, digits: int) -> str:
    sign = "+" if float(figures.mean) > 0 else ""
    return f"{sign}{interval(figures, digits)}"
