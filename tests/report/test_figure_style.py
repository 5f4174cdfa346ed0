"""How variants are divided among panels."""

from __future__ import annotations

from rllib_cikd.report.figure_style import groups_of_variants


def test_many_variants_take_several_figures_each_with_the_references():
    few = groups_of_variants(["b", "a", "c"], ["a"])
    assert few == [["a", "b", "c"]]
    many = groups_of_variants([*"abcdefgh"], ["c", "a"])
    assert many == [["c", "a", "b", "d"], ["c", "a", "e", "f"], ["c", "a", "g", "h"]]
