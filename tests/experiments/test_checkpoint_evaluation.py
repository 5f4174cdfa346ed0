"""Checkpoints are found and loaded anywhere; what is said of their members."""

import os
import sys
from types import ModuleType
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
from helpers import small_config

from rllib_cikd import CIKDConfig
from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.checkpoint_evaluation import (
    _load,
    evaluate_checkpoint,
    format_evaluation,
)
from rllib_cikd.rllib.checkpoint_files import find_checkpoint


def test_evaluation_needs_nothing_of_what_trained(build, tmp_path):
    config = CIKDConfig().environment("Pendulum-v1").env_runners(num_env_runners=1)
    config.evaluation(evaluation_interval=1, evaluation_num_env_runners=1)
    config.training(ensemble_size=2, sample_while_learning=True)
    path = build(config).save_to_path(str(tmp_path / "checkpoint"))
    algorithm = _load(find_checkpoint(path), num_episodes=1, seed=None)
    assert algorithm.env_runner_group.num_remote_env_runners() == 0
    assert algorithm.eval_env_runner_group.num_remote_env_runners() == 0
    assert not os.path.exists(algorithm.logdir)  # RLlib makes one for each algorithm
    algorithm.stop()


@pytest.fixture
def checkpoint(build, tmp_path):
    """Of two members, none of which has finished an episode."""
    return find_checkpoint(build(small_config(ensemble_size=2)).save_to_path(str(tmp_path / "c")))


def test_members_that_have_not_been_elected(checkpoint):
    evaluation = evaluate_checkpoint(checkpoint, num_episodes=2, seed=3)
    means = [np.mean(member["returns"]) for member in evaluation["members"].values()]
    assert evaluation["elected_policy"] is None
    assert evaluation["summary"] == {
        "best_return_mean": pytest.approx(max(means)),
        "worst_return_mean": pytest.approx(min(means)),
        "mean_return_mean": pytest.approx(np.mean(means)),
        "elected_return_mean": None,
    }
    text = format_evaluation(evaluation)
    assert "elected          -  none yet: the best by its last training episodes" in text
    assert "2 episodes, seed 3, deterministic actions" in text


def test_one_member_alone(checkpoint):
    evaluation = evaluate_checkpoint(checkpoint, num_episodes=1, member="policy_1")
    assert list(evaluation["members"]) == ["policy_1"]
    with pytest.raises(CommandError, match="give all, best, elected, or one of policy_0, policy_1"):
        evaluate_checkpoint(checkpoint, num_episodes=1, member="policy_2")
    with pytest.raises(CommandError, match="no member has finished a training episode yet"):
        evaluate_checkpoint(checkpoint, num_episodes=1, member="elected")


class Filmed(gym.Env):
    """Episodes of 3 steps; a frame shows the number of the step."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, env_context, render_mode=None):
        self.render_mode = render_mode
        self.num_steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.num_steps = 0
        return self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32), {}

    def step(self, action):
        self.num_steps += 1
        observation = np.full(2, action[0], np.float32)
        return observation, 1.0, False, self.num_steps == 3, {}

    def render(self):
        return np.full((4, 4, 3), self.num_steps, np.uint8)


@pytest.fixture
def films(monkeypatch):
    """The videos that have been written: their frames, by path."""
    films = {}

    class Clip:
        def __init__(self, frames, fps):
            self.frames = [int(frame[0, 0, 0]) for frame in frames]

        def write_videofile(self, path, logger):
            films[path] = self.frames

    names = ["moviepy", "moviepy.video", "moviepy.video.io", "moviepy.video.io.ImageSequenceClip"]
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[names[-1]].ImageSequenceClip = Clip
    return films


def test_videos_of_members(build, tmp_path, films):
    algo = build(small_config(Filmed, ensemble_size=2))
    path = find_checkpoint(algo.save_to_path(str(tmp_path / "c")))
    folder = tmp_path / "films"
    evaluation = evaluate_checkpoint(path, num_episodes=1, video_folder=folder)
    names = [str(folder / f"policy_{k}-episode-0.mp4") for k in (0, 1)]
    assert evaluation["videos"] == names
    assert films == {name: [0, 1, 2, 3] for name in names}


def test_no_videos_without_a_renderer(checkpoint, tmp_path):
    with pytest.raises(CommandError, match=r"^no video: (?s:.*)pip install 'rllib-cikd\[video\]'"):
        evaluate_checkpoint(checkpoint, num_episodes=1, video_folder=tmp_path)
