"""Users' modules are remembered beside what was trained with them: in a run and its checkpoints."""

from __future__ import annotations

from typing import Any

import pyarrow.fs
from ray import tune
from ray.tune.experiment import Trial

from rllib_cikd.common.user_modules import FILE, UserModules


class ModulesKeeper(tune.Callback):
    """Writes into a run's folder and each of its checkpoints which modules they need."""

    def __init__(self, modules: UserModules):
        self._content = modules.to_json().encode()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info) -> None:
        storage: Any = trial.storage
        self._write(storage.storage_filesystem, storage.experiment_fs_path)

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **info
    ) -> None:
        self._write(checkpoint.filesystem, checkpoint.path)

    def _write(self, filesystem: pyarrow.fs.FileSystem, folder: str) -> None:
        with filesystem.open_output_stream(f"{folder}/{FILE}") as file:
            file.write(self._content)


def recall_modules(folder: str) -> UserModules:
    """Those that a run was started with.

    Args:
        folder: Of the run, or its URI.

    Raises:
        CommandError: If the file is damaged.
    """
    filesystem, path = pyarrow.fs.FileSystem.from_uri(folder)
    file = f"{path}/{FILE}"
    if filesystem.get_file_info(file).type != pyarrow.fs.FileType.File:
        return UserModules()
    with filesystem.open_input_stream(file) as stream:
        return UserModules.from_json(stream.read(), file)
