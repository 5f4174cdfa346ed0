"""Fixtures of the tests that build whole algorithms."""

from __future__ import annotations

import os

# Before ray and torch are imported: no chatter of Ray's, and one thread. On a busy machine the
# threads of tiny matrix products wait for each other most of the time.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import envs
import pytest
import ray
import torch

from rllib_cikd import CIKD, CIKDConfig

torch.set_num_threads(1)
logging.getLogger("ray._common.deprecation").setLevel(logging.ERROR)


#: Where whole runs are started, from the longest on.
_LONGEST = (
    *("experiments/test_run.py", "experiments/test_tuning_runs.py", "study/test_run.py"),
    *("behaviour/", "cli/", "rllib/"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first: at the end, one worker would wait for another."""

    def rank(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((i for i, part in enumerate(_LONGEST) if part in path), len(_LONGEST))

    items.sort(key=rank)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A quiet local Ray for all tests that need one."""
    if ray.is_initialized():
        ray.shutdown()
    # Ray's workers load `envs`, too.
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _fresh_counting_envs() -> None:
    envs.CountingEnv.clear()
    envs.DriftEnv.first_observations.clear()


@pytest.fixture
def build(ray_cluster) -> Iterator[Callable[[CIKDConfig], CIKD]]:
    """`build(config)` builds an algorithm that is stopped at the end of the test."""
    algorithms = []

    def build_algorithm(config: CIKDConfig) -> CIKD:
        algorithms.append(config.build_algo())
        return algorithms[-1]

    yield build_algorithm
    for algorithm in algorithms:
        algorithm.stop()
