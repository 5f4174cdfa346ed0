"""What a reader must know before trusting a study's figures."""

from __future__ import annotations

from collections.abc import Sequence

from rllib_cikd.report.study_data import Curves, StudyData

_FEW_SEEDS = 5


def caveats(data: StudyData, variants: Sequence[str]) -> list[str]:
    """Markdown blocks: short runs, unequal lengths, few seeds, late elections; maybe none."""
    every = [
        data.curves[v, task] for v in variants for task in data.tasks if (v, task) in data.curves
    ]
    notes = [
        *_left_out(every),
        *_interpolated(every),
        *_short_runs(every),
        *(note for task in data.tasks for note in _unequal_lengths(data.curves_of(variants, task))),
        *_few_seeds(every),
        *_late_elections(every),
    ]
    return ["\n".join(f"- {note}" for note in notes)] if notes else []


def _left_out(every: Sequence[Curves]) -> list[str]:
    notes = []
    for curves in every:
        if curves.left_out:
            ends = ", ".join(f"seed {seed} at {last:,}" for seed, last in curves.left_out.items())
            notes.append(
                f"**Left out**, {curves.variant} on {curves.task}: {ends}; not half as far as the "
                f"longest run, which ends at {curves.last_steps.max():,}."
            )
    return notes


def _interpolated(every: Sequence[Curves]) -> list[str]:
    if not (some := [curves for curves in every if curves.interpolated]):
        return []
    return [
        f"**Interpolated** between evaluations, which the seeds had at different steps: "
        f"{_names(some, every)}."
    ]


def _short_runs(every: Sequence[Curves]) -> list[str]:
    notes = []
    for curves in every:
        if short := curves.short_runs:
            ends = ", ".join(f"seed {seed} at {last:,}" for seed, last in short.items())
            notes.append(
                f"**Short runs**, {curves.variant} on {curves.task}: {ends}; the longest ends at "
                f"{curves.last_steps.max():,}. Its statistics stop at {curves.steps[-1]:,}."
            )
    return notes


def _unequal_lengths(of_task: Sequence[Curves]) -> list[str]:
    ends: dict[int, list[str]] = {}
    for curves in of_task:
        ends.setdefault(int(curves.steps[-1]), []).append(curves.variant)
    if len(ends) < 2:
        return []
    text = "; ".join(f"{end:,}: {', '.join(names)}" for end, names in sorted(ends.items()))
    return [
        f"**Unequal lengths** on {of_task[0].task}: do not compare final and best returns, areas "
        f"and wall times taken at different steps ({text}). Figures over all tasks are taken at "
        "the last step which all variants have."
    ]


def _few_seeds(every: Sequence[Curves]) -> list[str]:
    notes = []
    if one := [curves for curves in every if len(curves.seeds) == 1]:
        notes.append(f"**One seed**, so no interval: {_names(one, every)}.")
    if few := [curves for curves in every if 1 < len(curves.seeds) < _FEW_SEEDS]:
        notes.append(
            f"**Fewer than {_FEW_SEEDS} seeds**: {_names(few, every)}. Intervals over so few "
            "are rough, and mostly too narrow."
        )
    return notes


def _late_elections(every: Sequence[Curves]) -> list[str]:
    ensembles = [curves for curves in every if curves.num_members > 1]
    missing = [len(curves.steps) - len(curves.known("elected")[0]) for curves in ensembles]
    if not any(missing):
        return []
    late = [curves for curves, number in zip(ensembles, missing, strict=True) if number]
    return [
        f"**Elected member** not known at the first evaluations (at most {max(missing)}), "
        f"as no member had finished an episode: {_names(late, every)}. Its area is over the rest."
    ]


def _names(some: Sequence[Curves], of_all: Sequence[Curves]) -> str:
    """Names `some` curves by variant, and by task where a variant has others."""
    if len(some) == len(of_all):
        return "all variants"
    names = []
    for variant in dict.fromkeys(curves.variant for curves in some):
        tasks = [curves.task for curves in some if curves.variant == variant]
        every = [curves.task for curves in of_all if curves.variant == variant]
        names.append(variant if tasks == every else f"{variant} on {', '.join(tasks)}")
    return "; ".join(names)
