"""Numbers as people read them."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Returns "3h 42m", "12m 30s" or "45s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {seconds:02d}s" if minutes else f"{seconds}s"
