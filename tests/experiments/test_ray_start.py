"""How commands start Ray, and what they say where trials do not fit."""

import socket

import pytest

from rllib_cikd import CIKD
from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.ray_start import check_fits, start_ray


@pytest.fixture
def address():
    """Where something listens that is no Ray cluster."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_nobody_listens_at_the_address(address, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(CommandError, match=f"^no Ray cluster at '{free}': .*refused"):
        start_ray(free)
    monkeypatch.setenv("RAY_ADDRESS", f"ray://{free}")
    with pytest.raises(CommandError, match=f"^no Ray cluster at 'ray://{free}': .*refused"):
        start_ray(None)


def test_no_cluster_at_the_address(monkeypatch, address):
    def refuse(**options):
        raise ConnectionError(f"nobody answers at {options['address']}")

    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(
        CommandError, match=f"^no Ray cluster at '{address}': nobody answers at {address}$"
    ):
        start_ray(address)


def test_a_cluster_that_asks_for_a_token(monkeypatch, address):
    def refuse(**_options):
        cause = RuntimeError("Failed to connect to GCS: ray.exceptions.AuthenticationError: ...")
        raise ConnectionError(f"Failed to connect to Ray cluster at {address}") from cause

    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(CommandError, match=f"at '{address}'.*RAY_AUTH_MODE=token"):
        start_ray(address)


def test_trials_that_need_more_than_there_is(ray_cluster):
    """Here there are 4 CPUs. A trial needs one for its main process and one for each runner."""
    settings = {"env": "Pendulum-v1", "num_env_runners": 3}
    assert check_fits(CIKD, settings, "experiment 'a'")["CPU"] == 4
    with pytest.raises(CommandError, match=r"^experiment 'a': a trial needs 5 CPUs, and .* has 4"):
        check_fits(CIKD, settings | {"num_env_runners": 4}, "experiment 'a'")
