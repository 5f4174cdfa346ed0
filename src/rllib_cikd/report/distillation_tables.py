"""What distillation did: distances before and after, who taught, who surpassed the teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from rllib_cikd.report.markdown import NONE, table
from rllib_cikd.report.statistics import shares
from rllib_cikd.report.study_data import StudyData

THIRDS = ("first third", "middle third", "last third")
#: The paper, section 5.5: how often a student is above its teacher after distillation.
PAPER_ABOVE, PAPER_ABOVE_LATE = 0.23, 0.33


def ensemble_size(phases: pd.DataFrame) -> int:
    return 1 + int(phases[["index", "teacher"]].max(axis=None))


def teachers(phases: pd.DataFrame) -> pd.DataFrame:
    """One row for each seed and phase, with its teacher."""
    return phases.drop_duplicates(["seed", "phase"])


def count_above(phases: pd.DataFrame) -> np.ndarray:
    """Students above their teacher, and students, by third of training: `[3, 2]`, over seeds.

    Phases without evaluation count for nothing.
    """
    counts = phases.groupby("third")["above"].agg(["sum", "count"])
    return counts.reindex(range(3), fill_value=0).to_numpy(dtype=int)


def distillation_section(data: StudyData, variants: Sequence[str]) -> list[str]:
    """The report's section; Markdown blocks."""
    phases = {
        (v, t): data.phases[v, t] for v in variants for t in data.tasks if (v, t) in data.phases
    }
    if not phases:
        return ["No phases were found (`*phases.csv`)."]

    def rows(cells: Callable[[pd.DataFrame], list[str]]) -> list[list[str]]:
        return [[*key, *cells(of_key)] for key, of_key in phases.items()]

    return [
        "Medians over all students, phases and seeds, just before → just after a phase. "
        "KL is KL(teacher ‖ student); the critic distance is the mean squared difference to the "
        "teacher's critics, summed over the twins.",
        table(
            ["variant", "task", "seeds", "phases a seed", "KL", "critic distance"],
            rows(_distances),
            words=2,
        ),
        "How often each member was the teacher, over all phases and seeds (member 0 / 1 / …); "
        "*lowest and highest*: the smallest and largest share that any member has in any one run.",
        table(["variant", "task", "teacher's share", "lowest and highest"], rows(_shares), words=2),
        *_above({key: count_above(of_key) for key, of_key in phases.items()}),
    ]


def _distances(phases: pd.DataFrame) -> list[str]:
    numbers = phases.groupby("seed")["phase"].nunique()
    low, high = numbers.min(), numbers.max()
    medians = {
        column: NONE if np.isnan(median) else f"{median:.3g}"
        for column, median in phases.filter(regex="_(before|after)$").median().items()
    }
    return [
        f"{len(numbers)}",
        f"{low}" if low == high else f"{low} to {high}",
        *(
            f"{medians[f'{name}_before']} → {medians[f'{name}_after']}"
            for name in ("kl", "critic_loss")
        ),
    ]


def _shares(phases: pd.DataFrame) -> list[str]:
    size, of_phase = ensemble_size(phases), teachers(phases)
    each = np.array([shares(run["teacher"], size) for _, run in of_phase.groupby("seed")])
    pooled = " / ".join(f"{share:.0%}" for share in shares(of_phase["teacher"], size))
    return [pooled, f"{each.min():.0%} and {each.max():.0%}"]


def _above(counts: dict[tuple[str, str], np.ndarray]) -> list[str]:
    rows = [
        [*key, _share(*count.sum(axis=0)), *(_share(*third) for third in count)]
        for key, count in counts.items()
        if count[:, 1].any()
    ]
    if not rows:
        return [
            "Students above their teacher: not measured, for no run had `assess_distillation` "
            f"(the paper: {PAPER_ABOVE:.0%} overall, {PAPER_ABOVE_LATE:.0%} late)."
        ]
    rows.append(["*paper*", "", f"{PAPER_ABOVE:.0%}", NONE, NONE, f"{PAPER_ABOVE_LATE:.0%}"])
    return [
        "Students whose evaluation return just after a phase exceeds their teacher's, of all "
        "students so evaluated, by third of each run's steps.",
        table(["variant", "task", "overall", *THIRDS], rows, words=2),
    ]


def _share(above: int, students: int) -> str:
    return f"{above / students:.0%} ({above} of {students})" if students else NONE
