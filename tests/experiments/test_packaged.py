"""Tuned examples, variants and studies come with the package, wherever it is installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments import packaged
from rllib_cikd.experiments.variants import load_variant
from rllib_cikd.study.plan import load_study

ROOT = Path(__file__).parents[2]


def test_every_file_of_the_clone_is_there():
    for folder in (packaged.TUNED_EXAMPLES, packaged.STUDIES):
        names = [path.stem for path in sorted((ROOT / folder).glob("*.yaml"))]
        assert list(packaged.packaged_names(folder)) == names
        assert names


def test_a_mistyped_example_gets_a_suggestion():
    assert packaged.tuned_example("cikd-hopper").read_text().startswith("#")
    with pytest.raises(CommandError, match=r"'cikd-hoper' is no tuned example\..*'cikd-hopper'"):
        packaged.tuned_example("cikd-hoper")


def test_variants_and_studies_need_no_clone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_variant("ensemble-sac", tmp_path / "my.yaml") == {"knowledge_sharing": "none"}
    assert load_study("quick").name == "quick"
    own = tmp_path / "my.yaml"
    own.write_text("{tuned_examples: [cikd-hopper], variants: [cikd], seeds: [0], steps: 1000}")
    assert load_study(own).cells[0].task == "Hopper-v5"
    # The user's own come first.
    own.rename(tmp_path / "quick")
    assert load_study("quick").cells[0].task == "Hopper-v5"


def test_a_wheel_has_them(tmp_path):
    """Built without isolation and without compiling, into a folder of its own."""
    code = (
        "import setuptools.build_meta as b; from setuptools.command import build_ext as e;"
        "e.build_ext.run = lambda self: None;"
        f"print(b.build_wheel({str(tmp_path)!r}))"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for folder in (packaged.TUNED_EXAMPLES, packaged.STUDIES):
        for name in packaged.packaged_names(folder):
            assert f"rllib_cikd/files/{folder}/{name}.yaml" in names
    assert not [n for n in names if n.endswith((".cpp", ".h"))], "sources are not needed"
