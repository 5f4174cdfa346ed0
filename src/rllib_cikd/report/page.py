"""A report: a page of tables and figures from a study's or a run's CSVs, in HTML and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rllib_cikd.common.errors import CommandError, did_you_mean
from rllib_cikd.report.caveats import caveats
from rllib_cikd.report.differences import differences_section, headline
from rllib_cikd.report.distillation_tables import distillation_section
from rllib_cikd.report.films import film_blocks
from rllib_cikd.report.raw_csv import EVALUATIONS, PHASES, write_rows
from rllib_cikd.report.return_tables import all_tasks_section, seeds_table, task_section
from rllib_cikd.report.speed_tables import speed_section
from rllib_cikd.report.statistics_csv import write_statistics
from rllib_cikd.report.study_data import StudyData, read_study_data

_BASELINE = "vanilla-sac"
_METHOD = "cikd"
_PROVENANCE = "Provenance"
#: What reports are made with, and the package does without otherwise.
_NEEDED = ("matplotlib", "jinja2")


def write_report(
    folder: Path,
    out: Path | None = None,
    baseline: str | None = None,
    *,
    preferred: str | None = None,
    title: str | None = None,
    provenance: Sequence[str] = (),
    films: Sequence[Path] = (),
) -> Path:
    """Writes report.html, report.md, figures, statistics.csv, evaluations.csv and phases.csv.

    The last two have all rows of all CSVs found.

    Args:
        folder: Holds `*evaluations.csv` and `*phases.csv`, at any depth.
        out: Where to write; None: `folder`/report. Files that are there already are not read.
        baseline: The variant to compare with; None: `preferred` if it has been evaluated, else
            vanilla-sac, or else the first one found.
        preferred: A baseline that may be without a figure yet.
        title: Of the page; None: a study's, named after the folder.
        provenance: Markdown blocks: how the runs were made.
        films: To be shown (see `find_films`); they are copied to `out`.

    Returns:
        The path of report.html.

    Raises:
        CommandError: If there is nothing to report on, a file cannot be used, there is no such
            baseline, or what a report is made with is missing.
    """
    try:
        from rllib_cikd.report.figures import save_figures
        from rllib_cikd.report.html_page import html_page
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _NEEDED:
            raise
        raise CommandError(f"a report needs {missing}; pip install 'rllib-cikd[study]'") from error
    out = out or folder / "report"
    data = read_study_data(folder, without=[out, folder / "report"])
    baseline = _baseline(data, baseline, preferred)
    references = [v for v in dict.fromkeys([baseline, _METHOD]) if v in data.variants]
    variants = [*references, *(v for v in data.variants if v not in references)]
    (out / "figures").mkdir(parents=True, exist_ok=True)
    write_rows(out / "evaluations.csv", data.evaluation_rows, EVALUATIONS)
    write_rows(out / "phases.csv", data.phase_rows, PHASES)
    write_statistics(out / "statistics.csv", data, variants, baseline)
    title = title or f"Study report: {folder.resolve().name}"
    introduction = [_introduction(data, variants), *caveats(data, variants)]
    lead = headline(data, variants, baseline, _METHOD if _METHOD in variants else baseline)
    sections = _sections(data, variants, save_figures(data, variants, references, out / "figures"))
    if films:
        sections["Films"] = film_blocks(films, out)
    if provenance:
        sections[_PROVENANCE] = [*provenance]
    blocks = [f"# {title}", *lead, *introduction]
    for name, of_section in sections.items():
        blocks += [f"## {name}", *of_section]
    (out / "report.md").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    page = html_page(title, lead, introduction, sections, out, boxed=_PROVENANCE)
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _baseline(data: StudyData, wanted: str | None, preferred: str | None) -> str:
    if wanted is None:
        return next((v for v in (preferred, _BASELINE) if v in data.variants), data.variants[0])
    if wanted not in data.variants:
        raise CommandError(
            f"no variant {wanted!r} to be the baseline.{did_you_mean(wanted, data.variants)} "
            f"There are {', '.join(data.variants)}."
        )
    return wanted


def _introduction(data: StudyData, variants: Sequence[str]) -> str:
    if len(variants) > 1:
        what = f"Variants: {', '.join(variants)}; baseline: **{variants[0]}**. "
    else:
        what = ""
    return (
        f"{what}Tasks: {', '.join(data.tasks)}. All numbers come from "
        "[evaluations.csv](evaluations.csv) and [phases.csv](phases.csv); means and intervals "
        "are in [statistics.csv](statistics.csv), too."
    )


def _sections(data: StudyData, variants: Sequence[str], figures: list[str]) -> dict[str, list[str]]:
    """Markdown blocks by heading; `variants`: the baseline first."""
    baseline = variants[0]
    sections = {f"Against {baseline}": differences_section(data, variants, baseline)}
    sections["Figures"] = figures
    sections |= {task: task_section(data, task, variants, baseline) for task in data.tasks}
    if len(data.tasks) > 1:
        of_all = all_tasks_section(data, variants, baseline)
        sections["All tasks"] = [_ALL_TASKS.format(baseline=baseline), *of_all]
    sections["Distillation"] = distillation_section(data, variants)
    sections["Speed"] = speed_section(data, variants)
    if any(len(curves.seeds) > 1 for curves in data.curves.values()):
        sections["Every seed"] = ["Final returns:", seeds_table(data, variants)]
    sections["How to read it"] = [*_METHODS]
    return {name: blocks for name, blocks in sections.items() if blocks}


_METHODS = (
    "A return is the mean over the deterministic episodes of one evaluation (20, unless the "
    "experiment says otherwise). The *mean member* averages over an ensemble's members; the "
    "*elected member* is the one with the highest training returns R_k, chosen without looking "
    "at the evaluation. *Best* and *worst* are picked by the evaluation itself: the best of "
    "several noisy members flatters an ensemble, so compare mean or elected with a lone agent. "
    "`=`: a lone agent is its own mean, best and worst.",
    "Figures are means over seeds with 95% bootstrap intervals over seeds (BCa), in brackets, at "
    "the evaluation steps which all seeds of a variant have. The best return is each seed's own "
    "maximum, which grows with noise and with the number of evaluations. Steps to reach a "
    "return: the first evaluation at which the mean over seeds is at least that high. Wall time "
    "is training and evaluation up to the step of the final return.",
)
_ALL_TASKS = (
    "Interquartile mean of normalised final returns over tasks × seeds, with a 95% stratified "
    "bootstrap interval (the seeds of each task are resampled by themselves; "
    "[Agarwal et al., 2021](https://arxiv.org/abs/2108.13264)). A final return x counts "
    "(x − x₀) / (b − x₀), where x₀ is the mean return of {baseline} at its first evaluation of the "
    "task and b that at the last step which all variants have, where x is taken as well: 0 is its "
    "start, 1 its end."
)
