"""Adam over stacked parameters against PyTorch's own, and moments that vanish."""

from __future__ import annotations

import pytest
import torch

from rllib_cikd.engine import optimizer
from rllib_cikd.engine.optimizer import Adam


@pytest.mark.parametrize("size", [1, 33, 5_000])
def test_equals_pytorch_s_unfused_adam(size):
    torch.manual_seed(0)
    ours = torch.randn(size, requires_grad=True)
    plain = ours.detach().clone().requires_grad_()
    adam, reference = Adam([ours], lr=3e-4), torch.optim.Adam([plain], lr=3e-4, foreach=False)
    for step in range(300):
        if step == 150:
            adam.param_groups[0]["lr"] = reference.param_groups[0]["lr"] = 1e-2
        ours.grad = torch.randn(size)
        plain.grad = ours.grad.clone()
        adam.descend()
        reference.step()
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_vanished_moments_become_zero_and_others_stay(monkeypatch):
    monkeypatch.setattr(optimizer, "_STEPS_BETWEEN_FLUSHES", 1)
    parameter = torch.zeros(6, requires_grad=True)
    adam = Adam([parameter], lr=3e-4)
    parameter.grad = torch.zeros(6)
    adam.descend()
    state = adam.state[parameter]
    # One step with gradient 0 multiplies the first moment by 0.9 and the second by 0.999.
    state["exp_avg"][:] = torch.tensor([1e-39, -1e-31, -1e-29, 0.0, 1.0, -1.0])
    state["exp_avg_sq"][:] = torch.tensor([1e-39, 1e-33, 1e-31, 0.0, 1.0, 1.0])
    adam.descend()
    assert not state["exp_avg"][:2].any()
    assert not state["exp_avg_sq"][:2].any()
    assert state["exp_avg"][2:].tolist() == pytest.approx([-9e-30, 0.0, 0.9, -0.9])
    assert state["exp_avg_sq"][2:].tolist() == pytest.approx([9.99e-32, 0.0, 0.999, 0.999])
