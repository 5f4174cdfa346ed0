"""Known messages of Ray are dropped, everything else stays."""

import logging

import pytest
from ray._private.ray_logging import global_worker_stdstream_dispatcher

from rllib_cikd.experiments.ray_messages import DRIVER_MESSAGES, silence


@pytest.fixture
def dropped(monkeypatch):
    """Returns a function that tells whether a log message is dropped after `silence`."""
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_USAGE_STATS_PROMPT_ENABLED", "RAY_AIR_NEW_OUTPUT"):
        monkeypatch.setenv(name, "0")
    silence()
    silence()  # a second command of the same process

    def is_dropped(logger, message, error=None):
        info = (type(error), error, None) if error else None
        record = logging.LogRecord(logger, logging.WARNING, "", 0, message, (), info)
        return not logging.getLogger(logger).filter(record)

    return is_dropped


@pytest.mark.parametrize(
    ("logger", "words"), [(name, words) for name, all in DRIVER_MESSAGES.items() for words in all]
)
def test_messages_of_this_process(dropped, logger, words):
    assert dropped(logger, f"Some {words} here")
    assert not dropped(logger, "The simulation diverged")


def test_a_checkpoint_that_is_gone_already(dropped):
    logger = "ray.tune.execution.tune_controller"
    assert dropped(logger, "Error handling checkpoint", FileNotFoundError())
    assert not dropped(logger, "Error handling checkpoint", OSError("disk full"))


def test_lines_of_workers(dropped):
    lines = [
        "2026 WARNING: You are running SAC on the new API stack! ...",
        "the env says hello",
        "Exception ignored in: <function EnvRunner.__del__ at 0x1>",
        "Traceback (most recent call last):",
        "SystemExit: 1",
        "RuntimeError: the simulator broke",
    ]
    handlers = [h for name, h in global_worker_stdstream_dispatcher.handlers if name == "rllib"]
    assert len(handlers) == 1
    data = {"lines": list(lines)}
    handlers[0](data)
    assert data["lines"] == [lines[1], lines[5]]
