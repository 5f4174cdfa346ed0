"""What a reader must know before trusting a study's figures."""

from __future__ import annotations

from collections.abc import Sequence

from rllib_cikd.report.curves import Curves, Study

_FEW_SEEDS = 5


def caveats(study: Study, variants: Sequence[str]) -> list[str]:
    """Markdown blocks: runs cut short, unequal lengths, few seeds, late elections; maybe none."""
    curves = [
        study.curves[variant, task]
        for variant in variants
        for task in study.tasks
        if (variant, task) in study.curves
    ]
    notes = [*_short_runs(curves), *_unequal_lengths(curves), *_few_seeds(curves)]
    notes += _late_elections(curves)
    return ["\n".join(f"- {note}" for note in notes)] if notes else []


def _short_runs(curves: Sequence[Curves]) -> list[str]:
    notes = []
    for of in curves:
        if of.short_runs:
            ends = ", ".join(f"seed {seed} at {last:,}" for seed, last in of.short_runs.items())
            notes.append(
                f"**Short runs**, {of.variant} on {of.task}: {ends}; the longest ends at "
                f"{of.last_steps.max():,}. Its statistics stop at {of.steps[-1]:,}."
            )
    return notes


def _unequal_lengths(curves: Sequence[Curves]) -> list[str]:
    notes = []
    for task in dict.fromkeys(of.task for of in curves):
        at: dict[int, list[str]] = {}
        for of in curves:
            if of.task == task:
                at.setdefault(int(of.steps[-1]), []).append(of.variant)
        if len(at) > 1:
            text = "; ".join(f"{end:,}: {', '.join(names)}" for end, names in sorted(at.items()))
            notes.append(
                f"**Unequal lengths** on {task}: do not compare final and best returns, areas "
                f"and wall times taken at different steps ({text})."
            )
    return notes


def _few_seeds(curves: Sequence[Curves]) -> list[str]:
    notes = []
    if lone := [of for of in curves if len(of.seeds) == 1]:
        notes.append(f"**One seed**, so no interval: {_names(lone, curves)}.")
    if few := [of for of in curves if 1 < len(of.seeds) < _FEW_SEEDS]:
        notes.append(
            f"**Fewer than {_FEW_SEEDS} seeds**: {_names(few, curves)}. Intervals over so few "
            "are rough, and mostly too narrow."
        )
    return notes


def _late_elections(curves: Sequence[Curves]) -> list[str]:
    missing = {
        (of.variant, of.task): len(of.steps) - len(of.complete("elected")[0])
        for of in curves
        if of.num_members > 1
    }
    late = [of for of in curves if missing.get((of.variant, of.task))]
    if not late:
        return []
    return [
        f"**Elected member** not known at the first evaluations (at most {max(missing.values())}), "
        f"as no member had finished an episode: {_names(late, curves)}. Its area is over the rest."
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
