"""Every figure of a report: what it shows, its place in the paper, its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from rllib_cikd.report import drawing, teacher_figures
from rllib_cikd.report import learning_curves as figures
from rllib_cikd.report.curves import Study

_NO_PHASES = "there are no phases"
_NO_LONE_AGENTS = "no variant with one member has two seeds or more"


@dataclass(frozen=True)
class Sheets:
    """One figure of the report, on as many sheets as it takes.

    Attributes:
        name: Of its files; several sheets are numbered.
        title: Its heading.
        text: What it shows, and which of the paper's figures it corresponds to.
        without: Why there may be none.
        sheets: Empty if there is no data.
    """

    name: str
    title: str
    text: str
    without: str
    sheets: Sequence[Figure]


def save_figures(
    study: Study, variants: Sequence[str], references: Sequence[str], folder: Path
) -> list[str]:
    """Saves all figures there is data for, as PNG and SVG.

    Args:
        study: What to draw.
        variants: In this order.
        references: Those of them that stand beside the others, where it takes several sheets.
        folder: Where the files go; it lies beside the page that shows them.

    Returns:
        Markdown blocks: the figures, and which are left out.
    """
    blocks, left_out = [], []
    for figure in [
        *_learning_curves(study, variants, references),
        *_teachers(study, variants, references),
        *_best_seeds(study, variants),
    ]:
        if not figure.sheets:
            left_out.append(f"- {figure.title}: {figure.without}.")
            continue
        blocks += [f"### {figure.title}", figure.text]
        for number, sheet in enumerate(figure.sheets, start=1):
            name = f"{figure.name}-{number}" if len(figure.sheets) > 1 else figure.name
            drawing.save(sheet, folder, name)
            blocks.append(f"![{figure.title}]({folder.name}/{name}.png)")
    if left_out:
        blocks += ["### Left out, for want of data", "\n".join(left_out)]
    return blocks


def _learning_curves(
    study: Study, variants: Sequence[str], references: Sequence[str]
) -> list[Sheets]:
    best = figures.learning_curves(study, variants, figures.BEST_AND_WORST, references)
    mean = figures.learning_curves(study, variants, figures.MEAN_AND_ELECTED, references)
    return [
        Sheets(
            "learning-curves",
            "Learning curves, best and worst member",
            "Mean over seeds. The paper's Figures 2, 3a, 3b, 4, 5d, 6, 7 and 8 are such curves, "
            "each of other variants.",
            "there are no evaluations",
            best,
        ),
        Sheets(
            "learning-curves-mean",
            "Learning curves, mean and elected member",
            "Mean over seeds. The paper has no such figure; these compare fairly with a lone "
            "agent. The band is the mean member's.",
            "there are no evaluations",
            mean,
        ),
    ]


def _teachers(study: Study, variants: Sequence[str], references: Sequence[str]) -> list[Sheets]:
    teachers = teacher_figures.teachers(study, variants)
    return [
        Sheets(
            "teachers",
            "The teacher of every phase",
            "The paper's Figure 5a.",
            _NO_PHASES,
            teacher_figures.timelines(teachers),
        ),
        Sheets(
            "teacher-proportions",
            "How often each member was the teacher",
            "The paper's Figure 5b.",
            _NO_PHASES,
            teacher_figures.bars(teachers),
        ),
        Sheets(
            "students-above-teacher",
            "Students above their teacher",
            "The paper's Figure 5c: evaluation returns just after a phase, all seeds together.",
            "no run evaluated its members around its phases (`assess_distillation`)",
            teacher_figures.students_above_teacher(study, variants, references),
        ),
    ]


def _best_seeds(study: Study, variants: Sequence[str]) -> list[Sheets]:
    seeds = teacher_figures.best_seeds(study, variants)
    return [
        Sheets(
            "best-seed",
            "The best of independent lone agents",
            "Which seed has the highest return at each evaluation; the paper's Figure 9.",
            _NO_LONE_AGENTS,
            teacher_figures.timelines(seeds),
        ),
        Sheets(
            "best-seed-proportions",
            "How often each lone agent was the best",
            "The paper's Figure 9.",
            _NO_LONE_AGENTS,
            teacher_figures.bars(seeds),
        ),
    ]
