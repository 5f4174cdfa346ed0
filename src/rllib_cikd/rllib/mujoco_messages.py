"""MuJoCo warns about a model file of Gymnasium's, which nobody who trains can change."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym

logger = logging.getLogger(__name__)

#: From MuJoCo 3.16 on, at each HalfCheetah of Gymnasium 1.2.
_KNOWN = "compiler attribute 'settotalmass' is deprecated"


@contextmanager
def silenced(env: Any) -> Iterator[None]:
    """While an environment is made, the known warning is dropped; others are logged.

    MuJoCo's own way is to print each to stderr and to a file in the working folder.

    Args:
        env: What is made; of Gymnasium's ids, only those of its MuJoCo tasks load MuJoCo.
    """
    spec = gym.registry.get(env) if isinstance(env, str) else None
    of_mujoco = spec is not None and str(spec.entry_point).startswith("gymnasium.envs.mujoco")
    if not of_mujoco and "mujoco" not in sys.modules:
        yield
        return
    import mujoco

    before = mujoco.get_mju_user_warning()

    def warn(message: str) -> None:
        if _KNOWN not in message:
            (before or logger.warning)(message)

    mujoco.set_mju_user_warning(warn)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
