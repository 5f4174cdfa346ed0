"""Users' modules: where they are looked for, and what is remembered of them."""

import sys

import pytest

from rllib_cikd.common.errors import CommandError
from rllib_cikd.common.user_modules import FILE, UserModules, given_modules


@pytest.fixture(autouse=True)
def _same_path(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_a_module_beside_the_file_is_found_but_hides_none(tmp_path):
    (tmp_path / "users_own_module.py").write_text("seen = __file__")
    (tmp_path / "json.py").write_text("raise RuntimeError('hidden')")
    UserModules((str(tmp_path),), ("users_own_module", "json")).load()
    assert sys.modules["users_own_module"].seen == str(tmp_path / "users_own_module.py")
    assert sys.path[-1] == str(tmp_path)


def test_the_current_folder_is_searched_for_modules_that_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert given_modules((), tmp_path / "a" / "..").folders == (str(tmp_path),)
    assert given_modules(("m",), tmp_path / "a").folders == (str(tmp_path / "a"), str(tmp_path))


def test_a_module_that_cannot_be_imported_is_one_line(tmp_path):
    (tmp_path / "users_broken_module.py").write_text("1 / 0")
    with pytest.raises(CommandError, match=f"^--import nowhere_x: .*nowhere_x'.* in {tmp_path} "):
        UserModules((str(tmp_path),), ("nowhere_x",)).load()
    with pytest.raises(CommandError, match=r"^--import users_broken_module: ZeroDivisionError: "):
        UserModules((str(tmp_path),), ("users_broken_module",)).load()


def test_what_is_remembered(tmp_path):
    modules = UserModules(("/a", "/b"), ("m",))
    assert UserModules.recall(tmp_path) == UserModules()
    (tmp_path / FILE).write_text(modules.to_json())
    assert UserModules.recall(tmp_path) == modules
    assert UserModules(("/c",)).over(modules) == UserModules(("/c", "/a", "/b"), ("m",))
    assert UserModules(("/a",), ("n",)).over(modules) == UserModules(("/a", "/b"), ("n",))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.replace(b"/a", b"/z"),
        lambda content: content[:-9],
        lambda content: content + b"}",
        lambda content: b"",
        lambda content: b"[1]",
        lambda content: b'{"folders": 1, "checksum": 0}',
        lambda content: b"\xff" + content,
    ],
)
def test_what_is_remembered_is_whole_or_refused(tmp_path, damage):
    (tmp_path / FILE).write_bytes(damage(UserModules(("/a",), ("m",)).to_json().encode()))
    with pytest.raises(CommandError, match=f"^{tmp_path / FILE} is not as it was written"):
        UserModules.recall(tmp_path)


def test_another_process_gets_the_same(tmp_path):
    (tmp_path / "users_third_module.py").write_text("")
    UserModules((str(tmp_path),), ("users_third_module",)).loader()()
    assert "users_third_module" in sys.modules
    assert sys.path[-1] == str(tmp_path)
