"""A checkpoint's manifest: written last, checked first. So a checkpoint is whole or refused.

It names every file with its size and checksum. Whatever is missing, cut short or changed is found
before anything is loaded; and so is a checkpoint whose writing, copying or deleting was cut off.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow.fs

from rllib_cikd.algorithm.members import policy_ids
from rllib_cikd.common.errors import DamagedCheckpoint
from rllib_cikd.common.version import __version__

MANIFEST = "cikd_manifest.json"
#: Counts up whenever a checkpoint of before could not be read any more.
FORMAT = 5

#: Below a checkpoint: what is the learner's, and all that the members are.
LEARNER = "learner_group/learner"
MEMBERS = f"{LEARNER}/rl_module"
#: The learner's own state: optimisers, generator and replay buffer.
LEARNER_STATE = f"{LEARNER}/state.pkl"

_BYTES_AT_ONCE = 1 << 23


class Manifest(NamedTuple):
    """What a manifest says of its checkpoint."""

    ensemble_size: int
    observation_space: str
    action_space: str
    training_iteration: int
    env_steps: int  #: environment steps so far
    transitions: int | None  #: in the stored replay buffer; None: it was not to be stored
    files: Mapping[str, tuple[int, int]]  #: size in bytes and CRC-32 by path below the checkpoint

    @property
    def required(self) -> list[str]:
        """Paths of the files without which there is no going on."""
        own = ["rllib_checkpoint.json", "class_and_ctor_args.pkl", "algorithm_state.pkl"]
        names = ("class_and_ctor_args.pkl", "module_state.pkl")
        members = [
            f"{MEMBERS}/{k}/{name}" for k in policy_ids(self.ensemble_size) for name in names
        ]
        return [*own, LEARNER_STATE, *members]


def write_manifest(filesystem: pyarrow.fs.FileSystem, root: str, **about: Any) -> None:
    """Writes the manifest of the checkpoint in a folder, all other files of which are there.

    Args:
        filesystem: Where it is.
        root: The folder.
        **about: The fields of `Manifest` other than `files`.

    Raises:
        RuntimeError: If a part was not written.
    """
    selector = pyarrow.fs.FileSelector(root, recursive=True)
    files = {
        PurePosixPath(info.path).relative_to(root).as_posix(): info.size
        for info in filesystem.get_file_info(selector)
        if info.is_file
    }
    files.pop(MANIFEST, None)
    manifest = Manifest(
        **about,
        files={f: (size, _checksum(filesystem, f"{root}/{f}")) for f, size in files.items()},
    )
    for name in manifest.required:
        if name not in files:
            raise RuntimeError(f"checkpoint {root}: {name} was not written; see the errors above.")
    with filesystem.open_output_stream(f"{root}/{MANIFEST}") as file:
        file.write(_serialized(manifest))


def remove_manifest(filesystem: pyarrow.fs.FileSystem, root: str) -> None:
    """Before a checkpoint is written over another: from here on, neither of them is whole."""
    if filesystem.get_file_info(f"{root}/{MANIFEST}").is_file:
        filesystem.delete_file(f"{root}/{MANIFEST}")


def check_checkpoint(
    root: str,
    filesystem: pyarrow.fs.FileSystem | None = None,
    needed: Callable[[str], bool] = lambda name: True,
    checksums: bool = True,
) -> Manifest:
    """Checks that a checkpoint is whole.

    Args:
        root: Its folder; without `filesystem` absolute, or a URI.
        filesystem: Where it is.
        needed: Which of its files must be sound, by path below it.
        checksums: Whether contents are read; else only that there are as many bytes as there were.

    Returns:
        What its manifest says.

    Raises:
        DamagedCheckpoint: At the first file that is missing, cut short or changed.
    """
    if filesystem is None:
        filesystem, root = pyarrow.fs.FileSystem.from_uri(root)
    try:
        manifest = _read(filesystem, root)
        names = [name for name in manifest.files if needed(name)]
        _check_sizes(filesystem, root, {name: manifest.files[name][0] for name in names})
        for name in names if checksums else ():
            if _checksum(filesystem, f"{root}/{name}") != manifest.files[name][1]:
                raise _damaged(root, f"{name} is not as it was written: its checksum differs")
    except OSError as error:
        raise _damaged(root, f"it cannot be read: {error}") from error
    return manifest


def _read(filesystem: pyarrow.fs.FileSystem, root: str) -> Manifest:
    if not filesystem.get_file_info(f"{root}/{MANIFEST}").is_file:
        if filesystem.get_file_info(root).type == pyarrow.fs.FileType.NotFound:
            raise _damaged(root, "there is no such folder")
        raise _damaged(
            root,
            f"it has no {MANIFEST}, which is written last: its writing was cut off, or an earlier "
            "version of rllib-cikd wrote it",
        )
    with filesystem.open_input_stream(f"{root}/{MANIFEST}") as file:
        content = file.read()
    try:
        fields = json.loads(content)
        sound = fields.pop("checksum") == _own_checksum(fields) and content == _text(fields)
    except (ValueError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise _damaged(root, f"{MANIFEST} is not as it was written")
    if fields.pop("format") != FORMAT:
        raise _damaged(
            root,
            f"rllib-cikd {fields['rllib_cikd']} wrote it, in a format that this version "
            f"({__version__}) does not read",
        )
    fields.pop("rllib_cikd")
    files = {name: (size, checksum) for name, (size, checksum) in fields.pop("files").items()}
    manifest = Manifest(**fields, files=files)
    for name in manifest.required:
        if name not in manifest.files:
            raise _damaged(root, f"{name} is missing in its {MANIFEST}")
    return manifest


def _check_sizes(filesystem: pyarrow.fs.FileSystem, root: str, sizes: Mapping[str, int]) -> None:
    infos = filesystem.get_file_info([f"{root}/{name}" for name in sizes])
    for (name, size), info in zip(sizes.items(), infos, strict=True):
        if not info.is_file:
            raise _damaged(root, f"{name} is missing")
        if info.size != size:
            raise _damaged(root, f"{name} has {info.size:,} bytes instead of {size:,}")


def _serialized(manifest: Manifest) -> bytes:
    fields: dict[str, Any] = {"format": FORMAT, "rllib_cikd": __version__, **manifest._asdict()}
    fields["files"] = dict(sorted((name, list(entry)) for name, entry in manifest.files.items()))
    return _text(fields)


def _text(fields: Mapping[str, Any]) -> bytes:
    return json.dumps({**fields, "checksum": _own_checksum(fields)}, indent=1).encode() + b"\n"


def _own_checksum(fields: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(fields, sort_keys=True).encode())


def _checksum(filesystem: pyarrow.fs.FileSystem, path: str) -> int:
    checksum = 0
    with filesystem.open_input_stream(path) as file:
        for block in _blocks(file):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _blocks(file: Any) -> Iterable[bytes]:
    while block := file.read(_BYTES_AT_ONCE):
        yield block


def _damaged(root: str, problem: str) -> DamagedCheckpoint:
    return DamagedCheckpoint(f"{root} is not a whole checkpoint: {problem}. Use another one.")
