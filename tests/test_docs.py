"""What README, pages and headers of files tell one to type works: commands, Python, YAML, links."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import points
import pytest
import yaml
from helpers import small_config
from typer.core import TyperCommand

from rllib_cikd.cli.main import main
from rllib_cikd.cli.ray_command import RayCommand
from rllib_cikd.cli.train import _settings
from rllib_cikd.experiments.experiment import load_experiments
from rllib_cikd.experiments.export import export
from rllib_cikd.experiments.packaged import study_file, tuned_example
from rllib_cikd.study.plan import load_study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Pages that tell what was typed in earlier days, with files that may be gone.
HISTORY = ("experiments.md", "election.md", "performance.md")
#: Files whose comments and help texts show commands.
OTHERS = [
    *(ROOT / "tuned_examples").glob("*.yaml"),
    *(ROOT / "studies").glob("*.yaml"),
    *(ROOT / "examples").glob("*.py"),
    *(ROOT / "src" / "rllib_cikd" / "cli").glob("*.py"),
]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXPERIMENT: dict[str, Any] = {
    "run": "CIKD",
    "env": "Pendulum-v1",
    "stop": {"num_env_steps_sampled_lifetime": 100_000},
    "config": {"evaluation_interval": 10},
}


def blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in FENCE.findall(page.read_text()) if name == language]


def shell_lines(page: Path) -> Iterator[str]:
    """Lines of shell in a page's blocks, continued ones as one; `a && b` as two."""
    indented = re.findall(r"^    (\S.*)$", page.read_text(), re.MULTILINE)
    for code in [*blocks(page, "bash"), "\n".join(indented)]:
        for line in code.replace("\\\n", " ").splitlines():
            yield from (piece.strip() for piece in re.split(r"&&|; do|;", line))


def commands() -> list[tuple[str, str]]:
    """Every `rllib …`: the file that has it, and its arguments."""
    found = []
    for page in PAGES:
        lines = [*shell_lines(page), *re.findall(r"`(rllib [^`…]+)`", page.read_text())]
        found += [(page.name, line[6:]) for line in lines if line.startswith("rllib ")]
    for file in OTHERS:
        lines = re.findall(r"^(?:#   |    |  )rllib (.+)$", file.read_text(), re.MULTILINE)
        found += [(file.name, line) for line in lines]
    return sorted(set(found))


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """The folder that pages have in mind: the clone's files, and some of the reader's own."""
    for name in ("tuned_examples", "studies", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({"my": EXPERIMENT}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def parsed(monkeypatch) -> list[tuple[str, dict[str, Any]]]:
    """Commands are not run; here are their names and what was given to them."""
    seen: list[tuple[str, dict[str, Any]]] = []
    for kind in (TyperCommand, RayCommand):
        monkeypatch.setattr(
            kind, "invoke", lambda self, ctx: seen.append((self.name, ctx.params)) or 0
        )
    return seen


def test_there_are_commands():
    assert len(commands()) > 50
    assert {"README.md", "SCALING.md", "cikd-pendulum.yaml", "train.py"} <= {
        f for f, _ in commands()
    }


@pytest.mark.parametrize(("file", "arguments"), commands(), ids=lambda text: text[:60])
def test_a_command_is_one(file, arguments, desk, parsed, capsys):
    if "env=shimmy:" in arguments:  # the extra `dmc`
        pytest.importorskip("shimmy")
    exit_code = main(shlex.split(arguments, comments=True))
    error = capsys.readouterr().err
    if re.search("Missing (argument|command)", error) and file.endswith(".md"):
        return  # prose that names a command, such as `rllib train file`
    assert exit_code == 0, error
    for name, given in parsed:
        if file in HISTORY or "$" in arguments:
            continue
        if name == "run":
            assert study_file(given["file"]).is_file() or given["file"] == "my-study.yaml"
        if name in ("file", "example"):
            path = tuned_example(given["name"]) if name == "example" else given["file"]
            config = {**(given["config"] or {}), **_settings(given["settings"])}
            assert load_experiments(
                path, variant=given["variant"], config=config, stop=given["stop"]
            )


def test_a_wrong_command_would_be_noticed(desk, parsed, capsys):
    assert main(["train", "file", "my.yaml", "--sett", "seed=1"]) != 0
    assert main(["evaluat", "x"]) != 0


@pytest.mark.parametrize(
    "code", [code for page in PAGES for code in blocks(page, "yaml")], ids=lambda code: code[:30]
)
def test_yaml_is_accepted(code, desk):
    content = yaml.safe_load(code)
    if "tuned_examples" in content:
        Path("my-study.yaml").write_text(code)
        assert load_study("my-study.yaml").cells
        return
    if code.startswith("# studies/variants.yaml"):
        assert all(load_experiments("my.yaml", config=settings) for settings in content.values())
        return
    if "run" not in next(iter(content.values())):  # what is to be written into an experiment
        over = {"metric": "training_iteration", "num_samples": 4} if "scheduler" in content else {}
        content = {"mine": EXPERIMENT | over | content}
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    assert load_experiments("mine.yaml")


def test_python_runs(build, tmp_path, monkeypatch):
    """All blocks, page by page, with a checkpoint where they want one."""
    monkeypatch.chdir(tmp_path)
    trained = build(small_config())
    trained.train()
    path = trained.save_to_path(str(tmp_path / "checkpoint"))
    export(path, out="pendulum", num_episodes=1)
    observation = np.zeros(3, np.float32)
    ran = 0
    for page in [page for page in PAGES if list(blocks(page, "python"))]:
        algo = build(small_config(points.Point))  # has `set_difficulty`
        names: dict[str, Any] = {"algo": algo, "path": path, "observation": observation}
        for code in blocks(page, "python"):
            exec(compile(code.replace("/path/to/checkpoint", path), page.name, "exec"), names)
            if names["algo"] is not algo:
                names["algo"].stop()
            ran += 1
        if page.name == "ENVIRONMENTS.md":
            assert algo.env_runner.env.get_attr("difficulty") == (2,)
    assert ran >= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_scripts_are_there(page):
    text = page.read_text()
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", FENCE.sub("", text))
    assert [target for target in targets if not (page.parent / target).exists()] == []
    scripts = [
        word
        for line in shell_lines(page)
        for word in re.findall(r"^(?:python|sh|pytest(?: -m slow)?) ([\w./]+\.(?:py|sh))", line)
    ]
    assert [script for script in scripts if not (ROOT / script).exists()] == []


@pytest.mark.skipif(not importlib.util.find_spec("material"), reason="needs the extra `docs`")
def test_the_site_is_built_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "METRICS" / "index.html").is_file()
