"""What distillation did: distances before and after, who taught, who surpassed the teacher."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rllib_cikd.report.curves import Study
from rllib_cikd.report.markdown import table
from rllib_cikd.report.phases import Phases
from rllib_cikd.report.statistics import above_teacher, proportions, training_third

THIRDS = ("first third", "middle third", "last third")
#: The paper, section 5.5: how often a student is above its teacher after distillation.
PAPER_ABOVE, PAPER_ABOVE_LATE = 0.23, 0.33


def count_above(runs: Sequence[Phases]) -> np.ndarray:
    """Students above their teacher, and students, by third of training: `[3, 2]`, over runs.

    Thirds are those of each run's own length. Phases without evaluation count for nothing.
    """
    counts = np.zeros((3, 2), dtype=int)
    for run in runs:
        above = above_teacher(run.teachers, run.figures["return_after"])
        third = training_third(run.steps, run.last_step)
        for i in range(3):
            figures = above[third == i]
            counts[i] += int(np.nansum(figures)), int((~np.isnan(figures)).sum())
    return counts


def distillation_section(study: Study, variants: Sequence[str]) -> list[str]:
    """The report's section; Markdown blocks."""
    keys = [(v, t) for v in variants for t in study.tasks if study.phases.get((v, t))]
    if not keys:
        return ["No phases were found (`*phases.csv`)."]
    runs = {key: study.phases[key] for key in keys}
    return [
        "Medians over all students, phases and seeds, just before → just after a phase. "
        "KL is KL(teacher ‖ student); the critic distance is the mean squared difference to the "
        "teacher's critics, summed over the twins.",
        _distances(runs),
        "How often each member was the teacher, over all phases and seeds (member 0 / 1 / …); "
        "*lowest and highest*: the smallest and largest share that any member has in any one run.",
        _teachers(runs),
        *_above(runs),
    ]


def _distances(runs: dict[tuple[str, str], list[Phases]]) -> str:
    rows = []
    for (variant, task), of in runs.items():
        numbers = sorted({len(run.steps) for run in of})
        number = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
        distances = [
            f"{_median(of, f'{name}_before')} → {_median(of, f'{name}_after')}"
            for name in ("kl", "critic_loss")
        ]
        rows.append([variant, task, f"{len(of)}", number, *distances])
    return table(
        ["variant", "task", "seeds", "phases a seed", "KL", "critic distance"], rows, words=2
    )


def _median(runs: Sequence[Phases], name: str) -> str:
    figures = np.concatenate([run.figures[name].ravel() for run in runs])
    known = figures[~np.isnan(figures)]
    return f"{np.median(known):.3g}" if known.size else "–"


def _teachers(runs: dict[tuple[str, str], list[Phases]]) -> str:
    rows = []
    for (variant, task), of in runs.items():
        size = max(run.num_members for run in of)
        pooled = proportions(np.concatenate([run.teachers for run in of]), size)
        each = np.array([proportions(run.teachers, size) for run in of])
        rows.append(
            [
                variant,
                task,
                " / ".join(f"{value:.0%}" for value in pooled),
                f"{each.min():.0%} and {each.max():.0%}",
            ]
        )
    return table(["variant", "task", "teacher's share", "lowest and highest"], rows, words=2)


def _above(runs: dict[tuple[str, str], list[Phases]]) -> list[str]:
    counts = {key: count_above(of) for key, of in runs.items()}
    measured = {key: count for key, count in counts.items() if count[:, 1].any()}
    if not measured:
        return [
            "Students above their teacher: not measured, for no run had `assess_distillation` "
            f"(the paper: {PAPER_ABOVE:.0%} overall, {PAPER_ABOVE_LATE:.0%} late)."
        ]
    rows = [
        [*key, _share(*count.sum(axis=0)), *(_share(*third) for third in count)]
        for key, count in measured.items()
    ]
    rows.append(["*paper*", "", f"{PAPER_ABOVE:.0%}", "–", "–", f"{PAPER_ABOVE_LATE:.0%}"])
    return [
        "Students whose evaluation return just after a phase exceeds their teacher's, of all "
        "students so evaluated, by third of each run's steps.",
        table(["variant", "task", "overall", *THIRDS], rows, words=2),
    ]


def _share(above: int, students: int) -> str:
    return f"{above / students:.0%} ({above} of {students})" if students else "–"
