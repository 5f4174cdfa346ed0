"""Every figure of a report: what it shows, its place in the paper, its files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from rllib_cikd.report import figure_style
from rllib_cikd.report.learning_curve_figures import (
    BEST_AND_WORST,
    GRADIENT_STEPS,
    MEAN_AND_ELECTED,
    WALL_TIME,
    learning_curves,
)
from rllib_cikd.report.member_figures import distances, member_curves
from rllib_cikd.report.study_data import StudyData
from rllib_cikd.report.teacher_figures import (
    best_seed_timelines,
    draw_shares,
    draw_timelines,
    students_above_teacher,
    teacher_timelines,
)


@dataclass(frozen=True)
class ReportFigure:
    """One figure of the report, of as many parts as it takes.

    Attributes:
        name: Of its files; several parts are numbered.
        title: Its heading.
        text: What it shows, and which of the paper's figures it corresponds to.
        missing: Why there may be none; empty if nobody will look for it.
        parts: Empty if there is no data.
    """

    name: str
    title: str
    text: str
    missing: str
    parts: Sequence[Figure]


def save_figures(
    data: StudyData, variants: Sequence[str], references: Sequence[str], folder: Path
) -> list[str]:
    """Saves all figures there is data for, as PNG, SVG and PDF.

    Args:
        data: What to draw.
        variants: In this order.
        references: Those of them that stand beside the others, where a figure has several parts.
        folder: Where the files go; it lies beside the page that shows them.

    Returns:
        Markdown blocks: the figures, and which are left out.
    """
    blocks, left_out = [], []
    for figure in _figures(data, variants, references):
        if not figure.parts:
            if figure.missing:
                left_out.append(f"- {figure.title}: {figure.missing}.")
            continue
        blocks += [f"### {figure.title}", figure.text]
        for number, part in enumerate(figure.parts, start=1):
            name = f"{figure.name}-{number}" if len(figure.parts) > 1 else figure.name
            figure_style.save(part, folder, name)
            blocks.append(f"![{figure.title}]({folder.name}/{name}.png)")
    if left_out:
        blocks += ["### Left out, for want of data", "\n".join(left_out)]
    return blocks


def _figures(
    data: StudyData, variants: Sequence[str], references: Sequence[str]
) -> Iterator[ReportFigure]:
    no_phases = "there are no phases"
    lone_agents = any(curves.num_members == 1 for curves in data.curves.values())
    no_lone_agents = "no variant with one member has two seeds or more" if lone_agents else ""
    teachers = teacher_timelines(data, variants)
    best_seeds = best_seed_timelines(data, variants)
    yield ReportFigure(
        "learning-curves",
        "Learning curves, best and worst member",
        "Mean over seeds. The paper's Figures 2, 3a, 3b, 4, 5d, 6, 7 and 8 are such curves, "
        "each of other variants.",
        "there are no evaluations",
        learning_curves(data, variants, BEST_AND_WORST, references),
    )
    yield ReportFigure(
        "learning-curves-mean",
        "Learning curves, mean and elected member",
        "Mean over seeds. The paper has no such figure; these compare fairly with a lone "
        "agent. The band is the mean member's.",
        "there are no evaluations",
        learning_curves(data, variants, MEAN_AND_ELECTED, references),
    )
    yield ReportFigure(
        "learning-curves-wall-time",
        "Learning curves against wall time",
        "As above, each evaluation at the mean wall time of its seeds. The paper has no such "
        "figure; it compares runs on one machine alone.",
        "there are no evaluations",
        learning_curves(data, variants, MEAN_AND_ELECTED, references, WALL_TIME),
    )
    yield ReportFigure(
        "learning-curves-updates",
        "Learning curves against gradient steps",
        "As above, each evaluation at the mean number of gradient steps of its seeds. The paper "
        "has no such figure.",
        "no run tells its gradient steps",
        learning_curves(data, variants, MEAN_AND_ELECTED, references, GRADIENT_STEPS),
    )
    yield ReportFigure(
        "members",
        "Every member",
        "Evaluation returns of each member of every ensemble, a panel for each run. The paper has "
        "no such figure.",
        "",
        member_curves(data, variants),
    )
    yield ReportFigure(
        "teachers",
        "The teacher of every phase",
        "The paper's Figure 5a.",
        no_phases,
        draw_timelines(teachers),
    )
    yield ReportFigure(
        "teacher-proportions",
        "How often each member was the teacher",
        "The paper's Figure 5b.",
        no_phases,
        draw_shares(teachers),
    )
    yield ReportFigure(
        "distances",
        "Distance to the teacher",
        "KL(teacher ‖ student) just before and just after each phase: medians over students and "
        "seeds. The paper has no such figure.",
        "no phase measured it" if data.phases else no_phases,
        distances(data, variants),
    )
    yield ReportFigure(
        "students-above-teacher",
        "Students above their teacher",
        "The paper's Figure 5c: evaluation returns just after a phase, all seeds together.",
        "no run evaluated its members around its phases (`assess_distillation`)",
        students_above_teacher(data, variants, references),
    )
    yield ReportFigure(
        "best-seed",
        "The best of independent lone agents",
        "Which seed has the highest return at each evaluation; the paper's Figure 9.",
        no_lone_agents,
        draw_timelines(best_seeds),
    )
    yield ReportFigure(
        "best-seed-proportions",
        "How often each lone agent was the best",
        "The paper's Figure 9.",
        no_lone_agents,
        draw_shares(best_seeds),
    )
