"""The loss functions against torch.distributions, NumPy, closed forms and cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import (
    Independent,
    Normal,
    TanhTransform,
    TransformedDistribution,
    kl_divergence,
)

from rllib_cikd.algorithm import losses

K, B, A = 3, 7, 2
F64 = {"dtype": torch.float64}


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **F64)


def _gaussian(mean: torch.Tensor, log_std: torch.Tensor) -> Independent:
    return Independent(Normal(mean, log_std.exp()), 1)


def _sample(
    mean: torch.Tensor, log_std: torch.Tensor, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return losses.sample_squashed_gaussian(torch.cat([mean, log_std], -1), noise)


def _backward(loss: losses.Loss) -> None:
    torch.autograd.backward(loss.outputs, loss.gradients)


# ---------------------------------------------------------------- sample_squashed_gaussian


def test_sample_and_its_density_equal_torch_distributions():
    """The density of tanh(Normal) at the drawn actions, by `TransformedDistribution`."""
    mean, log_std, noise = _randn(K, B, A, seed=1), 0.5 * _randn(K, B, A, seed=2), _randn(K, B, A)
    actions, log_probs = _sample(mean, log_std, noise)
    squashed = TransformedDistribution(_gaussian(mean, log_std), [TanhTransform()])
    torch.testing.assert_close(actions, torch.tanh(mean + log_std.exp() * noise))
    assert log_probs.shape == (K, B)
    # `TransformedDistribution` finds u by atanh, which costs it some digits.
    torch.testing.assert_close(log_probs, squashed.log_prob(actions), rtol=1e-9, atol=1e-9)


def test_density_integrates_to_one():
    """A density: its trapezoid sum over a fine grid of actions is 1."""
    mean, std = 0.3, 0.8
    noise = torch.linspace(-8, 8, 20_001, **F64).view(1, -1, 1)
    actions, log_probs = _sample(
        torch.full_like(noise, mean), torch.full_like(noise, math.log(std)), noise
    )
    integral = torch.trapezoid(log_probs[0].exp(), actions[0, :, 0])
    assert float(integral) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("u", [-1000.0, -60.0, -15.0, 15.0, 60.0, 1000.0])
def test_density_of_saturated_actions(u):
    """For large |u|, 1 - tanh(u)^2 is 0 in float32; its logarithm is log 4 - 2 log(e^u + e^-u)."""
    mean = torch.full((1, 1, 1), u, requires_grad=True)
    log_std = torch.zeros(1, 1, 1, requires_grad=True)
    actions, log_probs = _sample(mean, log_std, torch.full((1, 1, 1), 0.5))
    pre_tanh = u + 0.5
    log_slope = math.log(4) - 2 * np.logaddexp(pre_tanh, -pre_tanh)
    expected = -0.5 * 0.5**2 - 0.5 * math.log(2 * math.pi) - log_slope
    assert log_probs.item() == pytest.approx(expected, rel=1e-6)
    log_probs.sum().backward()
    # The slope of -log(1 - tanh(u)^2) is 2 tanh(u).
    assert mean.grad.item() == pytest.approx(2 * math.tanh(pre_tanh), rel=1e-6)
    assert torch.isfinite(log_std.grad).all()
    assert torch.isfinite(actions).all()


def test_sample_gradient_equals_torch_distributions():
    """Gradients of E[α log π - f(a)] through the sample, by torch's `TransformedDistribution`."""
    noise, weight = _randn(K, B, A, seed=3), _randn(K, B, A, seed=4)
    gradients = []
    for ours in (True, False):
        mean = _randn(K, B, A, seed=1).requires_grad_()
        log_std = (0.5 * _randn(K, B, A, seed=2)).requires_grad_()
        if ours:
            actions, log_probs = _sample(mean, log_std, noise)
        else:
            tanh = TanhTransform(cache_size=1)
            actions = tanh(mean + log_std.exp() * noise)
            squashed = TransformedDistribution(_gaussian(mean, log_std), [tanh])
            log_probs = squashed.log_prob(actions)
        (0.3 * log_probs.sum() - (weight * actions).sum()).backward()
        gradients.append((mean.grad, log_std.grad))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-10)


def test_sample_gradcheck():
    """Finite differences of actions and log-densities, for two rows of which one is saturated."""
    mean = torch.tensor([[[0.3, -1.2], [4.0, -5.0]]], **F64, requires_grad=True)
    log_std = torch.tensor([[[0.1, -0.7], [0.5, -2.0]]], **F64, requires_grad=True)
    noise = _randn(1, 2, 2, seed=5)
    assert torch.autograd.gradcheck(lambda m, s: _sample(m, s, noise), (mean, log_std))


# ---------------------------------------------------------------- SAC's losses


@pytest.fixture(params=[torch.float64, torch.float32], ids=["plain", "native"])
def dtype(request) -> torch.dtype:
    """What PyTorch's operations compute, and what the native library does where it is there."""
    return request.param


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-12 if dtype == torch.float64 else 2e-6


def test_td_target_by_hand():
    """A termination, a truncation and an ordinary step, with γ = 0.9 and α = 0.5.

    termination: 1
    truncation:  2 + 0.9 (min(4, 3) - 0.5 · (-1)) = 2 + 0.9 · 3.5 = 5.15
    ordinary:   -1 + 0.9 (min(0, 2) - 0.5 · 2)    = -1 - 0.9      = -1.9
    """
    target = losses.td_target(
        rewards=torch.tensor([[1.0, 2.0, -1.0]]),
        discounts=torch.tensor([[0.0, 0.9, 0.9]]),
        next_q=torch.tensor([[[9.0, 4.0, 0.0]], [[8.0, 3.0, 2.0]]]),
        next_log_probs=torch.tensor([[5.0, -1.0, 2.0]]),
        alpha=torch.tensor([[0.5]]),
    )
    torch.testing.assert_close(target, torch.tensor([[1.0, 5.15, -1.9]]))


def test_td_target_equals_numpy_with_a_temperature_for_each_member(dtype):
    """Also of rewards and discounts that lie apart, as in the rows of a replay buffer."""
    rng = np.random.default_rng(0)
    r, discount, logp = (rng.normal(size=(K, B)) for _ in range(3))
    q, alpha = rng.normal(size=(2, K, B)), rng.uniform(0.1, 2.0, size=(K, 1))
    expected = [
        [r[k, b] + discount[k, b] * (min(q[:, k, b]) - alpha[k, 0] * logp[k, b]) for b in range(B)]
        for k in range(K)
    ]
    tensors = [torch.from_numpy(x).to(dtype) for x in (r, discount, q, logp, alpha)]
    limits = {"rtol": _tolerance(dtype), "atol": _tolerance(dtype)}
    np.testing.assert_allclose(losses.td_target(*tensors).numpy(), expected, **limits)
    rows = torch.stack([torch.zeros(K, B), *tensors[:2]], -1).to(dtype)
    target = losses.td_target(rows[..., 1], rows[..., 2], *tensors[2:])
    np.testing.assert_allclose(target.numpy(), expected, **limits)


def test_critic_loss_and_gradient_equal_numpy(dtype):
    """½ mean (q_j - y)^2, summed over the twins; its gradient is (q_j - y) / B."""
    q, y = _randn(2, K, B, seed=1).to(dtype).requires_grad_(), _randn(K, B, seed=2).to(dtype)
    loss = losses.critic_loss(q, y)
    q_np, y_np = q.detach().numpy(), y.numpy()
    expected = [sum(0.5 * np.mean((q_np[j, k] - y_np[k]) ** 2) for j in range(2)) for k in range(K)]
    np.testing.assert_allclose(loss.value.numpy(), expected, rtol=_tolerance(dtype))
    _backward(loss)
    np.testing.assert_allclose(q.grad.numpy(), (q_np - y_np) / B, rtol=_tolerance(dtype))


def test_actor_loss_and_gradient_equal_numpy(dtype):
    """mean (α log π - min_j q_j); its gradient is α / B, and -1 / B at the lower twin."""
    logp, q = (_randn(*shape, seed=len(shape)).to(dtype) for shape in ((K, B), (2, K, B)))
    logp, q = logp.requires_grad_(), q.requires_grad_()
    alpha = torch.tensor([[0.1], [1.0], [3.0]], dtype=dtype)
    loss = losses.actor_loss(logp, q, alpha)
    logp_np, q_np, alpha_np = logp.detach().numpy(), q.detach().numpy(), alpha.numpy()
    expected = np.mean(alpha_np * logp_np - q_np.min(axis=0), axis=1)
    np.testing.assert_allclose(loss.value.numpy(), expected, rtol=_tolerance(dtype))
    _backward(loss)
    grad_logp = np.broadcast_to(alpha_np / B, (K, B))
    np.testing.assert_allclose(logp.grad.numpy(), grad_logp, rtol=_tolerance(dtype))
    lower = q_np == q_np.min(axis=0)
    np.testing.assert_allclose(q.grad.numpy(), np.where(lower, -1 / B, 0.0), rtol=_tolerance(dtype))


def test_of_equal_critics_the_first_has_the_gradient(dtype):
    q = torch.ones(2, K, B, dtype=dtype)
    loss = losses.actor_loss(torch.zeros(K, B, dtype=dtype), q, torch.ones(K, 1, dtype=dtype))
    torch.testing.assert_close(loss.gradients[1][0], torch.full((K, B), -1 / B, dtype=dtype))
    assert not loss.gradients[1][1].any()


@pytest.mark.parametrize("twin", [0, 1])
def test_what_is_not_a_number_stays_so(dtype, twin):
    """Of one member, whichever of its critics: the others' values are theirs."""
    q, ones = torch.ones(2, K, B, dtype=dtype), torch.ones(K, B, dtype=dtype)
    q[twin, 1, 3] = math.nan
    alpha = torch.ones(K, 1, dtype=dtype)
    target = losses.td_target(ones, ones, q, ones, alpha)
    assert target.isnan().nonzero().tolist() == [[1, 3]]
    for loss in (losses.critic_loss(q, ones), losses.actor_loss(ones, q, alpha)):
        assert loss.value.isnan().tolist() == [False, True, False]


def test_temperature_loss_and_gradient_equal_numpy():
    """-log α · mean(log π + H); its gradient is -mean(log π + H), and none reaches log π."""
    logp = _randn(K, B, seed=1).requires_grad_()
    log_alpha = torch.tensor([[-1.0], [0.0], [2.0]], **F64, requires_grad=True)
    loss = losses.temperature_loss(log_alpha, logp, target_entropy=-1.5)
    error = np.mean(logp.detach().numpy() - 1.5, axis=1)
    np.testing.assert_allclose(loss.value, -np.array([-1.0, 0.0, 2.0]) * error, rtol=1e-12)
    _backward(loss)
    np.testing.assert_allclose(log_alpha.grad[:, 0], -error, rtol=1e-12)
    assert logp.grad is None


def test_temperature_falls_when_the_policy_is_too_random():
    """Entropy 3 is above a target of 1, so α must fall: the gradient of log α is positive."""
    log_alpha = torch.zeros(1, 1, requires_grad=True)
    _backward(losses.temperature_loss(log_alpha, torch.full((1, B), -3.0), target_entropy=1.0))
    assert log_alpha.grad.item() == pytest.approx(2.0)


def test_gradient_of_a_member_does_not_depend_on_the_number_of_members():
    """Mean over the batch, summed over members: each has, to the last bit, its gradient alone."""
    alpha, y = _randn(K, 1, seed=1).exp(), _randn(K, B, seed=2)
    teacher_mean, teacher_log_std, teacher_q = _randn(B, A), _randn(B, A), _randn(2, 1, B)
    values = [_randn(K, 2, B, seed=3), _randn(K, B, seed=4), _randn(K, 1, seed=5)]
    values += [_randn(K, B, A, seed=6), _randn(K, B, A, seed=7)]

    def gradients(members: slice) -> tuple[torch.Tensor, ...]:
        leaves = [value[members].clone().requires_grad_() for value in values]
        q, logp, log_alpha, mean, log_std = leaves
        q = q.transpose(0, 1)
        total = losses.policy_kl(teacher_mean, teacher_log_std, mean, log_std)
        total = total + losses.critic_distance(teacher_q, q)
        for loss in (
            losses.Loss.by_autograd(total),
            losses.critic_loss(q, y[members]),
            losses.actor_loss(logp, q, alpha[members]),
            losses.temperature_loss(log_alpha, logp, -1.0),
        ):
            _backward(loss)
        return tuple(leaf.grad for leaf in leaves)

    together = gradients(slice(0, K))
    for k in range(K):
        for gradient, alone in zip(together, gradients(slice(k, k + 1)), strict=True):
            assert torch.equal(gradient[k : k + 1], alone)


# ---------------------------------------------------------------- the distillation losses


def _teacher_and_students(seed: int = 0):
    teacher = _randn(B, A, seed=seed), 0.5 * _randn(B, A, seed=seed + 1)
    students = _randn(K, B, A, seed=seed + 2), 0.5 * _randn(K, B, A, seed=seed + 3)
    return teacher, students


def test_policy_kl_by_hand():
    """KL(N(0, 1) ‖ N(1, 2²)) = ln 2 + (1 + 1) / (2 · 4) - ½ = 0.443147; over two dimensions twice.

    The other way round it would be -ln 2 + (4 + 1) / 2 - ½ = 1.306853.
    """
    zeros, ones = torch.zeros(B, A), torch.ones(1, B, A)
    kl = losses.policy_kl(zeros, zeros, ones, math.log(2) * ones)
    torch.testing.assert_close(kl, torch.tensor([2 * 0.443147]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("teacher_has_a_student_axis", [False, True])
def test_policy_kl_and_its_gradient_equal_torch_distributions(teacher_has_a_student_axis):
    (t_mean, t_log_std), students = _teacher_and_students()
    if teacher_has_a_student_axis:
        t_mean, t_log_std = t_mean.expand(K, -1, -1), t_log_std.expand(K, -1, -1)
    results = []
    for ours in (True, False):
        s_mean, s_log_std = (s.clone().requires_grad_() for s in students)
        if ours:
            kl = losses.policy_kl(t_mean, t_log_std, s_mean, s_log_std)
        else:
            teacher, student = _gaussian(t_mean, t_log_std), _gaussian(s_mean, s_log_std)
            kl = kl_divergence(teacher.expand((K, B)), student).mean(-1)
        assert kl.shape == (K,)
        kl.sum().backward()
        results.append((kl.detach(), s_mean.grad, s_log_std.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


def test_policy_kl_weighs_states():
    """State 0 counts twice, state 1 not at all; the mean is over all of them."""
    (t_mean, t_log_std), (s_mean, s_log_std) = _teacher_and_students()
    weights = torch.ones(K, B, **F64)
    weights[:, 0], weights[0, 1] = 2.0, 0.0
    kl = losses.policy_kl(t_mean, t_log_std, s_mean, s_log_std, weights)
    teacher = _gaussian(t_mean, t_log_std).expand((K, B))
    by_state = kl_divergence(teacher, _gaussian(s_mean, s_log_std))
    expected = (by_state.sum(-1) + by_state[:, 0]) / B
    expected[0] -= by_state[0, 1] / B
    torch.testing.assert_close(kl, expected, rtol=1e-12, atol=1e-12)


def test_policy_kl_is_that_of_the_squashed_policies():
    """Monte Carlo E_teacher[log π_T - log π_S] after the tanh, within 4 standard errors."""
    n = 200_000
    torch.manual_seed(0)
    (t_mean, t_log_std), (s_mean, s_log_std) = _teacher_and_students(seed=20)
    # One state: the first of the batch.
    t_mean, t_log_std, s_mean, s_log_std = (
        x[..., :1, :] for x in (t_mean, t_log_std, s_mean, s_log_std)
    )
    exact = losses.policy_kl(t_mean, t_log_std, s_mean, s_log_std)
    teacher = TransformedDistribution(_gaussian(t_mean[0], t_log_std[0]), [TanhTransform()])
    actions = teacher.sample((n,))
    for s in range(K):
        gaussian = _gaussian(s_mean[s, 0], s_log_std[s, 0])
        student = TransformedDistribution(gaussian, [TanhTransform()])
        log_ratio = teacher.log_prob(actions) - student.log_prob(actions)
        standard_error = float(log_ratio.std()) / math.sqrt(n)
        assert standard_error < 0.02 * float(exact[s])  # else the estimate would prove little
        assert float(exact[s]) == pytest.approx(float(log_ratio.mean()), abs=4 * standard_error)


def test_policy_kl_of_equals_is_zero_and_flat():
    (mean, log_std), _ = _teacher_and_students()
    s_mean = mean.expand(K, -1, -1).clone().requires_grad_()
    s_log_std = log_std.expand(K, -1, -1).clone().requires_grad_()
    kl = losses.policy_kl(mean, log_std, s_mean, s_log_std)
    assert torch.equal(kl, torch.zeros(K, **F64))
    kl.sum().backward()
    torch.testing.assert_close(s_mean.grad, torch.zeros(K, B, A, **F64))
    torch.testing.assert_close(s_log_std.grad, torch.zeros(K, B, A, **F64))


def test_policy_kl_is_finite_at_the_bounds_of_the_log_std():
    """Log stds are clipped to [-20, 2]: the farthest pair stays finite in float32."""
    low, high = torch.full((1, B, A), -20.0), torch.full((1, B, A), 2.0)
    for teacher, student in ((low, high), (high, low)):
        student = student.clone().requires_grad_()
        mean = torch.zeros(1, B, A, requires_grad=True)
        kl = losses.policy_kl(torch.full((1, B, A), 5.0), teacher, mean, student)
        kl.sum().backward()
        assert all(torch.isfinite(x).all() for x in (kl, mean.grad, student.grad))


def test_critic_distance_by_hand():
    """Two students, two states. First twin: (1² + 3²)/2 = 5 and 0; second: 2² = 4 and 1² = 1."""
    teacher = torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]]])
    students = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[3.0, -1.0], [2.0, 0.0]]])
    distance = losses.critic_distance(teacher, students)
    torch.testing.assert_close(distance, torch.tensor([5.0 + 4.0, 0.0 + 1.0]))


# ---------------------------------------------------------------- shapes


def _wrong_shapes():
    def z(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape)

    for k in (1, K):  # with one member, a stray trailing axis broadcasts without a word
        kb, kb1, k1 = z(k, B), z(k, B, 1), z(k, 1)
        q, q1 = z(2, k, B), z(2, k, B, 1)
        kba = z(k, B, A)
        yield f"noise-{k}", losses.sample_squashed_gaussian, (z(k, B, 2 * A), z(k, B, 1))
        yield f"noise-B-{k}", losses.sample_squashed_gaussian, (z(k, B, 2 * A), z(B, A))
        yield f"td-rewards-{k}", losses.td_target, (kb1, kb, q, kb, k1)
        yield f"td-discounts-{k}", losses.td_target, (kb, kb1, q, kb, k1)
        yield f"td-next_q-{k}", losses.td_target, (kb, kb, q1, kb, k1)
        yield f"td-one-twin-{k}", losses.td_target, (kb, kb, z(1, k, B), kb, k1)
        yield f"td-log_probs-{k}", losses.td_target, (kb, kb, q, kb1, k1)
        yield f"td-alpha-{k}", losses.td_target, (kb, kb, q, kb, z(k))
        yield f"critic-q-{k}", losses.critic_loss, (q1, kb)
        yield f"critic-target-{k}", losses.critic_loss, (q, kb1)
        yield f"critic-shared-target-{k}", losses.critic_loss, (q, z(B))
        yield f"actor-log_probs-{k}", losses.actor_loss, (kb1, q, k1)
        yield f"actor-q-{k}", losses.actor_loss, (kb, q1, k1)
        yield f"actor-alpha-{k}", losses.actor_loss, (kb, q, z(k))
        yield f"temperature-log_alpha-{k}", losses.temperature_loss, (z(k), kb, -1.0)
        yield f"temperature-log_probs-{k}", losses.temperature_loss, (k1, kb1, -1.0)
        yield f"kl-batch-{k}", losses.policy_kl, (z(B + 1, A), z(B + 1, A), kba, kba)
        yield f"kl-actions-{k}", losses.policy_kl, (z(B, 1), z(B, 1), kba, kba)
        yield f"distance-batch-{k}", losses.critic_distance, (z(2, 1, 1), q)
        yield f"distance-no-member-axis-{k}", losses.critic_distance, (z(2, B), q)


@pytest.mark.parametrize(
    ("function", "arguments"), [pytest.param(f, a, id=name) for name, f, a in _wrong_shapes()]
)
def test_wrong_shapes_are_refused(function, arguments):
    """Each of these could broadcast to a number that looks like a loss."""
    with pytest.raises(ValueError, match=r"\[\d"):
        function(*arguments)
