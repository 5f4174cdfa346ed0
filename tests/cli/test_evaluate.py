"""`rllib evaluate`: its options, its figures, and that they can be repeated."""

import json
import math
import re

import pytest
from helpers import finish, start


def test_no_checkpoint(run_main, tmp_path):
    exit_code, _, stderr = run_main("evaluate", tmp_path)
    assert exit_code == 2
    assert "no RLlib checkpoint in it" in stderr


def test_every_option_reaches_the_evaluation(run_main, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "rllib_cikd.experiments.checkpoint_evaluation.evaluate",
        lambda checkpoint, **given: seen.update(given, checkpoint=checkpoint),
    )
    run_main("evaluate", "c")
    defaults = {"checkpoint": "c", "num_episodes": 20, "member": "all", "seed": None}
    unset = {"video_folder": None, "out": None, "imports": (), "ray_address": None}
    assert seen == defaults | unset
    options = ["--episodes", 3, "--member", "best", "--seed", 0, "--video", "v", "--out", "o"]
    run_main("evaluate", "c", *options, "--import", "m", "--ray-address", "a:1")
    assert seen == {
        "checkpoint": "c",
        "num_episodes": 3,
        "member": "best",
        "seed": 0,
        "video_folder": "v",
        "out": "o",
        "imports": ["m"],
        "ray_address": "a:1",
    }


def test_a_place_for_the_figures_that_cannot_be(run_main, tmp_path):
    """Said before anything is played."""
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "figures.json", tmp_path):
        exit_code, stdout, stderr = run_main("evaluate", tmp_path / "x", "--out", out)
        assert (exit_code, stdout) == (2, "")
        assert re.search(rf"--out {out}: .+\. Give another file\.", stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_for_films_that_cannot_be(run_main, tmp_path):
    (tmp_path / "file").touch()
    exit_code, _, stderr = run_main("evaluate", tmp_path / "x", "--video", tmp_path / "file")
    assert exit_code == 2
    assert f"--video {tmp_path / 'file'}: File exists. Give a folder" in stderr


def test_a_disk_that_cannot_be_used_is_one_line(run_main, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "/data/x")

    monkeypatch.setattr("rllib_cikd.experiments.checkpoint_evaluation.evaluate", full)
    exit_code, _, stderr = run_main("evaluate", "c")
    assert exit_code == 1
    assert stderr.endswith("error: /data/x: No space left on device.\n")


def test_evaluating_twice_gives_the_same_figures(runs):
    folder, _, _ = runs
    options = ["--episodes", "3", "--out"]
    first = start("evaluate", "results/good", *options, "first.json", cwd=folder)
    again = start("evaluate", "results/good", *options, "again.json", cwd=folder)
    exit_code, stdout, stderr = finish(first)
    assert exit_code == 0, stderr
    assert finish(again)[0] == 0
    results = json.loads((folder / "first.json").read_text())
    assert results == json.loads((folder / "again.json").read_text())

    (checkpoint,) = folder.glob("results/good/CIKD_*/checkpoint_*")
    assert results["checkpoint"] == str(checkpoint)
    assert (results["algorithm"], results["env"]) == ("CIKD", "Pendulum-v1")
    assert (results["episodes"], results["seed"]) == (3, 0)
    assert results["num_env_steps_sampled_lifetime"] == 800
    assert list(results["members"]) == ["policy_0", "policy_1"]
    means = []
    for policy_id, member in results["members"].items():
        assert member["lengths"] == [200] * 3
        assert len(member["returns"]) == 3
        means.append(sum(member["returns"]) / 3)
        assert re.search(rf"^{policy_id} +{means[-1]:,.1f} ", stdout, re.MULTILINE)
    summary = results["summary"]
    assert math.isclose(summary["best_return_mean"], max(means))
    assert math.isclose(summary["worst_return_mean"], min(means))
    assert math.isclose(summary["mean_return_mean"], sum(means) / 2)
    elected = results["elected_policy"]
    assert summary["elected_return_mean"] == pytest.approx(means[int(elected[-1])])
    assert re.search(rf"^{elected} .*<- elected$", stdout, re.MULTILINE)
