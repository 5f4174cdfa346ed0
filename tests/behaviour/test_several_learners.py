"""A run with two learners: equal networks, one buffer in two parts, checkpoints for any number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import MEMBERS, learner_of, small_config

from rllib_cikd import CIKD
from rllib_cikd.rllib.learner_group import ask_learners

BATCH = 8


def config(**training):
    """Iterations are whole episodes. At the phase at 675, parts hold 338 and 337 transitions: the
    longer one has one distillation minibatch of 26 more."""
    return small_config(
        fragment=25,
        steps_per_iteration=200,
        distillation_interval=75,
        distillation_epochs=1,
        distillation_batch_size=26,
        reset_students=True,
        **training,
    ).env_runners(observation_filter="MeanStdFilter")


def states_of(algo: CIKD) -> list[dict[str, Any]]:
    """The state of each learner, its part of the buffer included."""
    return ask_learners(algo.learner_group, lambda learner: learner.get_state())


def numbers(state: dict[str, Any], *parts: str) -> dict[str, np.ndarray]:
    """All numbers in these parts of a learner's state, by their place in it."""
    found: dict[str, np.ndarray] = {}

    def look(place: str, value: Any) -> None:
        if isinstance(value, (dict, list, tuple)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, part in items:
                look(f"{place}/{key}", part)
        elif value is not None:
            found[place] = np.asarray(value)

    for part in parts:
        look(part, state[part])
    return found


LEARNED = ("rl_module", "optimizer", "observation_statistics")


@pytest.fixture(scope="module")
def run(ray_cluster, tmp_path_factory):
    """600 steps, a checkpoint, and 200 steps more."""
    algo = config().learners(num_learners=2).build_algo()
    algo.results = [algo.train() for _ in range(3)]
    algo.path = algo.save_to_path(str(tmp_path_factory.mktemp("two")))
    algo.saved = states_of(algo)
    algo.results.append(algo.train())
    algo.end = states_of(algo)
    yield algo
    algo.stop()


def test_learners_stay_equal(run):
    """Networks, temperatures, moments, statistics of observations: the same bits."""
    first, second = (numbers(state, *LEARNED) for state in run.end)
    assert len(first) > 50
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert np.array_equal(value, second[name]), name
    assert not np.array_equal(run.end[0]["generator"], run.end[1]["generator"])
    before = numbers(run.saved[0], "rl_module")
    moved = [n for n, v in before.items() if not np.array_equal(v, first[n])]
    assert any("policy_0" in name for name in moved)


def test_all_is_counted_once(run):
    result, history = run.results[-1], run.history
    assert history.env_steps == history.stored == 800
    assert result["ensemble"]["num_updates_lifetime"] == 800 - 50
    trained = result["learners"]["__all_modules__"]["num_env_steps_trained_lifetime"]
    assert trained == (800 - 50) * BATCH * 2
    due = 800 // 75
    assert history.num_phases + history.num_skipped_phases == due
    assert history.num_phases >= 4
    phase = result["ensemble"]["distillation"]
    for student in set(MEMBERS) - {f"policy_{history.teacher}"}:
        assert np.isfinite(phase["kl_before"][student])
        assert np.isfinite(phase["kl_after"][student])
    for member in MEMBERS:
        assert np.isfinite(result["learners"][member]["qf_loss"])


def test_each_transition_is_with_one_learner(run):
    """In the state of all, they are in the order in which they came."""
    parts = [state["replay_buffer"]["rows"] for state in run.end]
    assert [len(part) for part in parts] == [400, 400]
    whole = run.learner_group.get_state()["learner"]["replay_buffer"]
    assert whole["num_added"] == 800
    assert np.array_equal(whole["rows"][0::2], parts[0])
    assert np.array_equal(whole["rows"][1::2], parts[1])
    obs, next_obs = whole["rows"][:, :3], whole["rows"][:, -3:]
    for episode in range(4):
        steps = slice(200 * episode, 200 * episode + 199)
        assert np.array_equal(next_obs[steps], obs[1:][steps])


def test_observations_are_normalised_by_those_of_all(run):
    obs = run.learner_group.get_state()["learner"]["replay_buffer"]["rows"][:, :3]
    statistics = run.end[1]["observation_statistics"]
    assert statistics["count"] == 800
    np.testing.assert_allclose(statistics["mean"], obs.mean(0, dtype=float), rtol=1e-5, atol=1e-6)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(run):
    """Restored and trained on, both learners end with the same bits as without the stop."""
    run.restore_from_path(run.path)
    for state, saved in zip(states_of(run), run.saved, strict=True):
        assert numbers_equal(state, saved)
    assert run.history.stored == 600
    run.train()
    for state, expected in zip(states_of(run), run.end, strict=True):
        assert numbers_equal(state, expected)


def numbers_equal(state: dict[str, Any], expected: dict[str, Any]) -> bool:
    parts = (*LEARNED, "generator", "replay_buffer")
    ours, theirs = numbers(state, *parts), numbers(expected, *parts)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not np.array_equal(ours[name], theirs[name])] == []
    return True


def test_a_checkpoint_of_two_goes_on_in_one_and_back(run, tmp_path):
    manifest = json.loads((Path(run.path) / "cikd_manifest.json").read_text())
    assert manifest["transitions"] == 600
    one = CIKD.from_checkpoint(run.path, config={"num_learners": 0})
    try:
        state, saved = learner_of(one).get_state(), run.saved
        assert len(state["replay_buffer"]["rows"]) == one.history.stored == 600
        for rank in range(2):
            rows = saved[rank]["replay_buffer"]["rows"]
            assert np.array_equal(state["replay_buffer"]["rows"][rank::2], rows)
        ours, theirs = numbers(state, *LEARNED), numbers(saved[0], *LEARNED)
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
        one.train()
        assert one.history.num_updates == 800 - 50
        state, path = learner_of(one).get_state(), one.save_to_path(str(tmp_path))
    finally:
        one.stop()
    run.restore_from_path(path)
    two = states_of(run)
    for rank in range(2):
        part = two[rank]["replay_buffer"]
        assert part["num_added"] == 400
        assert np.array_equal(part["rows"], state["replay_buffer"]["rows"][rank::2])
        assert numbers(two[rank], "rl_module").keys() == numbers(state, "rl_module").keys()
    # The second learner was not there: it draws for itself.
    assert np.array_equal(two[0]["generator"], state["generator"])
    assert not np.array_equal(two[0]["generator"], two[1]["generator"])
    assert torch.isfinite(torch.tensor(run.train()["learners"]["policy_0"]["qf_loss"]))
    assert run.history.num_updates == 1000 - 50


def test_with_twice_the_batch_intensity_means_half_the_updates(run):
    """`training_intensity` is of all learners together: trained by sampled steps."""
    settings = config(training_intensity=BATCH).learners(num_learners=2)
    assert settings.updates_per_step == 0.5


def test_a_learner_that_fails_alone_stops_the_run(run):
    """The other one, which waits for it, too; the error is that of the cause. This comes last."""

    def spoil(learner) -> None:
        if learner.learners.rank == 1:
            learner.replay_buffer.gather = None

    ask_learners(run.learner_group, spoil)
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        run.train()
