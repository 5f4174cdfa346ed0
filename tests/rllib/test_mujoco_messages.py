"""MuJoCo is quiet about Gymnasium's model files, and only about them."""

from __future__ import annotations

import logging

import gymnasium as gym
import mujoco
import pytest
from helpers import small_config

from rllib_cikd.rllib.environment import create_env

KNOWN = "compiler attribute 'settotalmass' is deprecated and will be removed"
BALL = "<mujoco><worldbody><body><freejoint/><geom size='1'/></body></worldbody></mujoco>"


class Unstable(gym.Wrapper):
    """Simulates something that MuJoCo warns of, as it is made."""

    def __init__(self):
        super().__init__(gym.make("Pendulum-v1"))
        model = mujoco.MjModel.from_xml_string(BALL)
        data = mujoco.MjData(model)
        data.qvel[0] = float("nan")
        mujoco.mj_step(model, data)


class Deprecated(gym.Wrapper):
    """Has MuJoCo say what newer versions say of HalfCheetah."""

    def __init__(self):
        super().__init__(gym.make("Pendulum-v1"))
        mujoco.get_mju_user_warning()(KNOWN)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, where MuJoCo would write a file."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("env", ["HalfCheetah-v5", Deprecated])
def test_the_known_warning_is_not_shown(folder, capfd, caplog, env):
    create_env(small_config(env)).close()
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_other_warnings_are_logged(folder, capfd, caplog):
    create_env(small_config(Unstable))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "The simulation is unstable" in record.getMessage()


def test_a_handler_of_others_gets_them_and_stays(folder, caplog):
    seen: list[str] = []
    mujoco.set_mju_user_warning(seen.append)
    try:
        create_env(small_config(Unstable))
        create_env(small_config(Deprecated))
        (message,) = seen
        assert "The simulation is unstable" in message
        mujoco.get_mju_user_warning()("mine")
        assert seen[1:] == ["mine"]
    finally:
        mujoco.set_mju_user_warning(None)
    assert caplog.messages == []
