"""The learner: SAC steps and phases of a whole ensemble, without environment and algorithm."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from experience import A, D, Experience
from helpers import ONLINE, assert_changed_only, parameters_of
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from reference_sac import Minibatch, ReferenceSAC, assert_equal_weights
from torch import Tensor

from rllib_cikd import CIKDConfig
from rllib_cikd.algorithm.replay_buffer import Batch, ReplayBuffer
from rllib_cikd.algorithm.sac_update import SACUpdate
from rllib_cikd.rllib.learner import CIKDTorchLearner
from rllib_cikd.rllib.sac_module import SACModule

K, B = 3, 16
TEACHER, STUDENTS = 1, (0, 2)
NUM_STORED = 150
#: γ has few binary digits, as `test_sac_update.py` explains.
GAMMA, ACTOR_LR = 31 / 32, 1e-3
TOLERANCE = 2e-6


@pytest.fixture(autouse=True)
def _own_torch_settings():
    """A seeded learner switches torch to deterministic algorithms, for the whole process."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)


def make_learner(
    hiddens: list[list[int]] | None = None, overrides: dict[str, dict] | None = None, **training
) -> CIKDTorchLearner:
    """A learner of K members of these layers, with these settings of their own."""
    specs = {
        f"policy_{k}": RLModuleSpec(model_config={"fcnet_hiddens": widths})
        for k, widths in enumerate(hiddens or [[8, 8]] * K)
    }
    settings = {
        "ensemble_size": K,
        "train_batch_size_per_learner": B,
        "random_steps": B,
        "replay_buffer_config": {"capacity": NUM_STORED},
        "gamma": GAMMA,
        "actor_lr": ACTOR_LR,
        "distillation_batch_size": 8,
        "distillation_updates": 20,
        "distillation_lr": 1e-2,
    }
    config = (
        CIKDConfig()
        .environment("Pendulum-v1")
        .training(**settings | training)
        .rl_module(
            rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs),
            algorithm_config_overrides_per_module=overrides or {},
        )
        .debugging(seed=0)
    )
    config.validate()
    spaces = (
        gym.spaces.Box(-9.0, 9.0, (D,), np.float32),
        gym.spaces.Box(-1.0, 1.0, (A,), np.float32),
    )
    return config.build_learner(spaces={f"policy_{k}": spaces for k in range(K)})


def update(learner: CIKDTorchLearner, num_updates: int) -> Any:
    """Stores 150 transitions, whose first observation is their number, then learns."""
    experience = Experience(NUM_STORED)
    experience.obs[:, 0] = np.arange(NUM_STORED) / 128
    return learner.update(
        transitions=dict(vars(experience)),
        num_updates=num_updates,
        timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: NUM_STORED},
    )


def trained_learner(*args, **training) -> CIKDTorchLearner:
    """After two SAC updates."""
    learner = make_learner(*args, **training)
    update(learner, 2)
    return learner


def members_of(learner: CIKDTorchLearner) -> list[SACModule]:
    return [learner.module[f"policy_{k}"] for k in range(K)]


# ---------------------------------------------------------------- SAC steps


@pytest.fixture
def steps(monkeypatch) -> list[tuple[SACUpdate, Batch, Tensor]]:
    """Every call of `SACUpdate.step`, as it happens."""
    calls: list[tuple[SACUpdate, Batch, Tensor]] = []
    step = SACUpdate.step

    def recording_step(self: SACUpdate, batch: Batch, noise: Tensor) -> Tensor:
        calls.append((self, Batch(*(x.clone() for x in batch)), noise.clone()))
        return step(self, batch, noise)

    monkeypatch.setattr(SACUpdate, "step", recording_step)
    return calls


def plain_minibatch(batch: Batch, k: int, gamma: float) -> Minibatch:
    """With n_step = 1 the discount is γ, or 0 after a termination."""
    terminated = (batch.discounts[k] == 0).float()
    torch.testing.assert_close(batch.discounts[k], gamma * (1 - terminated))
    return Minibatch(
        batch.obs[k], batch.actions[k], batch.rewards[k], terminated, batch.next_obs[k]
    )


DIFFERENT_MEMBERS = {
    "networks": ([[16, 16], [8], [16, 16]], {}),
    "settings": (
        [[16, 16]] * K,
        {
            "policy_1": {
                "gamma": 0.5,
                "tau": 0.1,
                "actor_lr": 5e-3,
                "critic_lr": 6e-3,
                "alpha_lr": 7e-3,
                "target_entropy": -4.0,
                "grad_clip": 0.1,
            }
        },
    ),
}


@pytest.mark.parametrize("difference", DIFFERENT_MEMBERS)
def test_different_members_learn_like_plain_agents(difference, steps):
    """Unequal members form two stacks; each learns with its own networks and settings."""
    hiddens, overrides = DIFFERENT_MEMBERS[difference]
    learner = make_learner(hiddens, overrides)
    assert [stack.members for stack in learner.stacks] == [[0, 2], [1]]
    modules = [learner.module[f"policy_{k}"] for k in range(K)]
    common = {
        "actor_lr": ACTOR_LR,
        "critic_lr": 3e-4,
        "alpha_lr": 3e-4,
        "gamma": GAMMA,
        "tau": 0.005,
        "target_entropy": -float(A),
    }
    arguments = [common | overrides.get(f"policy_{k}", {}) for k in range(K)]
    agents = [
        ReferenceSAC({n: w.numpy() for n, w in parameters_of(m).items()}, **settings)
        for m, settings in zip(modules, arguments, strict=True)
    ]
    update(learner, 10)
    assert len(steps) == 2 * 10
    for step, batch, noise in steps:
        for row, k in enumerate(step.stack.members):
            minibatch = plain_minibatch(batch, row, arguments[k]["gamma"])
            agents[k].update(minibatch, *noise[row])
    # Where a gradient is nearly 0, Adam turns its rounding into a part of the step size, and
    # policy_1's are three times as large as those in `test_sac_update.py`.
    for module, agent in zip(modules, agents, strict=True):
        assert_equal_weights(module, agent, 3 * TOLERANCE)


def test_learner_gives_the_same_weights_fused_and_looped():
    """An unreachable `grad_clip` of its own puts each member into a stack of one, nothing else."""
    hiddens = [[16, 16]] * K
    fused = make_learner(hiddens)
    looped = make_learner(hiddens, {f"policy_{k}": {"grad_clip": 1e8 + k} for k in range(K)})
    assert [stack.members for stack in fused.stacks] == [[0, 1, 2]]
    assert [stack.members for stack in looped.stacks] == [[0], [1], [2]]
    looped.module.set_state(fused.module.get_state())
    for learner in (fused, looped):
        update(learner, 10)
    for k in range(K):
        ours, theirs = fused.module[f"policy_{k}"], looped.module[f"policy_{k}"]
        for name, weight in ours.state_dict().items():
            torch.testing.assert_close(weight, theirs.state_dict()[name], rtol=0, atol=TOLERANCE)


def test_members_draw_minibatches_of_their_own_uniformly(steps):
    """Row counts over 300 updates: χ² of 150 rows below its 99.9 % quantile, for each member."""
    learner = make_learner([[4]] * K)
    update(learner, 300)
    rows = torch.stack([128 * batch.obs[..., 0] for _, batch, _ in steps]).long()  # [300, K, B]
    for k in range(K):
        counts = torch.bincount(rows[:, k].flatten(), minlength=150)
        expected = 300 * B / 150
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert chi_square < 206.6  # scipy.stats.chi2.ppf(0.999, df=149)
        assert not torch.equal(rows[:, k], rows[:, (k + 1) % K])
    assert len(torch.unique(rows[:, 0], dim=0)) == 300


def test_noise_of_the_updates_is_standard_normal_and_not_shared(steps):
    learner = make_learner([[4]] * K)
    update(learner, 100)
    noise = torch.stack([noise for _, _, noise in steps])  # [100, 2, K, B, A]
    n = noise.numel()
    assert abs(float(noise.mean())) < 4 / math.sqrt(n)
    assert abs(float(noise.square().mean()) - 1) < 4 * math.sqrt(2 / n)
    assert len(torch.unique(noise)) > 0.99 * n  # each member's, and at s and s', drawn apart


# ---------------------------------------------------------------- phases


@pytest.fixture
def drawn(monkeypatch) -> list[Tensor]:
    """The rows of every `ReplayBuffer.gather`, as they are asked for."""
    calls: list[Tensor] = []
    gather = ReplayBuffer.gather

    def recording_gather(self: ReplayBuffer, indices: Tensor, gamma: float) -> Batch:
        calls.append(indices.clone())
        return gather(self, indices, gamma)

    monkeypatch.setattr(ReplayBuffer, "gather", recording_gather)
    return calls


def share(learner: CIKDTorchLearner, drawn: list[Tensor]) -> tuple[dict, list[Tensor]]:
    """The report of one phase, and the rows of its minibatches (not of the assessment)."""
    drawn.clear()
    report = learner.share_knowledge(TEACHER)
    return report, [rows for rows in drawn if rows.shape != (2048,)]


def test_learner_distils_with_its_settings(drawn):
    """20 minibatches of 8 rows, each for both students; the report shows that they learned."""
    learner = trained_learner()
    before = [parameters_of(m) for m in members_of(learner)]
    report, rows = share(learner, drawn)
    assert [tuple(r.shape) for r in rows] == [(8,)] * 20
    for k, module in enumerate(members_of(learner)):
        changed = () if k == TEACHER else ONLINE["policy_and_critic"]
        assert_changed_only(before[k], module, changed)
    assert set(report) == {"kl_before", "kl_after", "critic_loss_before", "critic_loss_after"}
    for quantity in ("kl", "critic_loss"):
        for student in STUDENTS:
            assert report[f"{quantity}_after"][student] < report[f"{quantity}_before"][student]
        assert set(report[f"{quantity}_after"]) == set(STUDENTS)


@pytest.mark.parametrize("batch_size", [8, 10, 200])
def test_epochs_pass_over_the_whole_buffer(batch_size, drawn):
    """150 rows, 3 epochs: of batch 8, 18 full minibatches an epoch (the 6 rows left over differ
    by epoch), of batch 10, 15, of batch 200 the whole buffer; no row twice in an epoch."""
    learner = trained_learner(distillation_epochs=3, distillation_batch_size=batch_size)
    _, rows = share(learner, drawn)
    per_epoch = {8: 18, 10: 15, 200: 1}[batch_size]
    assert len(rows) == 3 * per_epoch
    epochs = [torch.cat(rows[i : i + per_epoch]) for i in range(0, len(rows), per_epoch)]
    for epoch in epochs:
        assert len(epoch.unique()) == len(epoch) == {8: 144, 10: 150, 200: 150}[batch_size]
    assert not torch.equal(epochs[0], epochs[1])  # shuffled anew


def test_extra_updates_are_sac_updates_of_every_member(drawn):
    """As many gradient steps as a distillation, of its batch size; the teacher learns as well."""
    learner = trained_learner(knowledge_sharing="extra_updates")
    before = [parameters_of(m) for m in members_of(learner)]
    _, rows = share(learner, drawn)
    assert [tuple(r.shape) for r in rows] == [(K, 8)] * 20
    changed = (*ONLINE["policy_and_critic"], "target_", "log_alpha")
    for state, module in zip(before, members_of(learner), strict=True):
        assert_changed_only(state, module, changed)


def test_learner_hard_copies(drawn):
    learner = trained_learner(knowledge_sharing="hard_copy")
    before = [parameters_of(m) for m in members_of(learner)]
    report, rows = share(learner, drawn)
    assert rows == []
    for student in STUDENTS:
        assert report["kl_before"][student] > 0.0
        # "Equal" up to the rounding of one product of three networks and one of two.
        assert report["kl_after"][student] == pytest.approx(0.0, abs=1e-6)
        assert report["critic_loss_after"][student] == pytest.approx(0.0, abs=1e-9)
        for name, weight in parameters_of(members_of(learner)[student]).items():
            source = TEACHER if name.startswith(ONLINE["policy_and_critic"]) else student
            assert torch.equal(weight, before[source][name])


def test_learner_resets_students_before_it_teaches():
    """Students that hardly learn are new ones after the phase. Those that learn come near the
    teacher, which they would not if they were drawn anew after the lesson."""
    learner = trained_learner(reset_students=True, distillation_lr=1e-12)
    old = parameters_of(members_of(learner)[0])["policy.0.weight"]
    learner.share_knowledge(TEACHER)
    # Two draws from U(-b, b) with b = 1/√5 are on average 2b/3 = 0.30 apart.
    new = parameters_of(members_of(learner)[0])["policy.0.weight"]
    assert float((new - old).abs().mean()) > 0.15

    learner = trained_learner(reset_students=True, distillation_updates=300)
    report = learner.share_knowledge(TEACHER)
    for student in STUDENTS:
        assert report["kl_after"][student] < report["kl_before"][student] / 5


@pytest.mark.parametrize("reset_students", [False, True])
def test_members_of_unequal_shapes_can_be_distilled(reset_students, drawn):
    """A teacher of another shape: its outputs are taught, not its weights."""
    learner = trained_learner([[8, 8], [12], [8, 8]], reset_students=reset_students)
    assert [stack.members for stack in learner.stacks] == [[0, 2], [1]]
    report, rows = share(learner, drawn)
    assert len(rows) == 20
    if not reset_students:
        for student in STUDENTS:
            assert report["kl_after"][student] < report["kl_before"][student]
    before = [parameters_of(m) for m in members_of(learner)]
    learner.share_knowledge(0)  # now it is a student itself, in a stack of its own
    for k, module in enumerate(members_of(learner)):
        changed = () if k == 0 else ONLINE["policy_and_critic"]
        assert_changed_only(before[k], module, changed)


def test_hard_copy_needs_equal_shapes_from_the_start():
    with pytest.raises(ValueError, match=r"hard_copy.*differ in shape.*model_config"):
        make_learner([[8, 8], [12], [8, 8]], knowledge_sharing="hard_copy")


# ---------------------------------------------------------------- state


def test_a_checkpoint_from_a_gpu_loads_on_a_cpu():
    """A generator's state has another form on each kind of device: 16 bytes on a GPU."""
    learner = make_learner()
    before = learner.draws.generator.get_state()
    learner.set_state({"generator": np.zeros(16, dtype=np.uint8)})
    assert torch.equal(learner.draws.generator.get_state(), before)
    learner.set_state({"generator": torch.Generator().manual_seed(5).get_state().numpy()})
    assert not torch.equal(learner.draws.generator.get_state(), before)
