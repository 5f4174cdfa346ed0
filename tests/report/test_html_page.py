"""`report.html`: what it holds, that it is whole in itself, and that nothing in it is executed."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_examples import CIKD, EVALUATIONS, LONE, write_csv

from rllib_cikd.report.html_page import inline_svg
from rllib_cikd.report.page import write_report

#: Elements that have no end.
VOID = {"meta", "br", "hr", "img", "link", "input", "col"}
#: Attributes with which a page loads something; of `a`, `href` only leads there.
LOADING = {"src", "srcset", "href", "xlink:href", "data", "poster", "action"}


class Page(HTMLParser):
    """A page's elements, its text, and whatever is wrong with its structure."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        self.faults += [f"<{tag}> has no end" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._read(tag, attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self._read(tag, attrs)

    def _read(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in LOADING:
                (self.links if tag == "a" else self.loaded).append(value)
            elif name.startswith("on"):
                self.faults.append(f"{tag} {name}")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> ends nothing")

    def handle_data(self, data):
        self.text.append(data)
        if self.open and "table" in self.open and {"td", "th"} & {*self.open}:
            self.rows[-1][-1] += data


@pytest.fixture
def no_figures(monkeypatch) -> None:
    monkeypatch.setattr("rllib_cikd.report.figures.save_figures", lambda *_: [])


def test_the_page_is_whole_and_needs_nothing_else(folder: Path):
    path = write_report(folder)
    html = path.read_text()
    page = Page(html)
    assert page.faults == []
    figures = [*path.parent.glob("figures/*.svg")]
    assert page.tags.count("svg") == len(figures) == 10
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert "link" not in page.tags
    # Parts of figures refer to others of the same page; nothing is loaded.
    assert page.loaded
    assert {value[0] for value in page.loaded} == {"#"}
    assert {value[1:] for value in page.loaded} <= {*page.ids}
    assert set(re.findall(r"url\(([^)]*)\)", html)) <= {f"#{i}" for i in page.ids}
    assert len({*page.ids}) == len(page.ids)
    assert "@import" not in html
    for link in page.links:
        assert (link[0] == "#" and link[1:] in page.ids) or (path.parent / link).is_file(), link


def test_the_difference_to_the_baseline_comes_first(folder: Path, no_figures):
    """Seed 0: mean member 30 less 20; seed 1: 40 less 40."""
    page = Page(write_report(folder).read_text())
    text = " ".join("".join(page.text).split())
    headline = (
        "T-v0: cikd minus vanilla-sac: +5.00 [0.00 to 10.00] in mean final return at step 30; "
        "ahead in 1 of 2 pairs of the same seed."
    )
    assert headline in text
    assert text.index(headline) < text.index("Figures are means over seeds")
    # Elected: 20 less 20, 60 less 40.
    row = ["T-v0", "cikd", "+5.00 [0.00 to 10.00]", "+10.00 [0.00 to 20.00]", "1 of 2", "30"]
    assert row in page.rows


def test_one_variant_is_compared_with_nothing(tmp_path: Path, no_figures):
    write_csv(tmp_path / "evaluations.csv", EVALUATIONS, CIKD[0])
    page = Page(write_report(tmp_path).read_text())
    text = " ".join("".join(page.text).split())
    assert "T-v0: final return at step 30: mean member 30.00, elected member 20.00." in text
    assert "minus" not in text
    assert "Against" not in text
    assert "Steps to reach" not in text.split("How to read it")[1].split("Figures are")[0]
    assert page.rows.count(["cikd", "30.00", "20.00", "40.00", "20.00", "30", "1", "5m 00s"]) == 1


def test_what_files_say_is_text(tmp_path: Path):
    """Names of variants and tasks stand in tables, paragraphs, titles and figures."""
    evil = '<script>alert("1")</script>'
    link = "[a](javascript:alert(1))|`b"
    rows = [
        [evil if value == "cikd" else link if value == "vanilla-sac" else value for value in row]
        for row in [*CIKD[0], *LONE[0]]
    ]
    write_csv(tmp_path / "evaluations.csv", EVALUATIONS, rows)
    html = write_report(tmp_path, title=evil, provenance=[f"Command: `{evil}`"]).read_text()
    page = Page(html)
    assert page.faults == []
    assert "script" not in page.tags
    assert not [found for found in page.links if "javascript" in found]
    assert "".join(page.text).count(evil) > 5
    assert any(row[1:2] == [evil] for row in page.rows)
    assert any(row[0] == link for row in page.rows if row)


def test_provenance_stands_in_a_box(folder: Path, no_figures):
    html = write_report(folder, provenance=["Seeds: 0, 1."]).read_text()
    (box,) = re.findall(r'<section id="[^"]+" class="box">(.*?)</section>', html, re.DOTALL)
    assert "<h2>Provenance</h2>" in box
    assert "Seeds: 0, 1." in box
    assert "Provenance" not in write_report(folder).read_text()


def test_ids_of_figures_are_told_apart():
    svg = (
        '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="72pt" '
        'viewBox="0 0 120 60"><metadata><a href="http://x"/></metadata>'
        '<path id="p"/><use xlink:href="#p" clip-path="url(#p)"/></svg>'
    )
    found = inline_svg(svg, 'a "title"', "f1")
    assert '<path id="f1-p"/><use xlink:href="#f1-p" clip-path="url(#f1-p)"/></svg>' in found
    assert "http" not in found
    assert 'aria-label="a &quot;title&quot;"' in found
    assert "max-width: 12.0rem; min-width: 7.8rem" in found


def test_films_are_in_the_page_itself(folder: Path, tmp_path: Path, no_figures):
    films = [tmp_path / "my <b> [1].mp4", tmp_path / "e.webm"]
    for film in films:
        film.write_bytes(film.suffix.encode())
    path = write_report(folder, tmp_path / "out", films=films)
    page = Page(path.read_text())
    assert page.faults == []
    assert page.tags.count("video") == 2
    one, two = (base64.b64encode(content).decode() for content in (b".mp4", b".webm"))
    assert page.loaded == [f"data:video/mp4;base64,{one}", f"data:video/webm;base64,{two}"]
    assert "my <b> (1)" in "".join(page.text)
    assert "![e](films/film-2.webm)" in (path.parent / "report.md").read_text()
    assert (path.parent / "films" / "film-2.webm").read_bytes() == b".webm"
