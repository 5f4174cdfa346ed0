"""What tests of the engine share."""

from __future__ import annotations

import pytest
import torch

from rllib_cikd.engine import library, native


@pytest.fixture(params=["native", "plain"])
def engine(request, monkeypatch) -> str:
    """The test runs with each of the two engines."""
    if request.param == "plain":
        monkeypatch.setattr(library, "load", lambda: (None, "a test took it away."))
    elif not native.computes(torch.zeros(1)):
        pytest.skip(library.describe())
    return request.param
