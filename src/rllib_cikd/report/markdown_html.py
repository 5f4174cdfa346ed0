"""The report's Markdown as HTML: the few forms that it has, everything in it escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence

_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)]*)\)")
_CELL_END = re.compile(r"(?<!\\)\|")
# Of escaped text. Links go to the report's own tables or over https, nowhere else.
_INLINE = (
    (re.compile(r"\[([^\]]+)\]\((https://[^)\s]+|[\w-]+\.csv)\)"), r'<a href="\2">\1</a>'),
    (re.compile(r"\*\*([^*]+)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"\*([^*]+)\*"), r"<em>\1</em>"),
)


def to_html(blocks: Sequence[str], figure: Callable[[str, str], str]) -> str:
    """Returns Markdown blocks as HTML.

    Args:
        blocks: Headings, lists, tables, images or paragraphs, one each.
        figure: Gives the HTML of an image, from its path and its title.
    """
    return "\n".join(_block(block, figure) for block in blocks)


def inline(text: str) -> str:
    """Returns a line of text as HTML; what is between backticks stays as it is."""
    parts = html.escape(text).split("`")
    if len(parts) % 2 == 0:  # a backtick without its other
        parts[-2:] = ["`".join(parts[-2:])]
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"<code>{part}</code>"
            continue
        for pattern, replacement in _INLINE:
            part = pattern.sub(replacement, part)
        parts[i] = part
    return "".join(parts)


def _block(block: str, figure: Callable[[str, str], str]) -> str:
    if image := _IMAGE.fullmatch(block):
        title, path = image.groups()
        return figure(path, title)
    if heading := re.fullmatch(r"(#+) (.+)", block):
        level = len(heading.group(1))
        return f"<h{level}>{inline(heading.group(2))}</h{level}>"
    lines = block.split("\n")
    if block.startswith("| "):
        return _table(lines)
    if all(line.startswith("- ") for line in lines):
        items = "\n".join(f"<li>{inline(line[2:])}</li>" for line in lines)
        return f"<ul>\n{items}\n</ul>"
    return f"<p>{inline(block)}</p>"


def _table(lines: Sequence[str]) -> str:
    header, rule, *rows = (
        [cell.strip().replace(r"\|", "|") for cell in _CELL_END.split(line[1:-1])] for line in lines
    )
    words = sum(cell == "---" for cell in rule)

    def row(cells: Sequence[str], tag: str) -> str:
        starts = ("" if i < words else ' class="number"' for i in range(len(cells)))
        return "".join(
            f"<{tag}{start}>{inline(cell)}</{tag}>"
            for start, cell in zip(starts, cells, strict=True)
        )

    body = "\n".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return (
        '<div class="wide"><table>\n'
        f"<thead><tr>{row(header, 'th')}</tr></thead>\n<tbody>\n{body}\n</tbody>\n"
        "</table></div>"
    )
