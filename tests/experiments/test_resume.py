"""A run goes on from its newest whole checkpoints, and has each of its results once."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import envs
import pytest
from helpers import SMALL_RUN
from pyarrow.fs import LocalFileSystem
from ray import tune
from ray.rllib.algorithms.ppo import PPO

from rllib_cikd import CIKD, restore
from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.resume import _result_of, drop_results_after, whole_checkpoints
from rllib_cikd.experiments.run_lock import LOCK
from rllib_cikd.experiments.tune_record import newest_record
from rllib_cikd.rllib.manifest import LEARNER_STATE, MANIFEST, Manifest, write_manifest

ABOUT = {
    "ensemble_size": 2,
    "observation_space": "Box(3)",
    "action_space": "Box(1)",
    "training_iteration": 7,
    "env_steps": 7000,
    "transitions": 7000,
}


@pytest.fixture
def checkpoints(tmp_path) -> list[Path]:
    """Three whole checkpoints of a trial, as far as their manifests tell."""
    folders = [tmp_path / f"checkpoint_00000{i}" for i in range(3)]
    for folder in folders:
        for name in Manifest(**ABOUT, files={}).required:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"content")
        write_manifest(LocalFileSystem(), str(folder), **ABOUT)
    return folders


def test_all_whole(checkpoints, tmp_path, capsys):
    assert whole_checkpoints(tmp_path, CIKD) == checkpoints
    assert whole_checkpoints(tmp_path / "missing", CIKD) == []
    assert capsys.readouterr().out == ""


def test_the_newest_one_is_damaged(checkpoints, tmp_path, capsys):
    (checkpoints[2] / LEARNER_STATE).write_bytes(b"Content")
    assert whole_checkpoints(tmp_path, CIKD) == checkpoints[:2]
    assert capsys.readouterr().out == (
        f"{checkpoints[2]} is not a whole checkpoint: {LEARNER_STATE} is not as it was written: "
        "its checksum differs; going on from checkpoint_000001\n"
    )


def test_none_is_whole(checkpoints, tmp_path, capsys):
    for folder in checkpoints:
        (folder / LEARNER_STATE).unlink()
    assert whole_checkpoints(tmp_path, CIKD) == []
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.endswith(f"{LEARNER_STATE} is missing; starting again\n")


def test_one_that_was_being_written(checkpoints, tmp_path, capsys):
    """That is what a killed run leaves: not worth a word."""
    (checkpoints[2] / MANIFEST).unlink()
    assert whole_checkpoints(tmp_path, CIKD) == checkpoints[:2]
    assert capsys.readouterr().out == ""


def test_what_a_checkpoint_is_scored_by_that_the_record_does_not_know(checkpoints, tmp_path):
    """As the trial would have told it: nested keys on top, no evaluation of an earlier step."""
    result = {"training_iteration": 7, "num_env_steps_sampled_lifetime": 7000}
    for evaluated_at, score in ((7000, 5.0), (6000, math.nan)):
        evaluation = {"num_env_steps_sampled_lifetime": evaluated_at, "mean_return_mean": 5.0}
        row = result | {"evaluation": {"ensemble": evaluation}}
        (tmp_path / "result.json").write_text(json.dumps(row) + "\n")
        metrics = _result_of(tmp_path, checkpoints[0], CIKD)
        found = metrics["evaluation/ensemble/mean_return_mean"]
        assert found == pytest.approx(score, nan_ok=True)


def test_of_other_algorithms(tmp_path):
    """They have no manifest; complete ones have the most files."""
    for number, names in enumerate([["a"], ["a", "b/c"], ["a", "b/c"], ["b/c"], []]):
        checkpoint = tmp_path / f"checkpoint_{number:06d}"
        (checkpoint / "b").mkdir(parents=True)
        for name in names:
            (checkpoint / name).write_text("")
    complete = whole_checkpoints(tmp_path, PPO)
    assert [path.name for path in complete] == ["checkpoint_000001", "checkpoint_000002"]


def test_results_beyond_a_checkpoint_are_dropped(tmp_path):
    """Also those that an earlier resume has doubled, and a line that was cut short."""
    iterations = [1, 2, 3, 4, 2, 3, 4, 5]
    rows = [{"training_iteration": i, "n": n} for n, i in enumerate(iterations)]
    rows[5]["evaluation"] = {"return": 7.5}  # which the first result does not have
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "result.json").write_text("\n".join(lines) + '\n{"training_itera')
    with (tmp_path / "progress.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["n", "training_iteration"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        file.write("17")
    drop_results_after(tmp_path, 3)
    kept = [json.loads(line) for line in (tmp_path / "result.json").read_text().splitlines()]
    assert kept == [rows[0], rows[4], rows[5]]
    with (tmp_path / "progress.csv").open(newline="") as file:
        kept = list(csv.DictReader(file))
    assert [int(row["n"]) for row in kept] == [0, 4, 5]
    assert [row["evaluation/return"] for row in kept] == ["", "", "7.5"]
    drop_results_after(tmp_path / "missing", 3)


def test_a_run_from_python_is_restored(ray_cluster, tmp_path, capsys):
    """It failed at iteration 6, and the checkpoint of iteration 4 is damaged: it goes on from that
    of iteration 2, which `Tuner.restore` would not."""
    flag = tmp_path / "failed_once"

    def fail_once(algorithm, **kwargs):
        if algorithm.iteration == 5 and not flag.exists():
            flag.touch()
            raise RuntimeError("this run fails once")

    settings = {"env": envs.DriftEnv, "ensemble_size": 2, "callbacks_on_train_result": fail_once}
    run_config = tune.RunConfig(
        name="python",
        storage_path=str(tmp_path),
        stop={"training_iteration": 6},
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=2),
        verbose=0,
    )
    tune.Tuner("CIKD", param_space=SMALL_RUN | settings, run_config=run_config).fit()
    folder = tmp_path / "python"
    *_, newest = sorted(folder.glob("CIKD_*/checkpoint_*"))
    (newest / LEARNER_STATE).write_bytes(b"")
    tuner = restore(folder)
    assert "going on from checkpoint_000000" in capsys.readouterr().out
    assert not (folder / LOCK).read_text()  # given back
    (result,) = tuner.fit()
    assert result.error is None
    assert result.metrics["training_iteration"] == 6
    assert result.metrics["iterations_since_restore"] == 4
    (file,) = folder.glob("CIKD_*/result.json")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["training_iteration"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_was_killed_at_its_goal_is_over(ray_cluster, tmp_path):
    """After its last checkpoint, and before Tune recorded that it had ended."""
    run_config = tune.RunConfig(
        name="at_goal",
        storage_path=str(tmp_path),
        stop={"training_iteration": 2},
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
        verbose=0,
    )
    settings = {"env": envs.DriftEnv, "ensemble_size": 2}
    tune.Tuner("CIKD", param_space=SMALL_RUN | settings, run_config=run_config).fit()
    folder = tmp_path / "at_goal"
    record = newest_record(folder)
    text = record.read_text()
    assert text.count("TERMINATED") == 1
    record.write_text(text.replace("TERMINATED", "RUNNING"))
    (result,) = restore(folder).fit()
    assert result.error is None
    assert result.metrics["training_iteration"] == 2
    assert Path(result.checkpoint.path).name == "checkpoint_000001"
    (file,) = folder.glob("CIKD_*/result.json")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["training_iteration"] for row in rows] == [1, 2]


def test_no_run_to_restore(tmp_path):
    with pytest.raises(CommandError, match="no run of Tune's"):
        restore(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
    (tmp_path / "tuner.pkl").write_bytes(b"")
    with pytest.raises(CommandError, match="has no record of its trials"):
        restore(tmp_path)
