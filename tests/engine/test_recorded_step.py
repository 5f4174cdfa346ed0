"""Steps on a GPU: nothing in them waits for the device, and replays equal ordinary calls.

The tests of the first kind need no GPU: fake tensors have no values, so whatever would wait for a
value raises. Those of the second kind are skipped without one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from rllib_cikd.algorithm import knowledge_sharing
from rllib_cikd.algorithm.ensemble import MemberStack
from rllib_cikd.algorithm.knowledge_sharing import AdvantageFilter, Teacher, distill
from rllib_cikd.algorithm.replay_buffer import Batch, ReplayBuffer
from rllib_cikd.algorithm.sac_update import SACSettings, SACUpdate
from rllib_cikd.engine import recorded_step
from rllib_cikd.engine.optimizer import Adam
from rllib_cikd.engine.recorded_step import RecordedStep
from rllib_cikd.rllib.sac_module import SACModule

K, B, D, A = 3, 8, 5, 2

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def _sac_update(device: str = "cpu", **settings) -> SACUpdate:
    spaces = {
        "observation_space": gym.spaces.Box(-9.0, 9.0, (D,), np.float32),
        "action_space": gym.spaces.Box(-1.0, 1.0, (A,), np.float32),
    }
    config = {"fcnet_hiddens": [16, 16], "initial_alpha": 1.0}
    torch.manual_seed(0)
    modules = [SACModule(**spaces, model_config=config) for _ in range(K)]
    if device != "cpu":
        modules = [module.to(device) for module in modules]
    return SACUpdate(MemberStack(range(K), modules), SACSettings(target_entropy=-2.0, **settings))


def _replay_buffer(device: str = "cpu", n_step: int = 1) -> ReplayBuffer:
    buffer = ReplayBuffer(64, D, A, device, n_step)
    rng = np.random.default_rng(0)
    buffer.add(
        obs=rng.normal(size=(64, D)),
        actions=rng.uniform(-1, 1, size=(64, A)),
        rewards=rng.normal(size=64),
        next_obs=rng.normal(size=(64, D)),
        terminated=rng.random(64) < 0.1,
        truncated=np.zeros(64, bool),
        episodes=np.zeros(64, int),
    )
    return buffer


def _fake_buffer(n_step: int) -> ReplayBuffer:
    """Full, without contents."""
    buffer = ReplayBuffer(64, D, A, n_step=n_step)
    buffer.num_added = 64
    return buffer


@pytest.mark.parametrize("shared", [False, True], ids=["own targets", "shared targets"])
@pytest.mark.parametrize(("n_step", "grad_clip"), [(1, None), (3, 10.0)])
def test_a_sac_step_waits_for_no_result(n_step, grad_clip, shared):
    with FakeTensorMode():
        update, buffer = _sac_update(grad_clip=grad_clip), _fake_buffer(n_step)
        for _ in range(2):
            rows = torch.randint(64, (K, B))
            pairs = torch.randperm(2 * K).view(2, K) if shared else None
            noise = torch.randn(K, 2, B, A)
            statistics = update.step(buffer.gather(rows, 0.99), noise, pairs)
        assert statistics.shape == (len(SACUpdate.STATISTICS), K)
        with pytest.raises(DataDependentOutputException):  # that is how it would be noticed
            statistics[0, 0].item()


@pytest.mark.parametrize("filtered", [False, True])
def test_a_distillation_step_waits_for_no_result(filtered):
    with FakeTensorMode():
        stack, buffer = _sac_update().stack, _fake_buffer(1)
        imitated = AdvantageFilter([stack]) if filtered else None
        teacher = Teacher([stack], 0)
        policy = stack.policy.select([1, 2], trainable=True)
        critics = stack.critics.select(stack.twins([1, 2]), trainable=True)
        optimizer = Adam([policy.parameters, critics.parameters], lr=1e-3)
        step = knowledge_sharing._distillation_step(teacher, policy, critics, optimizer, imitated)
        batch = buffer.gather(torch.randint(64, (B,)), 0.99)
        for _ in range(2):
            step(batch.obs, batch.obs_and_actions)


# ---------------------------------------------------------------- Recording, with a stand-in


class _StandIn:
    """Takes the place of a CUDA graph where there is no GPU: a replay calls the function again."""

    def __init__(self, monkeypatch, recordable: bool = True):
        self.recordings = self.replays = 0
        self._recordable = recordable
        monkeypatch.setattr(recorded_step, "_on_gpu", lambda arguments: True)
        monkeypatch.setattr(recorded_step, "_side_stream", lambda device: None)
        monkeypatch.setattr(recorded_step, "_clear_workspaces", lambda: None)
        monkeypatch.setattr(RecordedStep, "_cannot_record", False)
        monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
        monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch.cuda, "graph", self._record)
        monkeypatch.setattr(
            RecordedStep, "_call_aside", lambda step, arguments: step._step(*arguments)
        )

    @contextmanager
    def _record(self, graph, stream) -> Iterator[None]:
        if not self._recordable:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.recordings += 1
        yield

    def replay(self) -> None:
        self.replays += 1
        self.step._result.copy_(self.step._step(*self.step._arguments))


def test_after_some_calls_a_step_is_recorded_and_then_only_replayed(monkeypatch):
    stand_in = _StandIn(monkeypatch)
    stand_in.step = double = RecordedStep(lambda x: 2 * x)
    for i in range(10):
        assert double(torch.full((3,), float(i))).tolist() == [2.0 * i] * 3
    assert stand_in.recordings == 1
    assert stand_in.replays == 10 - recorded_step._CALLS_BEFORE_RECORDING


def test_a_step_that_waits_for_other_processes_is_never_recorded(monkeypatch):
    stand_in = _StandIn(monkeypatch)
    double = RecordedStep(lambda x: 2 * x, records=False)
    for i in range(10):
        assert double(torch.full((3,), float(i))).tolist() == [2.0 * i] * 3
    assert stand_in.recordings == stand_in.replays == 0


def test_a_step_is_recorded_anew_for_other_shapes_and_other_memory(monkeypatch):
    stand_in = _StandIn(monkeypatch)
    factor = [2.0]
    optimizer = torch.optim.Adam([torch.zeros(1)], lr=factor[0])
    stand_in.step = scale = RecordedStep(lambda x: factor[0] * x, [optimizer])
    for n in (3, 4):
        for _ in range(5):
            assert scale(torch.ones(n)).tolist() == [2.0] * n
    assert stand_in.recordings == 2
    factor[0] = optimizer.param_groups[0]["lr"] = 5.0
    for _ in range(5):
        assert scale(torch.ones(4)).tolist() == [5.0] * 4
    assert stand_in.recordings == 3


def test_what_cannot_be_recorded_is_called_as_it_is_and_said_once(monkeypatch, caplog):
    stand_in = _StandIn(monkeypatch, recordable=False)
    stand_in.step = double = RecordedStep(lambda x: 2 * x)
    for i in range(10):
        assert double(torch.full((3,), float(i))).tolist() == [2.0 * i] * 3
    assert stand_in.replays == 0
    assert caplog.text.count("no CUDA graph") == 1


def test_what_a_recording_of_an_update_is_valid_for():
    update, buffer = _sac_update(), _replay_buffer()

    def step() -> None:
        update.step(buffer.gather(torch.randint(64, (K, B)), 0.99), torch.randn(K, 2, B, A))

    recorded = RecordedStep(step, list(update.optimizers.values()))
    kept = recorded._kept_by_a_recording
    step()
    valid_for = kept()
    step()
    update.reset_moments([0])
    assert kept() == valid_for
    update.optimizers["actor"].param_groups[0]["lr"] = 1e-5
    assert kept() != valid_for
    valid_for = kept()
    update.optimizers["actor"].load_state_dict(update.optimizers["actor"].state_dict())
    assert kept() == valid_for  # torch keeps a state that is the same
    state = update.optimizers["actor"].state_dict()
    state["state"] = {i: {n: t.clone() for n, t in s.items()} for i, s in state["state"].items()}
    update.optimizers["actor"].load_state_dict(state)
    assert kept() != valid_for


# ---------------------------------------------------------------- On a GPU


@needs_gpu
@pytest.mark.parametrize(("n_step", "grad_clip"), [(1, None), (3, 10.0)])
def test_replayed_updates_equal_those_on_a_cpu(n_step, grad_clip):
    torch.manual_seed(1)
    rows = torch.randint(64, (20, K, B))
    noise = torch.randn(20, K, 2, B, A)
    parameters: dict[str, list[Tensor]] = {}
    for device in ("cpu", "cuda"):
        update, buffer = _sac_update(device, grad_clip=grad_clip), _replay_buffer(device, n_step)
        step = RecordedStep(
            lambda rows, noise, update=update, buffer=buffer: update.step(
                buffer.gather(rows, 0.99), noise
            ),
            list(update.optimizers.values()),
        )
        results = []
        for i in range(20):
            if i == 8:  # what restoring a checkpoint and a schedule do
                for optimizer in update.optimizers.values():
                    state = copy.deepcopy(optimizer.state_dict())
                    state["param_groups"][0]["lr"] = 1e-3
                    optimizer.load_state_dict(state)
            results.append(step(rows[i].to(device), noise[i].to(device)).cpu().clone())
        stack = update.stack
        networks = (stack.policy, stack.critics, stack.target_critics)
        parameters[device] = [n.parameters.detach().cpu() for n in networks]
        parameters[device] += [stack.log_alpha.detach().cpu(), torch.stack(results)]
    assert step._graph is not None
    for on_cpu, on_gpu in zip(parameters["cpu"], parameters["cuda"], strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-4, atol=2e-5)


@needs_gpu
def test_replayed_distillation_equals_that_on_a_cpu():
    students: dict[str, list[Tensor]] = {}
    for device in ("cpu", "cuda"):
        stack, buffer = _sac_update(device).stack, _replay_buffer(device)
        torch.manual_seed(1)
        rows = torch.randint(64, (20, B)).to(device)

        def minibatches(buffer=buffer, rows=rows) -> Iterator[Batch]:
            return (buffer.gather(minibatch, 0.99) for minibatch in rows)

        distill([stack], Teacher([stack], 0), minibatches, lr=1e-3)
        students[device] = [n.parameters.detach().cpu() for n in (stack.policy, stack.critics)]
    for on_cpu, on_gpu in zip(students["cpu"], students["cuda"], strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-4, atol=2e-5)
