"""Numbers, durations and tables as text."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any


def format_number(value: Any) -> str:
    """Returns a return or count in few characters: "3,412", "-4.2", "-" for none."""
    number = float(value) if isinstance(value, numbers.Real) else math.nan
    if math.isnan(number):
        return "-"
    return f"{number:,.0f}" if abs(number) >= 100 or number.is_integer() else f"{number:.1f}"


def format_duration(seconds: float) -> str:
    """Returns "3h 42m", "12m 30s" or "45s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {seconds:02d}s" if minutes else f"{seconds}s"


def trial_label(experiment_tag: str) -> str:
    """Returns how lines name one of several trials: "#2 ensemble_size=5"."""
    number, _, settings = str(experiment_tag).partition("_")
    return f"#{number} {settings}".rstrip()


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of cells as lines; the first column is aligned left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
