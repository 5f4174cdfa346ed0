"""Distillation and the other ways to share, on members that have learned a little Pendulum."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers import ONLINE, assert_changed_only, parameters_of
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from rllib_cikd import CIKDConfig
from rllib_cikd.algorithm.ensemble import MemberStack, group_members
from rllib_cikd.algorithm.knowledge_sharing import (
    AdvantageFilter,
    Teacher,
    distance_to_teacher,
    distill,
    hard_copy,
    renew_target_critics,
    reset_students,
    share_imitated,
)
from rllib_cikd.algorithm.replay_buffer import Batch, ReplayBuffer
from rllib_cikd.algorithm.sac_update import SACSettings, SACUpdate
from rllib_cikd.engine import native
from rllib_cikd.rllib.sac_module import SACModule

K, B, A, D = 3, 32, 1, 3
TEACHER, STUDENTS = 1, (0, 2)
NUM_TRAINING, NUM_HELD_OUT = 3000, 1000

Weights = dict[str, Tensor]


def _module(hiddens: tuple[int, ...] = (64, 64), dtype: torch.dtype = torch.float32) -> SACModule:
    return SACModule(
        observation_space=gym.spaces.Box(-9.0, 9.0, (D,), np.float32),
        action_space=gym.spaces.Box(-1.0, 1.0, (A,), np.float32),
        model_config={"fcnet_hiddens": list(hiddens), "initial_alpha": 0.02},
    ).to(dtype)


def _pendulum_transitions(num_transitions: int) -> dict[str, np.ndarray]:
    """Uniform random actions in Pendulum-v1, whose torque is twice the action."""
    env, rng = gym.make("Pendulum-v1"), np.random.default_rng(0)
    rows, episode = [], 0
    obs, _ = env.reset(seed=0)
    for _ in range(num_transitions):
        action = rng.uniform(-1, 1, size=A).astype(np.float32)
        next_obs, reward, terminated, truncated, _ = env.step(2 * action)
        rows.append((obs, action, reward, next_obs, terminated, truncated, episode))
        obs = next_obs
        if terminated or truncated:
            episode += 1
            obs, _ = env.reset()
    names = ("obs", "actions", "rewards", "next_obs", "terminated", "truncated", "episodes")
    return {n: np.array(c) for n, c in zip(names, zip(*rows, strict=True), strict=True)}


@pytest.fixture(scope="module")
def buffer() -> ReplayBuffer:
    """Rows to learn from, then rows held out."""
    buffer = ReplayBuffer(NUM_TRAINING + NUM_HELD_OUT, D, A)
    buffer.add(**_pendulum_transitions(NUM_TRAINING + NUM_HELD_OUT))
    return buffer


@pytest.fixture(scope="module")
def trained(buffer) -> list[Weights]:
    """The weights of K members after 300 SAC updates."""
    torch.manual_seed(0)
    modules = [_module() for _ in range(K)]
    settings = SACSettings(actor_lr=1e-3, critic_lr=1e-3, alpha_lr=1e-3)
    update = SACUpdate(MemberStack(range(K), modules), settings)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        rows = torch.randint(NUM_TRAINING, (K, 64), generator=generator)
        noise = torch.randn(K, 2, 64, A, generator=generator)
        update.step(buffer.gather(rows, 0.99), noise)
    return [parameters_of(m) for m in modules]


@pytest.fixture
def held_out(buffer) -> Batch:
    return buffer.gather(torch.arange(NUM_TRAINING, NUM_TRAINING + NUM_HELD_OUT), 0.99)


def _ensemble(
    weights: list[Weights], looped: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[list[SACModule], list[MemberStack]]:
    """Members with these weights, in one stack or in stacks of one."""
    modules = [_module(dtype=dtype) for _ in weights]
    for module, state in zip(modules, weights, strict=True):
        module.load_state_dict(state)
    settings = range(len(weights)) if looped else [0] * len(weights)
    return modules, group_members(modules, list(settings))


def _minibatches(
    buffer: ReplayBuffer, num_updates: int, batch_size: int = B, dtype=torch.float32
) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(7)
    for rows in torch.randint(NUM_TRAINING, (num_updates, batch_size), generator=generator):
        yield Batch(*(x.to(dtype) for x in buffer.gather(rows, 0.99)))


# ---------------------------------------------------------------- distillation


@pytest.fixture(scope="module", params=["one stack", "stacks of one"])
def default_phase(request, trained, buffer):
    """One phase with CIKD's default settings: members, and distances before and after."""
    config = CIKDConfig()
    modules, stacks = _ensemble(trained, looped=request.param == "stacks of one")
    held_out = buffer.gather(torch.arange(NUM_TRAINING, NUM_TRAINING + NUM_HELD_OUT), 0.99)
    teacher = Teacher(stacks, TEACHER)
    before = distance_to_teacher(stacks, teacher, held_out)
    assert config.distillation_epochs is None
    minibatches = functools.partial(
        _minibatches, buffer, config.distillation_updates, config.distillation_batch_size
    )
    distill(stacks, teacher, minibatches, config.distillation_lr, config.distillation_targets)
    return modules, before, distance_to_teacher(stacks, Teacher(stacks, TEACHER), held_out)


def test_a_phase_brings_every_student_near_its_teacher(default_phase):
    """On transitions that no minibatch held. Seen over three seeds and all teachers: KL to 1/550
    or less, critic distance to 1/30 or less."""
    _, before, after = default_phase
    assert set(before) == set(after) == set(STUDENTS)
    for student in STUDENTS:
        assert before[student][0] > 1.0  # there was something to learn
        assert before[student][1] > 0.2
        assert after[student][0] < before[student][0] / 50
        assert after[student][1] < before[student][1] / 10


def test_a_phase_touches_only_the_students_online_networks(default_phase, trained):
    """The teacher, all target networks and all temperatures have the same bits as before."""
    modules, _, _ = default_phase
    for k, module in enumerate(modules):
        changed = () if k == TEACHER else ONLINE["policy_and_critic"]
        assert_changed_only(trained[k], module, changed)


@pytest.mark.parametrize("targets", ["policy", "critic"])
@pytest.mark.parametrize("looped", [False, True])
def test_targets_choose_what_is_distilled(targets, looped, trained, buffer, held_out):
    modules, stacks = _ensemble(trained, looped)
    teacher = Teacher(stacks, TEACHER)
    before = distance_to_teacher(stacks, teacher, held_out)
    distill(stacks, teacher, lambda: _minibatches(buffer, 60), 1e-3, targets)
    after = distance_to_teacher(stacks, teacher, held_out)
    for k, module in enumerate(modules):
        assert_changed_only(trained[k], module, () if k == TEACHER else ONLINE[targets])
    for student in STUDENTS:
        kl, critic = (after[student][i] / before[student][i] for i in range(2))
        assert kl < 0.7 if targets == "policy" else kl == 1.0
        assert critic < 0.7 if targets == "critic" else critic == 1.0


def _plain_distillation(
    student: SACModule,
    teacher: SACModule,
    batches: list[Batch],
    lr: float,
    targets: str,
    judges: list[SACModule] | None = None,
) -> None:
    """What distillation is, with PyTorch's own networks, KL, mean squared error and Adam.

    With `judges`, policies learn only where these members prefer the teacher's action.
    """
    networks = {"policy": [student.policy], "critic": [student.qf1, student.qf2]}
    networks["policy_and_critic"] = networks["policy"] + networks["critic"]
    parameters = [p for network in networks[targets] for p in network.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=lr)

    def gaussian(module: SACModule, obs: Tensor) -> Independent:
        mean, log_std = module.policy(obs).chunk(2, -1)
        return Independent(Normal(mean, log_std.clamp(-20, 2).exp()), 1)

    for batch in batches:
        inputs = torch.cat([batch.obs, batch.actions], -1)
        loss = torch.zeros(())
        if targets != "critic":
            kl = kl_divergence(gaussian(teacher, batch.obs), gaussian(student, batch.obs))
            if judges is not None:
                kl = kl * _teacher_is_better(judges, teacher, student, batch.obs)
            loss = loss + kl.mean()
        if targets != "policy":
            for name in ("qf1", "qf2"):
                expected = getattr(teacher, name)(inputs).detach()
                loss = loss + nn.functional.mse_loss(getattr(student, name)(inputs), expected)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def _teacher_is_better(
    judges: list[SACModule], teacher: SACModule, student: SACModule, obs: Tensor
) -> Tensor:
    values = []
    for actor in (teacher, student):
        mean, _ = actor.policy(obs).chunk(2, -1)
        inputs = torch.cat([obs, mean.tanh()], -1)
        smaller = [torch.minimum(j.qf1(inputs), j.qf2(inputs)).squeeze(-1) for j in judges]
        values.append(sum(smaller) / len(judges))
    return values[0] > values[1]


@pytest.mark.parametrize("looped", [False, True], ids=["batched", "looped"])
def test_students_imitate_where_the_ensemble_prefers_the_teacher(looped, trained, buffer):
    """50 updates in float64. The judges are the members as they were; policies change."""
    double = torch.float64
    modules, stacks = _ensemble(trained, looped, double)
    judges = copy.deepcopy(modules)
    plain = copy.deepcopy(modules)
    for module in plain:
        module.requires_grad_(True)
    minibatches = functools.partial(_minibatches, buffer, 50, dtype=double)
    imitated, teacher = AdvantageFilter(stacks), Teacher(stacks, TEACHER)
    held_out = next(_minibatches(buffer, 1, 500, double))
    shares = share_imitated(stacks, teacher, imitated, held_out)
    assert set(shares) == set(STUDENTS)
    for student, share in shares.items():
        preferred = _teacher_is_better(judges, judges[TEACHER], judges[student], held_out.obs)
        assert share == pytest.approx(float(preferred.double().mean()))
        assert 0.05 < share < 0.95  # it is a filter
    distill(stacks, teacher, minibatches, 2e-3, imitated=imitated)
    for student in STUDENTS:
        _plain_distillation(
            plain[student], judges[TEACHER], minibatches(), 2e-3, "policy_and_critic", judges
        )
        for name, weight in parameters_of(modules[student]).items():
            expected = plain[student].state_dict()[name]
            torch.testing.assert_close(weight, expected, rtol=0, atol=1e-12, msg=name)
    assert_changed_only(parameters_of(judges[TEACHER]), modules[TEACHER], ())


@pytest.mark.parametrize("looped", [False, True], ids=["batched", "looped"])
def test_target_critics_are_renewed(looped, trained):
    modules, stacks = _ensemble(trained, looped)
    renew_target_critics(stacks, TEACHER)
    for k, module in enumerate(modules):
        now = module.state_dict()
        for name, weight in trained[k].items():
            source = name
            if k != TEACHER and name.startswith("target_"):
                source = name.removeprefix("target_")
                assert not torch.equal(trained[k][source], weight)
            assert torch.equal(now[name], trained[k][source]), name


@pytest.mark.parametrize("targets", ["policy_and_critic", "policy", "critic"])
@pytest.mark.parametrize("looped", [False, True], ids=["batched", "looped"])
def test_distillation_equals_a_plain_loop_for_each_student(targets, looped, trained, buffer):
    """50 updates in float64: each student ends where it ends alone, weight by weight."""
    double = torch.float64
    modules, stacks = _ensemble(trained, looped, double)
    plain = [_module(dtype=double) for _ in range(K)]
    for module, state in zip(plain, trained, strict=True):
        module.load_state_dict(state)
    minibatches = functools.partial(_minibatches, buffer, 50, dtype=double)
    distill(stacks, Teacher(stacks, TEACHER), minibatches, 2e-3, targets)
    for student in STUDENTS:
        _plain_distillation(plain[student], plain[TEACHER], minibatches(), 2e-3, targets)
    for ours, theirs, start in zip(modules, plain, trained, strict=True):
        for name, weight in parameters_of(ours).items():
            torch.testing.assert_close(
                weight, theirs.state_dict()[name], rtol=0, atol=1e-12, msg=name
            )
        moved = (ours.state_dict()["qf1.0.weight"] - start["qf1.0.weight"]).abs().max()
        assert (moved > 1e-3) == (ours is not modules[TEACHER] and targets != "policy")


def test_float32_distillation_does_not_depend_on_batching(trained, buffer):
    """50 updates of both students at once, and of each in a stack of its own."""
    ends = []
    for looped in (False, True):
        modules, stacks = _ensemble(trained, looped)
        distill(stacks, Teacher(stacks, TEACHER), lambda: _minibatches(buffer, 50), 1e-3)
        ends.append([parameters_of(m) for m in modules])
    for one, other in zip(*ends, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-5, msg=name)


def test_each_phase_starts_a_fresh_optimiser_and_leaves_sac_s_alone(trained, buffer):
    """Two phases from the same weights end in the same weights, and SAC's moments stay."""
    modules, stacks = _ensemble(trained)
    update = SACUpdate(stacks[0], SACSettings())
    rows = torch.arange(K * B).view(K, B)
    update.step(buffer.gather(rows, 0.99), torch.randn(K, 2, B, A))
    start, moments = [parameters_of(m) for m in modules], _moments(update)
    ends = []
    for _ in range(2):
        for module, state in zip(modules, start, strict=True):
            module.load_state_dict(state)
        distill(stacks, Teacher(stacks, TEACHER), lambda: _minibatches(buffer, 5), 1e-3)
        ends.append([parameters_of(m) for m in modules])
    assert all(torch.equal(ends[0][0][name], ends[1][0][name]) for name in start[0])
    assert not torch.equal(ends[0][0]["policy.0.weight"], start[0]["policy.0.weight"])
    for name, tensors in _moments(update).items():
        assert all(torch.equal(a, b) for a, b in zip(tensors, moments[name], strict=True))
    assert stacks[0].is_attached()


def test_without_students_nothing_is_drawn(trained):
    """K = 1: the teacher has no one to teach."""
    modules, stacks = _ensemble(trained[:1])

    def no_minibatches():
        raise AssertionError("drew a minibatch for nobody")

    distill(stacks, Teacher(stacks, 0), no_minibatches, 1e-3)
    assert_changed_only(trained[0], modules[0], ())


def test_the_teacher_is_a_copy(trained):
    """Students of the same stack may change while the teacher teaches."""
    _, stacks = _ensemble(trained)
    teacher, x = Teacher(stacks, TEACHER), torch.randn(1, 4, D)
    before = teacher.policy(x)
    with torch.no_grad():
        stacks[0].policy.parameters.zero_()
    assert torch.equal(teacher.policy(x), before)
    assert not teacher.policy.parameters.requires_grad
    assert not teacher.critics.parameters.requires_grad


@pytest.mark.parametrize("looped", [False, True])
@pytest.mark.parametrize("teacher", range(K))
def test_distance_to_teacher_equals_torch(teacher, looped, trained, held_out):
    """Mean KL of `torch.distributions`, and mean squared differences of the members' critics."""
    modules, stacks = _ensemble(trained, looped)
    distances = distance_to_teacher(stacks, Teacher(stacks, teacher), held_out)
    assert set(distances) == set(range(K)) - {teacher}
    inputs = torch.cat([held_out.obs, held_out.actions], -1)
    for student, (kl, critic) in distances.items():
        gaussians = []
        for module in (modules[teacher], modules[student]):
            mean, log_std = module.policy(held_out.obs).chunk(2, -1)
            gaussians.append(Independent(Normal(mean, log_std.clamp(-20, 2).exp()), 1))
        assert kl == pytest.approx(float(kl_divergence(*gaussians).mean()), rel=1e-4)
        squares = [
            ((getattr(modules[teacher], q)(inputs) - getattr(modules[student], q)(inputs)) ** 2)
            for q in ("qf1", "qf2")
        ]
        assert critic == pytest.approx(float(squares[0].mean() + squares[1].mean()), rel=1e-4)


def test_distance_to_teacher_does_not_depend_on_the_number_of_threads(trained, held_out):
    """Many rows, which PyTorch would divide among its threads."""
    if not native.computes(torch.zeros(1)):
        pytest.skip("the plain engine's products are PyTorch's")
    _, stacks = _ensemble(trained, looped=False)
    rows = torch.arange(60_000) % len(held_out.obs)
    many = Batch(*(x[rows] for x in held_out))
    before, distances = torch.get_num_threads(), []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        distances.append(distance_to_teacher(stacks, Teacher(stacks, TEACHER), many))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert distances[0] == distances[1] == distances[2]


# ---------------------------------------------------------------- hard copy


@pytest.mark.parametrize("targets", ["policy_and_critic", "policy", "critic"])
@pytest.mark.parametrize("looped", [False, True])
def test_hard_copy_makes_online_networks_equal(targets, looped, trained):
    """First critics of the teacher to first, second to second; targets and temperatures stay."""
    modules, stacks = _ensemble(trained, looped)
    hard_copy(stacks, Teacher(stacks, TEACHER), targets)
    for k, module in enumerate(modules):
        for name, weight in parameters_of(module).items():
            copied = name.startswith(ONLINE[targets])
            assert torch.equal(weight, trained[TEACHER if copied else k][name]), name
    assert all(stack.is_attached() for stack in stacks)


@pytest.mark.parametrize("hiddens", [(64,), (32, 64), (64, 63)])
@pytest.mark.parametrize("direction", ["to", "from"])
def test_hard_copy_of_unequal_shapes_is_refused(hiddens, direction, trained):
    modules = [_module(), _module(hiddens)]
    stacks = group_members(modules, [0, 0])
    before = [parameters_of(m) for m in modules]
    with pytest.raises(ValueError, match="shape"):
        hard_copy(stacks, Teacher(stacks, 0 if direction == "to" else 1))
    for module, state in zip(modules, before, strict=True):
        assert_changed_only(state, module, ())


def test_hard_copy_does_not_spread_a_narrow_network_over_a_wide_one():
    """Weights of a layer of one unit fit any width by broadcasting."""
    modules = [_module((1, 1)), _module((4, 4))]
    stacks = group_members(modules, [0, 0])
    with pytest.raises(ValueError, match="shape"):
        hard_copy(stacks, Teacher(stacks, 0))


# ---------------------------------------------------------------- reset


def _moments(update: SACUpdate) -> dict[tuple[str, str], list[Tensor]]:
    """Of policies and critics, a tensor `[networks, ...]` for each of their layers' parts."""
    networks = {"actor": update.stack.policy, "critic": update.stack.critics}
    return {
        (name, key): [block.clone() for block in stacked.split(state[key])]
        for name, stacked in networks.items()
        for state in update.optimizers[name].state.values()
        for key in ("exp_avg", "exp_avg_sq")
    }


def _updates_with_moments(
    trained: list[Weights], buffer: ReplayBuffer, looped: bool
) -> tuple[list[SACModule], list[SACUpdate]]:
    modules, stacks = _ensemble(trained, looped)
    updates = [SACUpdate(stack, SACSettings()) for stack in stacks]
    for update in updates:
        n = len(update.stack)
        batch = buffer.gather(torch.arange(n * B).view(n, B), 0.99)
        update.step(batch, torch.randn(n, 2, B, A, generator=torch.Generator().manual_seed(0)))
    return modules, updates


@pytest.mark.parametrize("looped", [False, True])
def test_reset_draws_the_students_anew_and_forgets_their_moments(looped, trained, buffer):
    """Only online networks, only of students; none is like another; SAC goes on from there."""
    modules, updates = _updates_with_moments(trained, buffer, looped)
    before, moments_before = [parameters_of(m) for m in modules], [_moments(u) for u in updates]
    rng_state = torch.get_rng_state()
    reset_students(updates, TEACHER, seed=5)
    assert torch.equal(rng_state, torch.get_rng_state())
    for k, module in enumerate(modules):
        changed = () if k == TEACHER else ONLINE["policy_and_critic"]
        assert_changed_only(before[k], module, changed)
    drawn = [getattr(modules[k], q)[0].weight for k in STUDENTS for q in ("qf1", "qf2")]
    assert not any(torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])

    for update, old in zip(updates, moments_before, strict=True):
        stack, new = update.stack, _moments(update)
        is_student = [member != TEACHER for member in stack.members]
        for name, moment in new:
            for a, b in zip(old[name, moment], new[name, moment], strict=True):
                for row, student in enumerate(is_student * (2 if name == "critic" else 1)):
                    assert a[row].any()
                    forgotten = student and moment == "exp_avg"
                    assert torch.equal(b[row], torch.zeros_like(a[row]) if forgotten else a[row])
        assert stack.is_attached()


def test_reset_networks_have_the_spread_of_a_lone_one(trained, buffer):
    """`nn.Linear` draws weights from U(-1/√in, 1/√in), of standard deviation 1/√(3 in)."""
    modules, updates = _updates_with_moments(trained, buffer, looped=False)
    reset_students(updates, TEACHER, seed=5)
    for student in STUDENTS:
        for network in (modules[student].policy, modules[student].qf1, modules[student].qf2):
            for layer in network[::2]:
                weight, bound = layer.weight, 1 / math.sqrt(layer.in_features)
                assert float(weight.abs().max()) <= bound
                assert float(layer.bias.abs().max()) <= bound
            hidden = network[2].weight  # 64 · 64 numbers: its spread is known within 1 %
            assert float(hidden.std()) == pytest.approx(1 / math.sqrt(3 * 64), rel=0.04)
            assert float(hidden.abs().max()) > 0.99 / 8


def test_reset_follows_its_seed(trained, buffer):
    policies = []
    for seed in (5, 5, 6):
        modules, updates = _updates_with_moments(trained, buffer, looped=False)
        reset_students(updates, TEACHER, seed=seed)
        policies.append(modules[0].policy[0].weight.clone())
    assert torch.equal(policies[0], policies[1])
    assert not torch.equal(policies[0], policies[2])
