"""Experiment files written by tests."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest

from rllib_cikd.experiments.experiment import Experiment, load_experiments

MINIMAL = """
    minimal:
      run: CIKD
      env: Pendulum-v1
      stop: {timesteps_total: 1000}
      config:
        ensemble_size: 2
        actor_lr: 1e-4
"""


@pytest.fixture
def minimal() -> str:
    """The text of a file with one experiment."""
    return MINIMAL


@pytest.fixture
def load(tmp_path) -> Callable[..., list[Experiment]]:
    """Returns a function that writes a file and loads its experiments."""

    def write_and_load(text: str, name: str = "experiment.yaml", **options) -> list[Experiment]:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return load_experiments(path, **options)

    return write_and_load
