"""What MuJoCo draws videos with, and which package to install where it is missing."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator

from rllib_cikd.common.errors import CommandError

#: By `MUJOCO_GL`: the library's name, its packages, and what to set instead.
_LIBRARIES = {
    "egl": ("EGL", "`apt install libegl1` or `dnf install mesa-libEGL`", "osmesa"),
    "osmesa": ("OSMesa", "`apt install libosmesa6` or `dnf install mesa-libOSMesa`", "egl"),
}
#: Where an error comes from the drawing of frames, as parts of files' paths.
_SOURCES = (
    *("/OpenGL/", "/glfw/", "/dm_control/_render/", "/mujoco/rendering/", "/mujoco/gl_context"),
    *("/mujoco/egl/", "/mujoco/osmesa/", "/mujoco/glfw/", "/mujoco/renderer", "mujoco_rendering"),
)


def prepare() -> None:
    """Has MuJoCo draw without a display where there is none.

    Call it before Ray is imported: where dm_control is installed, RLlib imports it, and with it
    MuJoCo's choice is made.
    """
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")


def missing_library(error: BaseException) -> CommandError | None:
    """What to say of an error that comes from MuJoCo's drawing; None of others.

    What its half-made objects would say as they are deleted is dropped from then on.

    Args:
        error: Of making or drawing an environment, or of importing MuJoCo.
    """
    drawing = [one for one in _chain(error) if _comes_from_drawing(one)]
    if not drawing:
        return None
    sys.unraisablehook = lambda unraisable: None
    reason, backend = _first_line(drawing[-1]), os.environ.get("MUJOCO_GL", "")
    if backend not in _LIBRARIES:
        return CommandError(
            f"MuJoCo cannot draw here ({reason}). Without a display, set MUJOCO_GL=egl or "
            "MUJOCO_GL=osmesa."
        )
    library, packages, other = _LIBRARIES[backend]
    return CommandError(
        f"MUJOCO_GL is {backend}, but {library} cannot be used ({reason}). Install it with "
        f"{packages}, or set MUJOCO_GL={other}."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it was raised from or after."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _comes_from_drawing(error: BaseException) -> bool:
    files = (frame.filename for frame in traceback.extract_tb(error.__traceback__))
    return any(source in file for file in files for source in _SOURCES)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
