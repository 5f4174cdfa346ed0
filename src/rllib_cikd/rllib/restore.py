"""Going on from a checkpoint with other settings: what takes effect, and what cannot change."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune import Checkpoint

from rllib_cikd.algorithm.members import policy_id, policy_ids
from rllib_cikd.rllib.manifest import LEARNER_STATE, MEMBERS
from rllib_cikd.rllib.member_settings import sac_settings
from rllib_cikd.rllib.settings.honoured import PER_MEMBER
from rllib_cikd.rllib.settings.networks import shapes
from rllib_cikd.rllib.settings.overrides import settings_by_member
from rllib_cikd.rllib.settings.values import show
from rllib_cikd.rllib.spaces import Spaces

#: Settings that a run keeps when it goes on from a checkpoint (`refuse_changed_settings`).
KEPT = ("env", "ensemble_size", "model_config", "observation_filter", "initial_alpha")

#: How the object in a folder of a checkpoint was made.
CONSTRUCTION = "class_and_ctor_args.pkl"


def checkpoint_path(path: str | Path | Checkpoint) -> str:
    """The absolute path or URI of a checkpoint, as RLlib needs it; paths may be relative."""
    if isinstance(path, Checkpoint):
        return path.to_directory()
    text = os.fspath(path)
    return text if "://" in text else os.path.abspath(os.path.expanduser(text))


class StoredRun:
    """What a checkpoint says of the run that wrote it; read as it is needed.

    Args:
        path: From `checkpoint_path`.
        filesystem: Where it is; None: what the path says.
    """

    def __init__(self, path: str, filesystem: pyarrow.fs.FileSystem | None = None):
        self._path = path
        if filesystem is None:
            filesystem, self._path = pyarrow.fs.FileSystem.from_uri(path)
        self._filesystem: Any = filesystem

    def config(self) -> AlgorithmConfig:
        """The run's config, not frozen."""
        (state,), _ = self._read(CONSTRUCTION)["ctor_args_and_kwargs"]
        config = state["class"].from_state(state)
        config._per_module_overrides = {}  # of former values
        return config

    def spaces(self) -> Spaces:
        """What the members were made for."""
        module = self._read(f"{MEMBERS}/{policy_id(0)}/{CONSTRUCTION}")
        arguments = module["ctor_args_and_kwargs"][1]
        return Spaces(*(arguments[name] for name in Spaces._fields))

    def state(self) -> dict[str, Any]:
        """The algorithm's own state, without that of learners and env runners."""
        return self._read("algorithm_state.pkl")

    def num_transitions(self) -> int:
        """Transitions in the stored replay buffer; 0 if it was not stored."""
        buffer = self._read(LEARNER_STATE).get("replay_buffer")
        return 0 if buffer is None else len(buffer["rows"])

    def _read(self, name: str) -> Any:
        with self._filesystem.open_input_stream(f"{self._path}/{name}") as file:
            return pickle.load(file)


def changed_config(
    stored: AlgorithmConfig, change: AlgorithmConfig | dict[str, Any]
) -> AlgorithmConfig:
    """The config to go on with.

    Args:
        stored: The checkpoint's.
        change: A whole config, which replaces it; or a dict of those settings that change.

    Raises:
        ValueError: If it is neither; if a key of the dict is unknown, or a config lacks `env`.
    """
    if isinstance(change, AlgorithmConfig):
        if change.env is None:
            raise ValueError(
                "config: env=None: a config replaces that of the checkpoint, so it needs "
                "`.environment(…)`; give a dict to change some settings only."
            )
        return change.copy(copy_frozen=False)
    if not isinstance(change, dict):
        raise ValueError(
            f"config={show(change)}: must be a `CIKDConfig`, which replaces that of the "
            "checkpoint, or a dict of the settings that change."
        )
    return stored.update_from_dict(change)


def refuse_changed_settings(run: StoredRun, config: AlgorithmConfig) -> None:
    """Compares a checkpoint's settings with those to go on with, before anything is loaded.

    Args:
        run: The checkpoint.
        config: Checked.

    Raises:
        ValueError: At the first setting that cannot change; with its old and new value.
    """
    stored = run.config()
    _compare(
        "ensemble_size",
        stored.ensemble_size,
        config.ensemble_size,
        "the members are in the checkpoint",
    )
    ids = policy_ids(config.ensemble_size)
    networks = shapes(stored, ids)
    for member, shape in shapes(config, ids).items():
        for name, value in shape.items():
            of = "" if all(s == networks[ids[0]] for s in networks.values()) else f" of {member}"
            _compare(name + of, networks[member][name], value, "networks keep their shapes")
    _compare(
        "observation_filter",
        stored.observation_filter,
        config.observation_filter,
        "networks have learned from observations as it gave them",
    )
    _compare(
        "initial_alpha",
        stored.initial_alpha,
        config.initial_alpha,
        "temperatures have been learned since",
    )
    _refuse_other_groups(stored, config, ids, run.spaces())
    _refuse_smaller_buffer(run, stored, config)


def refuse_changed_spaces(run: StoredRun, spaces: Spaces) -> None:
    """Compares the spaces that a checkpoint's members were made for with others.

    Args:
        run: The checkpoint.
        spaces: As they are now.

    Raises:
        ValueError: If the environment's own spaces differ.
    """
    found = run.spaces().difference(spaces)
    if found is not None:
        _compare(*found, "`env` or `env_config` makes another task")


def _refuse_smaller_buffer(
    run: StoredRun, stored: AlgorithmConfig, config: AlgorithmConfig
) -> None:
    old, new = (c.replay_buffer_config["capacity"] for c in (stored, config))
    if new < old and run.num_transitions() > new:
        raise ValueError(
            f"replay_buffer_config={show(config.replay_buffer_config)}: was "
            f"{show(stored.replay_buffer_config)} in the checkpoint, which holds "
            f"{run.num_transitions()} transitions: keep a capacity of at least as many, or train "
            "anew."
        )
    if stored.n_step == 1 and config.n_step > 1 and run.num_transitions() > 0:
        _compare(
            "n_step",
            stored.n_step,
            config.n_step,
            "the stored transitions do not know what came after them",
        )


def _refuse_other_groups(
    stored: AlgorithmConfig, config: AlgorithmConfig, ids: Sequence[str], spaces: Spaces
) -> None:
    """Members with equal settings share an optimiser, whose moments are in the checkpoint."""
    old, new = (
        [
            sac_settings(SimpleNamespace(**own), spaces.action_space)
            for own in settings_by_member(c, ids)
        ]
        for c in (stored, config)
    )
    if _first_equal(old) == _first_equal(new):
        return
    for name in PER_MEMBER:
        groups = [_first_equal([getattr(s, name) for s in settings]) for settings in (old, new)]
        if groups[0] != groups[1]:
            for field in ("algorithm_config_overrides_per_module", name):
                _compare(
                    field,
                    getattr(stored, field),
                    getattr(config, field),
                    "which members have equal settings cannot change, as these share an optimiser",
                )


def _first_equal(values: Sequence[Any]) -> list[int]:
    """For each value the place of the first that is equal."""
    texts = [repr(value) for value in values]
    return [texts.index(text) for text in texts]


def _compare(field: str, old: Any, new: Any, why: str) -> None:
    if old != new:
        raise ValueError(
            f"{field}={show(new)}: was {show(old)} in the checkpoint and cannot change: {why}. "
            "Keep the old value, or train anew."
        )
