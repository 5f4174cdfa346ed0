"""How commands start Ray, and what they say where trials do not fit."""

import pytest

from rllib_cikd import CIKD
from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.ray_start import check_fits, start_ray


def test_no_cluster_at_the_address(monkeypatch):
    def refuse(**_options):
        raise ConnectionError("nobody answers")

    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(CommandError, match=r"^no Ray cluster at '10.0.0.1:6379': nobody answers$"):
        start_ray("10.0.0.1:6379")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    with pytest.raises(CommandError, match=r"^no Ray cluster at '10.0.0.2:6379'"):
        start_ray(None)


def test_a_cluster_that_asks_for_a_token(monkeypatch):
    def refuse(**_options):
        cause = RuntimeError("Failed to connect to GCS: ray.exceptions.AuthenticationError: ...")
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379") from cause

    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(CommandError, match=r"at '10.0.0.1:6379'.*RAY_AUTH_MODE=token"):
        start_ray("10.0.0.1:6379")


def test_trials_that_need_more_than_there_is(ray_cluster):
    """Here there are 4 CPUs. A trial needs one for its main process and one for each runner."""
    settings = {"env": "Pendulum-v1", "num_env_runners": 3}
    assert check_fits(CIKD, settings, "experiment 'a'")["CPU"] == 4
    with pytest.raises(CommandError, match=r"^experiment 'a': a trial needs 5 CPUs, and .* has 4"):
        check_fits(CIKD, settings | {"num_env_runners": 4}, "experiment 'a'")
