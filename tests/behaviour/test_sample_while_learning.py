"""`sample_while_learning`: the same transitions and counts; policies one fragment older."""

from __future__ import annotations

import time
from collections.abc import Callable

import envs
import numpy as np
import pytest
import ray
import torch
from courses import assert_each_transition_once_and_in_order, hang_in, remote_config
from helpers import (
    MEMBERS,
    assert_same_state,
    full_state,
    learner_of,
    rows_of,
    small_config,
)

from rllib_cikd import CIKD

#: Learning starts only after the end of these runs.
NEVER = 5_000


def before_each_update(algo: CIKD, call: Callable[[int], None]) -> None:
    """Calls a function just before the learner's n-th update, with n = 1, 2, …"""
    learner = learner_of(algo)
    update, count = learner.update, 0

    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        call(count)
        return update(*args, **kwargs)

    learner.update = counted


def play(algo: CIKD, version: int) -> None:
    """From now on the learner's policies play version / 100, without noise."""
    (stack,) = learner_of(algo).stacks
    with torch.no_grad():
        stack.policy.weights[-1].zero_()
        stack.policy.biases[-1][:, 0, 0] = np.arctanh(version / 100)
        stack.policy.biases[-1][..., 1] = -20.0


def steps_of(rows: dict[str, np.ndarray]) -> list[int]:
    """Of each transition in a `CountingEnv`, which step of its episode it is."""
    return [int(n) for n in rows["next_obs"][:, 3] / envs.UNIT]


@pytest.mark.parametrize("ahead", [False, True])
def test_policies_lag_by_one_fragment_at_most(build, ahead):
    """The n-th update leaves version n. Random actions end with the same fragment as ever."""
    config = remote_config(
        1,
        fragment=7,
        random_steps=20,
        num_steps_sampled_before_learning_starts=NEVER,
        sample_while_learning=ahead,
    )
    algo = build(config)
    under_way = []

    def look_and_play(n: int) -> None:
        under_way.append(algo.env_runner_group.num_in_flight_async_reqs("sample_fragment"))
        play(algo, n)

    before_each_update(algo, look_and_play)
    result = [algo.train() for _ in range(3)][-1]
    assert set(under_way) == {1 if ahead else 0}
    rows = rows_of(algo)
    steps = len(rows["rewards"])
    assert steps == algo.history.env_steps == result["num_env_steps_sampled_lifetime"] == 3 * 105
    assert assert_each_transition_once_and_in_order(rows) == 1
    versions = rows["actions"][:, 0].reshape(-1, 7) * 100
    random, played = versions[:3], versions[3:]
    # Fragment m = 1, 2, … is sampled after m - 1 updates, or ahead of the last of them.
    expected = np.arange(3, len(versions)) - (1 if ahead else 0)
    assert np.allclose(played, expected[:, None], atol=1e-3)
    assert len(np.unique(random)) == random.size
    assert random.min() < 0
    # Between iterations, the remote members equal the learner's.
    (state,) = algo.env_runner_group.foreach_env_runner(
        lambda runner: runner.module.get_state(), local_env_runner=False
    )
    own = learner_of(algo).module.get_state(inference_only=True)
    for member in MEMBERS:
        for name, value in own[member].items():
            assert np.array_equal(state[member][name], value), name


def test_with_one_env_runner_and_a_seed_a_run_repeats_to_the_bit(build):
    config = small_config(
        envs.DriftEnv, policy_selection="softmax", sample_while_learning=True, fragment=25
    )
    config.env_runners(num_env_runners=1).evaluation(evaluation_interval=1)
    runs = [build(config.copy(copy_frozen=False)) for _ in range(2)]
    results = [[algo.train() for _ in range(4)][-1] for algo in runs]
    one, other = (full_state(algo) for algo in runs)
    assert_same_state(one, other)
    first, second = (result["evaluation"]["ensemble"] for result in results)
    assert repr(first) == repr(second)
    # Updates, phases and evaluation go by the stored transitions, as ever.
    history, ensemble = runs[0].history, results[0]["ensemble"]
    assert history.env_steps == history.stored == 400
    assert history.num_updates == 350
    assert history.num_phases + history.num_skipped_phases == 4
    assert history.num_phases >= 3
    assert first["num_env_steps_sampled_lifetime"] == 400
    finished = sum(ensemble["episodes_lifetime"].values())
    assert finished == results[0]["env_runners"]["num_episodes_lifetime"] > 10


def test_a_checkpoint_holds_the_fragment_under_way(build, tmp_path):
    """Live or restored, the next iteration begins with it; nothing is lost or counted twice."""
    lengths = {"lengths": [30], "ends": ["terminates"]}
    config = small_config(
        envs.CountingEnv, env_config=lengths, fragment=25, sample_while_learning=True
    )
    algo = build(config.env_runners(num_env_runners=1))
    algo.train()
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    changes = {"num_env_runners": 0, "sample_while_learning": False}
    restored = CIKD.from_checkpoint(path, config=changes)
    try:
        assert restored.history.env_steps == algo.history.env_steps == 100
        restored.train()
        rows, history = rows_of(restored), restored.history
        # The fourth episode goes on to its end at 120; the fifth is cut at 125, where the
        # checkpoint's fragment ends. The rest is the main process's own environment.
        assert steps_of(rows) == [n % 30 + 1 for n in [*range(125), *range(75)]]
        assert np.array_equal(rows["obs"][:, 0], np.repeat([envs.UNIT, 0.0], [125, 75]))
        assert (history.env_steps, history.env_steps_lost, history.num_updates) == (200, 0, 150)
        assert sum(history.episodes) == 4 + 2
        assert restored._reader.longest_ongoing == 15
        # Of the first two episodes, the warm-up played a part. The main process counts from 0.
        returns = {r for window in history.returns.get_state() for _, r in window}
        assert returns == {(sum(range(1, 31)) + 30 * e) * envs.UNIT for e in range(4)}
    finally:
        restored.stop()
    algo.train()
    assert steps_of(rows_of(algo)) == [n % 30 + 1 for n in range(200)]
    assert algo.history.env_steps_lost == 0
    assert sum(algo.history.episodes) == 6
    # A restore of a live algorithm drops what it has under way, and takes up the checkpoint's.
    algo.restore_from_path(path)
    algo.train()
    assert len(rows_of(algo)["rewards"]) == algo.history.env_steps == 200
    assert steps_of(rows_of(algo))[:125] == [n % 30 + 1 for n in range(125)]


@pytest.mark.parametrize("fault", ["is killed", pytest.param("hangs", marks=pytest.mark.slow)])
def test_an_env_runner_that_fails_in_the_fragment_under_way(build, caplog, fault):
    config = remote_config(2, sample_while_learning=True)
    algo = build(config.env_runners(sample_timeout_s=5.0))
    killed = []

    def kill(n: int) -> None:
        if fault == "is killed" and n == 2:  # in the fragment in which it hangs
            assert algo.env_runner_group.num_in_flight_async_reqs("sample_fragment") == 2
            actor = algo.env_runner_group._worker_manager.actors()[1]
            killed.append(ray.kill(actor, no_restart=False))

    before_each_update(algo, kill)
    algo.train()
    hang_in(algo.env_runner_group, "sample_fragment")
    for _ in range(30):
        result = algo.train()
        if result["fault_tolerance"]["num_remote_worker_restarts"]:
            break
    result = algo.train()
    assert result["fault_tolerance"]["num_remote_worker_restarts"] == 1
    assert result["fault_tolerance"]["num_healthy_workers"] == 2
    assert any("did not answer within" in message for message in caplog.messages) != bool(killed)
    steps = algo.history.env_steps
    rows = rows_of(algo)
    assert len(rows["rewards"]) == steps == result["timesteps_total"]
    assert algo.history.num_updates == steps - 50
    ours, other = ((rows["obs"][:, 0] == n * envs.UNIT) for n in (1, 2))
    assert ours.sum() + other.sum() == steps
    of_other = {name: values[other] for name, values in rows.items()}
    assert assert_each_transition_once_and_in_order(of_other) == 1
    # The new env runner has a new environment, which counts from 0 again.
    of_ours = {name: values[ours] for name, values in rows.items()}
    (restart,) = np.flatnonzero(np.diff(of_ours["obs"][:, 2]) < 0)
    for part in (slice(0, restart + 1), slice(restart + 1, None)):
        course = {name: values[part] for name, values in of_ours.items()}
        assert assert_each_transition_once_and_in_order(course) == 1


def test_a_fault_comes_back_with_the_fragment_and_a_hang_does_not_hold_up_the_end(build):
    broken = {"lengths": [1000], "broken": "reward", "broken_at": 83}
    config = small_config(envs.CountingEnv, env_config=broken, sample_while_learning=True)
    config.env_runners(num_env_runners=1, sample_timeout_s=3.0)
    algo = build(config)
    words = r"non-finite reward.*near environment step 83, while policy_\d was acting"
    with pytest.raises(ValueError, match=words):
        algo.train()
    assert len(rows_of(algo)["rewards"]) == algo.history.env_steps == 50
    hang_in(algo.env_runner_group, "sample_fragment")
    algo._sampler.sample_ahead(*algo._who_acts())
    start = time.monotonic()
    algo.stop()
    assert 3.0 <= time.monotonic() - start < 30.0
