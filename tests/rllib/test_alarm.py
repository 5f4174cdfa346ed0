"""An environment that does not answer, where no other process waits for it."""

import signal
import subprocess
import sys
import threading
import time

import gymnasium as gym
import pytest
from helpers import small_config

from rllib_cikd.common.errors import EnvironmentFault
from rllib_cikd.rllib.alarm import Alarm
from rllib_cikd.rllib.environment import make_task


class Stuck(gym.Wrapper):
    """Hangs, or ends the process, at its second `reset` or third `step`."""

    def __init__(self, config):
        super().__init__(gym.make("Pendulum-v1"))
        self.where, self.how = config["where"], config["how"]
        self.resets = self.steps = 0

    def reset(self, **kwargs):
        self.resets += 1
        if self.where == "reset" and self.resets == 2:
            self.how()
        return super().reset(**kwargs)

    def step(self, action):
        self.steps += 1
        if self.where == "step" and self.steps == 3:
            self.how()
        return super().step(action)


def sleep() -> None:
    time.sleep(600)


def spin() -> None:
    while True:
        pass


def leave() -> None:
    raise SystemExit(3)


def stuck_config(where, how):
    config = small_config(Stuck, env_config={"where": where, "how": how})
    return config.env_runners(sample_timeout_s=2.0)


@pytest.mark.parametrize("how", [sleep, spin])
@pytest.mark.parametrize("where", ["reset", "step"])
def test_an_environment_that_hangs_is_named(where, how):
    task = make_task(stuck_config(where, how))
    task.reset(seed=0)
    start = time.monotonic()
    with pytest.raises(
        EnvironmentFault, match=r"env='Stuck' has not answered for 2 s \(`sample_timeout_s`\)"
    ):
        task.reset(seed=0) if where == "reset" else [task.step([0.0]) for _ in range(3)]
    assert 2.0 <= time.monotonic() - start < 20


def test_training_ends_with_it(build):
    with pytest.raises(EnvironmentFault, match=r"'Stuck' has not answered .* step 3, .*policy_"):
        build(stuck_config("step", sleep)).train()


def test_an_environment_that_ends_the_process_does_not(build):
    with pytest.raises(RuntimeError, match=r"env='Stuck' raised .* it called sys.exit\(3\)"):
        build(stuck_config("step", leave)).train()


def test_short_calls_are_many_and_each_has_its_time():
    alarm = Alarm(3.0, "x")
    for _ in range(7):
        with alarm:
            time.sleep(0.5)


def test_a_handler_of_the_users_is_left_alone():
    before = signal.signal(signal.SIGALRM, lambda *args: None)
    try:
        with Alarm(0.05, "x"):
            time.sleep(0.2)
        assert signal.getsignal(signal.SIGALRM) is not before
    finally:
        signal.signal(signal.SIGALRM, before)


ENDS_BEFORE_THE_TIMER = """
import time
from rllib_cikd.rllib.alarm import Alarm

class Slow:
    def __del__(self):  # as Python clears away what is left
        time.sleep(0.6)

slow = Slow()
with Alarm(0.3, "x"):
    pass
"""


def test_a_timer_does_not_ring_in_a_process_that_ends():
    done = subprocess.run([sys.executable, "-c", ENDS_BEFORE_THE_TIMER], check=False)
    assert done.returncode == 0


def test_other_threads_are_left_alone():
    errors = []

    def run() -> None:
        try:
            with Alarm(0.05, "x"):
                time.sleep(0.2)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert errors == []
