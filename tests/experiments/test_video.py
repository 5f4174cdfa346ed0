"""`rllib evaluate --video` sees the environment as training does."""

from __future__ import annotations

import points
import pytest
from helpers import small_config

from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.checkpoint_evaluation import evaluate_checkpoint

pytest.importorskip("moviepy")


@pytest.mark.parametrize(
    ("env", "env_config"),
    [
        (points.Point, {}),
        (points.Point, {"render_mode": "human"}),
        (points.Settings, {"render_mode": "rgb_array", "size": 3}),
        (points.Structured, {}),
    ],
)
def test_a_video_of_any_environment(build, tmp_path, env, env_config):
    path = build(small_config(env, env_config=env_config)).save_to_path(str(tmp_path / "saved"))
    evaluation = evaluate_checkpoint(
        tmp_path / "saved", num_episodes=1, member="policy_1", video_folder=tmp_path / "videos"
    )
    assert str(path).endswith("saved")
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert evaluation["videos"] == [str(video)]
    assert video.stat().st_size > 0


def test_a_video_of_an_endless_episode_is_one_line(build, tmp_path):
    algo = build(small_config(points.Endless, max_evaluation_steps=30))
    algo.save_to_path(str(tmp_path / "saved"))
    with pytest.raises(CommandError, match="the video's episode has not ended after 30 steps"):
        evaluate_checkpoint(tmp_path / "saved", num_episodes=1, video_folder=tmp_path / "videos")
