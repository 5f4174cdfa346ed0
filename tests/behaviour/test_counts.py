"""Steps that are counted are steps that were stored, and steps that were lost are known."""

from __future__ import annotations

import envs
import numpy as np
import pytest
from helpers import flat, learner_of, rows_of, small_config

from rllib_cikd import CIKD
from rllib_cikd.experiments.checkpoint_evaluation import evaluate_checkpoint
from rllib_cikd.rllib.manifest import check_checkpoint

STEPS = "num_env_steps_sampled_lifetime"


@pytest.mark.parametrize("num_envs", [1, 4])
def test_environments_that_crash_again_and_again(build, tmp_path, num_envs):
    """Every 17th step of all raises, so that no fragment of 50 steps comes to its end."""
    config = small_config(
        envs.CountingEnv,
        env_config={"lengths": [6], "ends": ["terminates"], "raises_every": 17},
        num_envs=num_envs,
        steps_per_iteration=200,
    ).fault_tolerance(restart_failed_sub_environments=True)
    algo = build(config)
    result = flat([algo.train() for _ in range(2)][-1])
    rows = rows_of(algo)
    stored = len(rows["rewards"])
    assert algo.history.env_steps == stored == learner_of(algo).replay_buffer.num_added
    assert result[STEPS] == result["timesteps_total"] == stored
    assert result[f"env_runners/{STEPS}"] == stored
    assert 400 <= stored < 460
    assert result["ensemble/num_updates_lifetime"] == stored - 50
    # What each environment did is what was stored, in order; the step that raised is lost, and so
    # are those that others took beside it.
    taken = next(envs.CountingEnv._steps) - 1
    lost = result["ensemble/num_env_steps_lost_lifetime"]
    assert stored + lost == taken
    assert taken // 17 <= lost <= taken // 17 * num_envs
    numbers = (rows["next_obs"][:, :4] / envs.UNIT).astype(int)
    for instance in np.unique(numbers[:, 1]):
        own = numbers[numbers[:, 1] == instance]
        log = [(episode, step) for episode, step, *_ in envs.CountingEnv.log[instance]]
        assert own[:, 2:].tolist() == [list(place) for place in log[: len(own)]]
        terminated = rows["terminated"][numbers[:, 1] == instance]
        assert terminated.tolist() == [step == 6 for step in own[:, 3]]
    # No return of an episode that was cut off by a crash counts.
    returns = {r for window in algo.history.returns.get_state() for _, r in window}
    assert returns <= {(sum(range(1, 7)) + 6 * e) * envs.UNIT for e in range(40)}
    assert algo._reader._ongoing.keys() <= {e.id_ for e in algo.env_runner._ongoing_episodes}

    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    assert check_checkpoint(path).env_steps == stored
    assert CIKD.from_checkpoint(path).history.env_steps_lost == lost


def test_restarted_environments_start_from_other_states(build):
    """From the same ones they would crash again in the same step."""
    algo = build(small_config(CrashingDrift).fault_tolerance(restart_failed_sub_environments=True))
    algo.train()
    starts = envs.DriftEnv.first_observations
    assert len(starts) == len(set(starts)) > 5


class CrashingDrift(envs.DriftEnv):
    def step(self, action):
        result = super().step(action)
        if self.step_count == 11:
            raise OSError("simulator crashed")
        return result


def test_steps_of_a_fragment_that_came_too_late_are_lost(build):
    """As far as they are known: later steps of the same episode tell of them."""
    algo = build(small_config(envs.CountingEnv, env_config={"lengths": [1000]}))
    algo.training_step()
    algo.env_runner.sample_fragment()  # which nobody gets
    algo.training_step()
    assert algo.history.env_steps == 100
    assert algo.history.env_steps_lost == 50


def test_evaluation_of_a_checkpoint_tells_the_same_steps(build, tmp_path):
    algo = build(small_config(envs.DriftEnv))
    algo.train()
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    assert evaluate_checkpoint(tmp_path / "checkpoint", num_episodes=1)[STEPS] == 100
    assert check_checkpoint(path).env_steps == 100
