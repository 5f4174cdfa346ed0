"""Episodes whose course is known, for algorithms with remote env runners; and runners that hang."""

from __future__ import annotations

import time

import envs
import numpy as np
from helpers import small_config

from rllib_cikd import CIKDConfig

LENGTHS = [1, 6, 9, 2]
ENDS = ["truncates", "terminates", "truncates", "terminates"]


def assert_each_transition_once_and_in_order(rows: dict[str, np.ndarray]) -> int:
    """Checks every environment's transitions against the course that they must have.

    Returns:
        Of how many environments there are transitions.
    """
    course = [
        (episode, step, step == LENGTHS[episode % 4] and ENDS[episode % 4] == "terminates")
        for episode in range(1000)
        for step in range(1, LENGTHS[episode % 4] + 1)
    ]
    place = {(episode, step): i for i, (episode, step, _) in enumerate(course)}
    numbers = (rows["next_obs"][:, :4] / envs.UNIT).astype(int)
    sources = {tuple(source) for source in numbers[:, :2].tolist()}
    for source in sources:
        own = (numbers[:, :2] == source).all(axis=1)
        places = [place[episode, step] for episode, step in numbers[own, 2:].tolist()]
        assert places == list(range(len(places)))
        terminated = [course[i][2] for i in places]
        assert rows["terminated"][own].tolist() == terminated
        rewards = [(course[i][0] + course[i][1]) * envs.UNIT for i in places]
        assert rows["rewards"][own].tolist() == rewards
        assert np.array_equal(rows["obs"][own, 3], rows["next_obs"][own, 3] - envs.UNIT)
        # What the environment got is what was stored, mapped from [-1, 1] to [-1, 3].
        got = rows["next_obs"][own, 4]
        assert np.allclose(got, rows["actions"][own, 0] * 2.0 + 1.0, atol=1e-5)
    return len(sources)


def remote_config(num_env_runners: int, **settings) -> CIKDConfig:
    config = small_config(
        envs.CountingEnv, env_config={"lengths": LENGTHS, "ends": ENDS}, **settings
    )
    return config.env_runners(num_env_runners=num_env_runners)


def sleep(*args, **kwargs) -> None:
    time.sleep(600)


def hang_in(group, method: str) -> None:
    """From now on, the first remote env runner hangs in this method."""
    group.foreach_env_runner(
        lambda runner: setattr(runner, method, sleep),
        remote_worker_ids=[1],
        local_env_runner=False,
    )
