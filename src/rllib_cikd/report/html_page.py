"""`report.html`: the whole report in one file, which needs no other and no network."""

from __future__ import annotations

import base64
import html
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from rllib_cikd.report.films import MEDIA_TYPES
from rllib_cikd.report.markdown_html import to_html

_TEMPLATE = "page.html"
_POINTS_IN_A_REM = 10
# Below this the letters of a figure cannot be read; it scrolls sideways instead.
_SMALLEST = 0.65


def html_page(
    title: str,
    headline: Sequence[str],
    introduction: Sequence[str],
    sections: Mapping[str, Sequence[str]],
    folder: Path,
    boxed: str = "",
) -> str:
    """Returns the page.

    Args:
        title: Of the page.
        headline, introduction: What comes first; Markdown blocks.
        sections: Markdown blocks by heading.
        folder: Where the paths of images and films are seen from. Of each PNG there is an SVG.
        boxed: The heading that stands in a box.
    """
    figure = _figures(folder)

    def body(blocks: Sequence[str]) -> Markup:
        return Markup(to_html(blocks, figure))  # escaped there

    shown: list[dict[str, Any]] = [
        {"title": name, "id": f"section-{i}", "body": body(blocks), "boxed": name == boxed}
        for i, (name, blocks) in enumerate(sections.items(), start=1)
    ]
    template = jinja2.Environment(
        autoescape=True, trim_blocks=True, keep_trailing_newline=True
    ).from_string(resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        title=title,
        headline=body(headline),
        introduction=body(introduction),
        sections=shown,
    )


def _figures(folder: Path) -> Callable[[str, str], str]:
    """A function that gives the HTML of a figure or a film, from its path and title."""
    numbers = itertools.count(1)

    def figure(path: str, title: str) -> str:
        if (folder / path).suffix.lower() in MEDIA_TYPES:
            return f"<figure>\n{inline_film(folder / path, title)}\n</figure>"
        svg = (folder / path).with_suffix(".svg").read_text(encoding="utf-8")
        return f"<figure>\n{inline_svg(svg, title, f'figure-{next(numbers)}')}\n</figure>"

    return figure


def inline_film(path: Path, title: str) -> str:
    """A film as a part of a page, with its name below it."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    source = f"data:{MEDIA_TYPES[path.suffix.lower()]};base64,{data}"
    label = html.escape(title)
    return (
        f'<video controls preload="metadata" aria-label="{label}" src="{source}"></video>\n'
        f"<figcaption>{label}</figcaption>"
    )


def inline_svg(svg: str, title: str, name: str) -> str:
    """An SVG of matplotlib's as a part of a page.

    Args:
        svg: The file.
        title: What is read out in its place.
        name: No other part of the page has it; the ids of the figure are put behind it.
    """
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    head, rest = svg.split(">", 1)
    view = re.search(r'viewBox="([^"]+)"', head)
    assert view is not None
    width = float(view.group(1).split()[2])
    look = (
        f"max-width: {width / _POINTS_IN_A_REM:.1f}rem; "
        f"min-width: {_SMALLEST * width / _POINTS_IN_A_REM:.1f}rem"
    )
    label = html.escape(title)
    return f'<svg viewBox="{view.group(1)}" role="img" aria-label="{label}" style="{look}">{rest}'
