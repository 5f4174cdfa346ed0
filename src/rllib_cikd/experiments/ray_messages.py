"""Messages that a user of the `rllib` command can do nothing about stay off the screen.

Only the messages listed below are dropped, each by its source and its words; warnings and errors
that are not listed stay visible, and `rllib ... -v` drops nothing. Messages without a list:

- Ray's usage statistics prompt (`ray._common.usage`): not shown, and so nothing is collected
  either unless `RAY_USAGE_STATS_ENABLED` is set.
- Tune's tables (`ray.tune.experimental.output`): `progress` tells the same in a bar or lines.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

from ray._private.ray_logging import global_worker_stdstream_dispatcher

#: Messages of the command's own process: logger, and words that each message contains.
DRIVER_MESSAGES = {
    # How Ray starts a cluster on this machine, or joins another.
    "ray._private.authentication.authentication_token_setup": ("uthentication",),
    "ray._private.worker": ("Started a local Ray", "Connecting to", "Connected to"),
    # RLlib, at every validation of a config.
    "ray.rllib.algorithms.algorithm_config": ("on the new API stack!",),
    "ray.rllib.algorithms.sac.sac": ("on the new API stack!",),
    # A call of RLlib's own, once per process.
    "ray._common.deprecation": ("RLModule(config=[RLModuleConfig object])",),
    "ray.tune.utils.util": ("Install gputil",),
    # Comes with every key of the result; `progress` says it in a line, once it lasts.
    "ray.tune.experiment.trial": ("Stopping criterion",),
    # The command itself tells how trials ended, with their errors, files, and how to go on.
    "ray.tune.execution.tune_controller": ("Trial task failed for trial", "Restoring the run from"),
    "ray.tune.analysis.experiment_analysis": ("Failed to fetch metrics",),
    "ray.tune.tune": (
        "Wrote the latest version",
        "Total run time",
        "Trials did not complete",
        "Experiment has been interrupted",
    ),
    # Advice on how often to write checkpoints, in quick runs at every second one.
    "ray.tune.execution.experiment_state": ("Experiment state snapshotting has been triggered",),
    "ray.train._internal.storage": ("Checkpoint successfully created",),
}

#: Lines that Ray's worker processes write and Ray repeats here.
WORKER_LINES = (
    "on the new API stack!",
    "`RLModule(config=[RLModuleConfig object])` has been deprecated",
    "Install gputil for GPU system monitoring",
    "Checkpoint successfully created at",
    "Trainable.setup took",  # on a busy machine
    "from checkpoint: Checkpoint(",
    "Setting up process group for: env://",  # remote learners
    # Ray's C++ core on RLlib's env runners, which RLlib makes in this way.
    "has constructor arguments in the object store and max_restarts > 0",
)

#: Errors of the disk, whose one line says it all.
_WITHOUT_TRACEBACK = (
    "Saving experiment state to storage at",
    "Experiment state snapshotting failed",
)

# What an env runner that Ray stops may write about it: from the first to the second line.
_EXIT_BEGINS, _EXIT_ENDS = "Exception ignored in: <function EnvRunner.__del__", "SystemExit: 1"


def _is_unknown(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    if "Error handling checkpoint" in message and record.exc_info:
        # After a resume, Tune wants to delete what the killed run had deleted already.
        return not isinstance(record.exc_info[1], FileNotFoundError)
    if any(words in message for words in _WITHOUT_TRACEBACK) and record.exc_info:
        record.msg, record.args = f"{message.strip()} {record.exc_info[1]}", ()
        record.exc_info = record.stack_info = None
    return not any(words in message for words in DRIVER_MESSAGES[record.name])


def silence() -> None:
    """Drops the listed messages from now on. Call it before `ray.init`; twice is like once."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_USAGE_STATS_PROMPT_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    for name in DRIVER_MESSAGES:
        logging.getLogger(name).addFilter(_is_unknown)
    # Handlers run in order: before the one that `ray.init` adds, which prints the lines.
    global_worker_stdstream_dispatcher.remove_handler("rllib")
    global_worker_stdstream_dispatcher.add_handler("rllib", _drop_known_lines)


def _drop_known_lines(data: dict[str, Any]) -> None:
    data["lines"] = list(_unknown_lines(data["lines"]))


def _unknown_lines(lines: list[str]) -> Iterator[str]:
    exiting = False
    for line in lines:
        exiting = exiting or line.startswith(_EXIT_BEGINS)
        if not exiting and not any(words in line for words in WORKER_LINES):
            yield line
        exiting = exiting and line.strip() != _EXIT_ENDS
