"""Whatever is missing, cut short or changed in a checkpoint is found by its manifest."""

import json
from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem

from rllib_cikd.common.errors import DamagedCheckpoint
from rllib_cikd.rllib.manifest import (
    FORMAT,
    LEARNER_STATE,
    MANIFEST,
    Manifest,
    check_checkpoint,
    remove_manifest,
    write_manifest,
)

ABOUT = {
    "ensemble_size": 2,
    "observation_space": "Box(3)",
    "action_space": "Box(1)",
    "training_iteration": 7,
    "env_steps": 7000,
    "transitions": 7000,
}
PARTS = Manifest(**ABOUT, files={}).required


def write_parts(root: Path) -> None:
    for i, name in enumerate(PARTS):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(bytes([i]) * 20)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    root = tmp_path / "checkpoint"
    write_parts(root)
    (root / "env_runner").mkdir()
    (root / "env_runner" / "state.pkl").write_bytes(b"")
    write_manifest(LocalFileSystem(), str(root), **ABOUT)
    return root


def test_a_whole_checkpoint(checkpoint):
    manifest = check_checkpoint(str(checkpoint))
    assert {name: getattr(manifest, name) for name in ABOUT} == ABOUT
    assert set(manifest.files) == {*PARTS, "env_runner/state.pkl"}
    assert check_checkpoint(f"file://{checkpoint}") == manifest
    assert check_checkpoint(str(checkpoint), LocalFileSystem()) == manifest


@pytest.mark.parametrize("name", [*PARTS, "env_runner/state.pkl"])
def test_each_file_counts(checkpoint, name):
    (checkpoint / name).unlink()
    with pytest.raises(DamagedCheckpoint, match=f"{checkpoint} is not a whole .*: {name} is miss"):
        check_checkpoint(str(checkpoint), checksums=False)


def test_a_file_cut_short(checkpoint):
    (checkpoint / PARTS[0]).write_bytes(b"\x00" * 19)
    with pytest.raises(DamagedCheckpoint, match=f"{PARTS[0]} has 19 bytes instead of 20"):
        check_checkpoint(str(checkpoint), checksums=False)


def test_a_flipped_bit(checkpoint):
    content = bytearray((checkpoint / LEARNER_STATE).read_bytes())
    content[11] ^= 4
    (checkpoint / LEARNER_STATE).write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match=f"{LEARNER_STATE} is not as it was written"):
        check_checkpoint(str(checkpoint))
    check_checkpoint(str(checkpoint), checksums=False)
    check_checkpoint(str(checkpoint), needed=lambda name: name != LEARNER_STATE)


def test_the_manifest_itself(checkpoint):
    """Each of its characters is looked at."""
    file = checkpoint / MANIFEST
    content = file.read_bytes()
    assert json.loads(content)["format"] == FORMAT
    for i in range(0, len(content), 3):
        file.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        with pytest.raises(DamagedCheckpoint, match=MANIFEST):
            check_checkpoint(str(checkpoint))
    file.write_bytes(content[:-1])
    with pytest.raises(DamagedCheckpoint, match=f"{MANIFEST} is not as it was written"):
        check_checkpoint(str(checkpoint))


def test_without_a_manifest(checkpoint):
    remove_manifest(LocalFileSystem(), str(checkpoint))
    with pytest.raises(DamagedCheckpoint, match=r"written last: .* cut off, or an earlier version"):
        check_checkpoint(str(checkpoint))
    remove_manifest(LocalFileSystem(), str(checkpoint))  # nothing to remove


def test_no_folder(tmp_path):
    with pytest.raises(DamagedCheckpoint, match="there is no such folder"):
        check_checkpoint(str(tmp_path / "nothing"))


def test_of_another_version(checkpoint, monkeypatch):
    monkeypatch.setattr("rllib_cikd.rllib.manifest.FORMAT", FORMAT + 1)
    write_manifest(LocalFileSystem(), str(checkpoint), **ABOUT)
    monkeypatch.undo()
    with pytest.raises(DamagedCheckpoint, match=r"in a format that this version .* does not read"):
        check_checkpoint(str(checkpoint))


def test_a_part_that_was_not_written(tmp_path):
    write_parts(tmp_path)
    missing = "learner_group/learner/rl_module/policy_1/module_state.pkl"
    (tmp_path / missing).unlink()
    with pytest.raises(RuntimeError, match=f"{missing} was not written"):
        write_manifest(LocalFileSystem(), str(tmp_path), **ABOUT)
    assert not (tmp_path / MANIFEST).exists()
