"""Numbers and tables as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rllib_cikd.report.statistics import Interval

NONE = "–"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Returns a table; its first `words` columns are aligned left, the others right."""
    lines = [header, ["---"] * words + ["---:"] * (len(header) - words), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """The text on one line, and without the mark that ends a cell."""
    return " ".join(text.splitlines()).replace("|", r"\|")


def digits_for(largest: float) -> int:
    """Returns how many decimals tell apart returns of about this magnitude."""
    return 0 if largest >= 1_000 else 1 if largest >= 100 else 2


def number(value: float, digits: int) -> str:
    """Returns "3,412", "-4.21", or a dash for NaN."""
    return NONE if math.isnan(value) else f"{value:,.{digits}f}"


def interval(figures: Interval, digits: int) -> str:
    """Returns "3,412 [3,101 to 3,733]", or only the mean where there is no interval."""
    mean = number(float(figures.mean), digits)
    if math.isnan(figures.low):
        return mean
    return f"{mean} [{number(float(figures.low), digits)} to {number(float(figures.high), digits)}]"
