"""Live progress of a study."""

from __future__ import annotations

from rllib_cikd.study.study_progress import StudyProgress


class FakeTrial:
    def __init__(self, name, status, steps):
        self.name, self.status = name, status
        self.last_result = {"num_env_steps_sampled_lifetime": steps}
        self.trial_id = name

    def __str__(self):
        return self.name


def test_a_studys_progress_tells_the_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rllib_cikd.study.study_progress.time.monotonic", lambda: now[0])
    progress = StudyProgress("s", {"a": 1000, "b": 1000, "c": 2000})
    a, b = FakeTrial("a", "TERMINATED", 1040), FakeTrial("b", "RUNNING", 200)
    progress.on_trial_start(0, [a, b], b)  # resumed: 1,200 of 4,000 steps were done
    now[0], b.last_result = 150.0, {"num_env_steps_sampled_lifetime": 1000}
    # 800 steps in 50 s; 2,000 are left: 125 s.
    alone = FakeTrial("d", "TERMINATED", 700)  # not in the study's file any more
    line = progress.summary([a, b, alone], ending=b)
    assert line == "s: 2 of 3 runs ended, 50% of all steps, 2m 05s left"
