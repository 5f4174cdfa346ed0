"""A damaged checkpoint is never loaded, however it is damaged and whoever loads it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import assert_same_state, eventful_config, full_state
from ray.rllib.algorithms.algorithm import Algorithm

from rllib_cikd import CIKD, load_policy
from rllib_cikd.common.errors import CommandError, DamagedCheckpoint
from rllib_cikd.experiments.checkpoint_evaluation import _load, find_checkpoint
from rllib_cikd.rllib.manifest import LEARNER_STATE, MANIFEST

POLICY = "learner_group/learner/rl_module/policy_1"


@pytest.fixture(scope="module")
def trained(ray_cluster, tmp_path_factory):
    """A trained algorithm and its checkpoint; tests must leave both as they are."""
    algo = eventful_config().build_algo()
    for _ in range(2):
        algo.train()
    path = algo.save_to_path(str(tmp_path_factory.mktemp("damage") / "checkpoint"))
    yield algo, Path(path)
    algo.stop()


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained[1], tmp_path / "copy"))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


DAMAGES = {"missing": Path.unlink, "cut short": cut_short, "flipped": flip}


def test_no_damage_is_loaded(trained, tmp_path):
    """Each file, damaged in three ways; the algorithm that was to load it stays as it was."""
    algo, path = trained
    state, tried = full_state(algo), 0
    for file in [p.relative_to(path) for p in sorted(path.rglob("*")) if p.is_file()]:
        for name, damage in DAMAGES.items():
            copy = Path(shutil.copytree(path, tmp_path / f"{tried}"))
            damage(copy / file)
            with pytest.raises(DamagedCheckpoint, match="is not a whole checkpoint") as error:
                algo.load_checkpoint(str(copy))  # what Tune calls
            assert (file.name == MANIFEST) or (str(file) in str(error.value)), name
            assert "\n" not in str(error.value)
            shutil.rmtree(copy)
            tried += 1
    assert tried >= 60
    assert_same_state(full_state(algo), state)


def test_a_whole_folder_missing(trained, copy):
    shutil.rmtree(copy / POLICY)
    with pytest.raises(DamagedCheckpoint, match=f"{POLICY}/.* is missing"):
        trained[0].restore_from_path(copy)
    with pytest.raises(DamagedCheckpoint, match=f"{POLICY}/.* is missing"):
        trained[0].restore_from_path(f"{copy}/{POLICY}", component=POLICY)


@pytest.mark.parametrize("load", [CIKD.from_checkpoint, Algorithm.from_checkpoint])
@pytest.mark.parametrize("file", [f"{POLICY}/module_state.pkl", MANIFEST])
def test_from_checkpoint(copy, load, file):
    (copy / file).unlink()
    with pytest.raises(DamagedCheckpoint, match=file):
        load(str(copy))


@pytest.mark.parametrize("folder", ["", "learner_group/learner/rl_module/policy_0"])
def test_settings_that_would_be_others(copy, folder):
    """A flipped bit in the config could be another step size."""
    flip(copy / folder / "class_and_ctor_args.pkl")
    for config in (None, {"actor_lr": 1e-4}):
        with pytest.raises(DamagedCheckpoint, match=r"class_and_ctor_args.pkl is not as it was"):
            CIKD.from_checkpoint(str(copy), config=config)


def test_evaluation_looks_at_what_it_loads(trained, copy):
    """Policies can be evaluated without a sound replay buffer, not without a sound policy."""
    algo, _ = trained
    flip(copy / LEARNER_STATE)
    loaded = _load(copy, num_episodes=1, seed=None)
    assert loaded.history.env_steps == algo.history.env_steps
    assert loaded.best_policy_id == algo.elected_policy_id
    played, expected = loaded.evaluate_members(2, seed=0), algo.evaluate_members(2, seed=0)
    assert {m: e["returns"].tolist() for m, e in played.items()} == {
        m: e["returns"].tolist() for m, e in expected.items()
    }
    loaded.stop()
    for file in (f"{POLICY}/module_state.pkl", "algorithm_state.pkl", "class_and_ctor_args.pkl"):
        flip(copy / file)
        for load in (lambda path: _load(path, 1, None), lambda path: load_policy(path, 1)):
            with pytest.raises(CommandError, match=f"{file} is not as it was written"):
                load(copy)
        flip(copy / file)
    load_policy(copy, 1)


def test_the_newest_whole_checkpoint_of_a_folder(trained, tmp_path):
    older, newer = (
        Path(shutil.copytree(trained[1], tmp_path / f"checkpoint_00000{i}")) for i in (1, 2)
    )
    (newer / "rllib_checkpoint.json").touch()
    assert find_checkpoint(tmp_path) == newer
    (newer / LEARNER_STATE).unlink()
    assert find_checkpoint(tmp_path) == older
    assert find_checkpoint(newer) == newer  # loading will say what is wrong


def test_written_over_another(trained, build, tmp_path):
    """What is left of a larger ensemble does no harm."""
    path = Path(shutil.copytree(trained[1], tmp_path / "checkpoint"))
    small = build(eventful_config(ensemble_size=2))
    small.save_to_path(path)
    small.restore_from_path(path)
