"""The rooms of the package have a direction: imports go downwards only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "rllib_cikd"

#: Each room, and the rooms below it that it may import.
MAY_IMPORT = {
    "common": [],
    "engine": ["common"],
    "algorithm": ["common", "engine"],
    "rllib": ["common", "engine", "algorithm"],
    "config": ["common", "engine", "algorithm", "rllib"],
    "cikd": ["common", "engine", "algorithm", "rllib", "config"],
    "report": ["common"],
    "experiments": ["common", "engine", "algorithm", "rllib", "config", "cikd"],
    "study": ["common", "engine", "algorithm", "rllib", "config", "cikd", "experiments", "report"],
    "cli": ["common", "rllib", "config", "cikd", "experiments", "report", "study"],
}
WITHOUT_RAY = ("common", "engine", "algorithm", "report")


def sources() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p.parent != PACKAGE or _room(p)]


def _room(path: Path) -> str | None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return room if room in MAY_IMPORT else None


def imports(code: str) -> Iterator[str]:
    """Names of the modules that code imports, at any depth, also those for type checkers."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            # `from rllib_cikd.engine import perceptrons` names a module, `… import CIKD` a class.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward(room: str, code: str) -> list[str]:
    """Imports of this package that a room must not have."""
    wrong = []
    for name in imports(code):
        parts = name.split(".")
        if parts[0] == "rllib_cikd":
            # What the package itself hands on comes from `cikd` and `config`.
            target = parts[1] if parts[1] in MAY_IMPORT else "cikd"
            if target != room and target not in MAY_IMPORT[room]:
                wrong.append(name)
        elif parts[0] == "ray" and room in WITHOUT_RAY:
            wrong.append(name)
    return wrong


def test_every_file_is_in_a_room():
    face = {"__init__.py", "__main__.py"}
    homeless = [p for p in PACKAGE.glob("*.py") if _room(p) is None and p.name not in face]
    folders = [p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()]
    assert homeless == []
    assert set(folders) <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards_only(path):
    room = _room(path)
    assert room is not None
    assert upward(room, path.read_text()) == []


@pytest.mark.parametrize(
    ("room", "code"),
    [
        ("algorithm", "from rllib_cikd.rllib.sac_module import SACModule"),
        ("algorithm", "from rllib_cikd import CIKD"),
        ("engine", "def f():\n    from rllib_cikd.algorithm import losses"),
        ("config", "import rllib_cikd.cikd"),
        ("report", "from rllib_cikd.experiments.progress import format_number"),
        ("experiments", "from rllib_cikd.study import plan"),
        ("algorithm", "import ray"),
    ],
)
def test_an_import_turned_around_is_noticed(room, code):
    assert upward(room, code) != []


def test_the_rule_itself_has_no_circle():
    for room, below in MAY_IMPORT.items():
        for other in below:
            assert room not in MAY_IMPORT[other]


def test_no_circle_within_a_room():
    """Between files of one room the rule says nothing, so this does."""
    modules = {
        ".".join(("rllib_cikd", *p.relative_to(PACKAGE).with_suffix("").parts)): p
        for p in sources()
    }
    graph = {
        name: {
            target
            for imported in imports(path.read_text())
            for target in (imported, imported.rpartition(".")[0])
            if target in modules and target != name
        }
        for name, path in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"circle: {' -> '.join((*above, name))}"
        if name not in done:
            for target in graph[name]:
                visit(target, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_files_are_short():
    long = {
        str(p.relative_to(PACKAGE)): n
        for p in PACKAGE.rglob("*.py")
        if (n := len(p.read_text().splitlines())) > 350
    }
    assert long == {}
