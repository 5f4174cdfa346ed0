"""Which package to install where MuJoCo cannot draw."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rllib_cikd.experiments import graphics


def failing_import(backend: str) -> str:
    """What is said when MuJoCo is imported without the library that it is to draw with."""
    code = """
import ctypes
load = ctypes.CDLL.__init__
def without(self, name, *args, **kwargs):
    if name and any(part in str(name) for part in ("EGL", "OSMesa")):
        raise OSError(f"{name}: no such file")
    return load(self, name, *args, **kwargs)
ctypes.CDLL.__init__ = without

from rllib_cikd.experiments.graphics import missing_library
import gymnasium
try:
    gymnasium.make("HalfCheetah-v5", render_mode="rgb_array").reset()
except Exception as error:
    print(missing_library(error))
"""
    environment = {**os.environ, "MUJOCO_GL": backend}
    environment.pop("DISPLAY", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("backend", "library", "package", "other"),
    [("egl", "EGL", "libegl1", "osmesa"), ("osmesa", "OSMesa", "libosmesa6", "egl")],
)
def test_a_missing_library_is_named(backend, library, package, other):
    said = failing_import(backend)
    assert said.startswith(f"MUJOCO_GL is {backend}, but {library} cannot be used (")
    assert f"`apt install {package}`" in said
    assert said.endswith(f"or set MUJOCO_GL={other}.\n")


def test_other_errors_are_none_of_it():
    with pytest.raises(ZeroDivisionError) as raised:
        1 // 0  # noqa: B018
    assert graphics.missing_library(raised.value) is None


@pytest.mark.parametrize(
    ("display", "given", "expected"),
    [(None, None, "egl"), (None, "osmesa", "osmesa"), (":0", None, None)],
)
def test_without_a_display_it_draws_with_egl(monkeypatch, display, given, expected):
    for name, value in (("DISPLAY", display), ("MUJOCO_GL", given)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    graphics.prepare()
    assert os.environ.get("MUJOCO_GL") == expected
    monkeypatch.delenv("MUJOCO_GL", raising=False)
