"""A run's counters, R_k and phases, by hand."""

from __future__ import annotations

import json
import math

import pytest

from rllib_cikd.algorithm.history import (
    FinishedEpisode,
    History,
    by_member,
    crossings,
    updates_due,
)

NAN = math.nan

# ---------------------------------------------------------------- updates due


@pytest.mark.parametrize(
    ("before", "after", "starts_at", "per_step", "expected"),
    [
        (100, 150, 0, 1.0, 50),
        (0, 50, 50, 1.0, 0),  # learning starts beyond 50 transitions, not at them
        (50, 51, 50, 1.0, 1),
        (30, 80, 50, 1.0, 30),  # 30 of these 50 are beyond the start
        (0, 40, 50, 1.0, 0),
        (60, 60, 50, 1.0, 0),
        (50, 60, 50, 2.5, 25),
        # 0.375 · (0, 1, 2, 3) = 0, 0.375, 0.75, 1.125: the third step has the first update.
        (50, 51, 50, 0.375, 0),
        (51, 52, 50, 0.375, 0),
        (52, 53, 50, 0.375, 1),
    ],
)
def test_updates_due(before, after, starts_at, per_step, expected):
    assert updates_due(before, after, starts_at, per_step) == expected


@pytest.mark.parametrize("fragments", [[1] * 77, [7] * 11, [40, 1, 36], [77]])
@pytest.mark.parametrize("per_step", [0.375, 1.0, 2.5])
def test_no_fraction_of_an_update_is_lost_between_fragments(fragments, per_step):
    """77 transitions of which 57 are beyond the start: 57 · 0.375 = 21.4, 57, 57 · 2.5 = 142.5."""
    stored, total = 0, 0
    for length in fragments:
        total += updates_due(stored, stored + length, 20, per_step)
        stored += length
    assert total == {0.375: 21, 1.0: 57, 2.5: 142}[per_step]


# ---------------------------------------------------------------- crossings


@pytest.mark.parametrize(
    ("before", "after", "interval", "expected"),
    [
        (0, 99, 100, 0),
        (0, 100, 100, 1),  # t mod I = 0
        (100, 199, 100, 0),  # a multiple is crossed once, by who reaches it
        (100, 200, 100, 1),
        (99, 101, 100, 1),
        (50, 350, 100, 3),
        (7, 8, 1, 1),
    ],
)
def test_crossings(before, after, interval, expected):
    assert crossings(before, after, interval) == expected


# ---------------------------------------------------------------- counters


def test_a_new_history_knows_nothing():
    history = History(ensemble_size=2, return_window=5)
    assert (history.env_steps, history.stored, history.num_updates) == (0, 0, 0)
    assert history.elected is None
    assert history.evaluation_best is None
    # As text, because NaN is not equal to itself.
    assert repr(history.log(shares_knowledge=False, assessed=False)) == repr(
        {
            "return_mean": {"policy_0": NAN, "policy_1": NAN},
            "episodes_lifetime": {"policy_0": 0, "policy_1": 0},
            "times_teacher": {"policy_0": 0, "policy_1": 0},
            "teacher": NAN,
            "num_distillations_lifetime": 0,
            "num_skipped_phases_lifetime": 0,
            "num_updates_lifetime": 0,
            "num_env_steps_lost_lifetime": 0,
        }
    )


def test_episodes_make_r_k_and_elect():
    """M = 2. Member 0: 1, 2, 6 -> (2 + 6) / 2 = 4; member 2: 3; member 1 none."""
    history = History(3, 2)
    history.record_episodes([FinishedEpisode(0, 1.0), FinishedEpisode(2, 3.0)])
    assert history.elected == 2
    history.record_episodes(iter([FinishedEpisode(0, 2.0), FinishedEpisode(0, 6.0)]))
    assert history.elected == 0
    log = history.log(shares_knowledge=False, assessed=False)
    assert log["return_mean"] == pytest.approx(
        {"policy_0": 4.0, "policy_1": NAN, "policy_2": 3.0}, nan_ok=True
    )
    assert log["episodes_lifetime"] == {"policy_0": 3, "policy_1": 0, "policy_2": 1}


def test_steps_count_twice_and_end_what_an_evaluation_said():
    history = History(2, 5)
    history.evaluation_best = 1
    history.record_steps(50)
    history.record_steps(7)
    assert (history.env_steps, history.stored) == (57, 57)
    assert history.evaluation_best is None


# ---------------------------------------------------------------- phases


REPORT = {
    "kl_before": {0: 5.0, 2: 7.0},
    "kl_after": {0: 0.5, 2: 0.7},
    "critic_loss_before": {0: 3.0, 2: 4.0},
    "critic_loss_after": {0: 0.3, 2: 0.4},
    "return_before": {0: -2.0, 1: 8.0, 2: -1.0},
    "return_after": {0: 4.0, 1: 8.0, 2: 9.0},
    "students_above_teacher": 0.5,
    "teacher_was_best": 1.0,
    "election_regret": 0.0,
    "time_s": 1.25,
}


def test_log_of_a_phase():
    """The teacher, member 1, has no distance to itself."""
    history = History(3, 5)
    history.record_phase(2, {})
    history.record_phase(1, REPORT)
    history.num_skipped_phases = 4
    log = history.log(shares_knowledge=True, assessed=True)
    assert log["teacher"] == 1
    assert log["times_teacher"] == {"policy_0": 0, "policy_1": 1, "policy_2": 1}
    assert log["num_distillations_lifetime"] == 2
    assert log["num_skipped_phases_lifetime"] == 4
    phase = log["distillation"]
    assert phase.pop("time_s") == 1.25
    assert phase.pop("students_above_teacher") == 0.5
    assert phase.pop("teacher_was_best") == 1.0
    assert phase.pop("election_regret") == 0.0
    expected = {
        "kl_before": [5.0, NAN, 7.0],
        "kl_after": [0.5, NAN, 0.7],
        "critic_loss_before": [3.0, NAN, 4.0],
        "critic_loss_after": [0.3, NAN, 0.4],
        "return_before": [-2.0, 8.0, -1.0],
        "return_after": [4.0, 8.0, 9.0],
    }
    assert set(phase) == set(expected)
    for name, values in expected.items():
        assert phase[name] == pytest.approx(by_member(values), nan_ok=True), name


def test_the_log_has_the_same_keys_before_and_after_the_first_phase():
    """Tune's CSV fixes its columns at the first result."""
    for assessed in (False, True):
        history = History(3, 5)
        before = history.log(shares_knowledge=True, assessed=assessed)["distillation"]
        history.record_phase(1, REPORT)
        after = history.log(shares_knowledge=True, assessed=assessed)["distillation"]
        assert list(before) == list(after)
        assert ("return_before" in after) == ("students_above_teacher" in after) == assessed
        assert math.isnan(before["time_s"])
        assert all(math.isnan(value) for value in before["kl_after"].values())


def test_without_knowledge_sharing_the_log_has_no_phase():
    assert "distillation" not in History(3, 5).log(shares_knowledge=False, assessed=True)


# ---------------------------------------------------------------- state


def eventful_history() -> History:
    history = History(3, 2)
    history.record_episodes([FinishedEpisode(0, 1.0), FinishedEpisode(2, 3.0)])
    history.record_steps(57)
    history.record_phase(1, REPORT)
    history.num_updates, history.num_skipped_phases = 7, 4
    history.last_evaluation = {"ensemble": {"best_policy": 2}}
    history.evaluation_best = 2
    return history


def test_state_round_trip():
    """Everything but `stored`, which the buffer knows. The restored one goes on by itself:
    M = 2, so 3 and 5 make (3 + 5) / 2 = 4."""
    history, restored = eventful_history(), History(3, 2)
    restored.record_episodes([FinishedEpisode(1, 99.0)] * 2)
    restored.set_state(history.get_state())
    assert restored.stored == 0
    restored.stored = history.stored
    assert vars(restored) | {"returns": None} == vars(history) | {"returns": None}
    restored.record_episodes([FinishedEpisode(2, 5.0)])
    assert restored.return_means() == pytest.approx([1.0, NAN, 4.0], nan_ok=True)


def test_state_is_of_plain_types():
    """Tune and RLlib write it down, and other versions read it."""
    state = eventful_history().get_state()
    assert state.keys() >= {"env_steps", "num_updates", "episodes", "times_teacher", "returns"}
    written = json.loads(json.dumps(state | {"last_phase": {}}))
    assert written == state | {"last_phase": {}}


def test_state_is_not_changed_by_what_comes_after():
    history = eventful_history()
    state = history.get_state()
    history.record_episodes([FinishedEpisode(0, 50.0)])
    history.record_phase(0, {})
    restored = History(3, 2)
    restored.set_state(state)
    assert restored.episodes == [1, 0, 1]
    assert restored.times_teacher == [0, 1, 0]
    assert restored.return_means() == pytest.approx([1.0, NAN, 3.0], nan_ok=True)


def test_by_member():
    assert by_member([3.0, 4.0]) == {"policy_0": 3.0, "policy_1": 4.0}
