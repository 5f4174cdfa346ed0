"""Markdown as the report has it becomes HTML."""

import pytest

from rllib_cikd.report.markdown import table
from rllib_cikd.report.markdown_html import inline, to_html


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**a** and *b*", "<strong>a</strong> and <em>b</em>"),
        ("`**a** <b>`", "<code>**a** &lt;b&gt;</code>"),
        ("a ` b", "a ` b"),
        ("`a` ` b", "<code>a</code> ` b"),
        ("[x](evaluations.csv)", '<a href="evaluations.csv">x</a>'),
        ("[x](https://a.org/b)", '<a href="https://a.org/b">x</a>'),
        ("[x](javascript:f)", "[x](javascript:f)"),
        ("[x](http://a.org)", "[x](http://a.org)"),
        ('[x](https://a"onclick=f)', '<a href="https://a&quot;onclick=f">x</a>'),
        ("a < b & c", "a &lt; b &amp; c"),
    ],
)
def test_inline(text, expected):
    assert inline(text) == expected


def test_blocks():
    blocks = ["### T", "- a\n- *b*", "text", "![A figure](figures/a.png)"]
    assert to_html(blocks, lambda path, title: f"[{title}: {path}]").splitlines() == [
        *("<h3>T</h3>", "<ul>", "<li>a</li>", "<li><em>b</em></li>", "</ul>", "<p>text</p>"),
        "[A figure: figures/a.png]",
    ]


def test_a_table_keeps_cells_apart():
    html = to_html([table(["name", "n"], [["a|b\nc", "1"]])], lambda *_: "")
    assert '<tr><td>a|b c</td><td class="number">1</td></tr>' in html
    assert '<tr><th>name</th><th class="number">n</th></tr>' in html
