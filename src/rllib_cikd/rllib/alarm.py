"""Ends calls into an environment that do not return, where no other process waits for them."""

from __future__ import annotations

import atexit
import signal
import threading
import time
from typing import Any

from rllib_cikd.common.errors import EnvironmentFault

_MAIN_THREAD = threading.main_thread().ident

#: The alarm of the call that is going on, and when that began. A process has one timer.
_set: Alarm | None = None
_since = 0.0
_timer_rings_at = 0.0


class Alarm:
    """Within it, a call that takes longer than so many seconds ends in an error.

    It works in a process's main thread, by SIGALRM. It does nothing in other threads, where the
    user has a handler for that signal, and on Windows. A call that hangs in compiled code and
    never comes back to Python cannot be ended.

    Calls are short and many, so the timer is not stopped after each: when it rings, it is set again
    for the call that is going on then.

    Args:
        seconds: How long a call may take; None: as long as it likes.
        env_name: How the error calls the environment.
    """

    def __init__(self, seconds: float | None, env_name: str):
        self._seconds = seconds or 0.0
        self._env_name = env_name
        self._works = bool(seconds) and _install_handler()

    def __enter__(self) -> None:
        global _set, _since, _timer_rings_at
        if self._works and threading.get_ident() == _MAIN_THREAD:
            _set, _since = self, time.monotonic()
            if not _since < _timer_rings_at <= _since + self._seconds:
                _timer_rings_at = _since + self._seconds
                signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *error: Any) -> None:
        global _set
        if _set is self:
            _set = None

    def ring(self) -> None:
        """Raises the error if the call has taken too long, else waits on."""
        global _timer_rings_at
        left = _since + self._seconds - time.monotonic()
        if left > 0:
            _timer_rings_at = _since + self._seconds
            signal.setitimer(signal.ITIMER_REAL, left)
            return
        raise EnvironmentFault(
            f"env={self._env_name!r} has not answered for {self._seconds:g} s "
            "(`sample_timeout_s`). Raise that setting if it is so slow; with `num_env_runners` of "
            "1 or more, an env runner whose environment hangs is restarted."
        )


def _ring(number: int, frame: Any) -> None:
    if _set is not None:
        _set.ring()


def _install_handler() -> bool:
    """Whether SIGALRM comes to `_ring`."""
    if not hasattr(signal, "setitimer") or threading.get_ident() != _MAIN_THREAD:
        return False
    if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
        signal.signal(signal.SIGALRM, _ring)
        # Python takes the handler away before the process is over: then it would die of the signal.
        atexit.register(signal.setitimer, signal.ITIMER_REAL, 0.0)
    return signal.getsignal(signal.SIGALRM) is _ring
