"""One member: its actions, its initial weights, and the stack its parameters become views of."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from rllib_cikd.rllib.sac_module import SACModule

K, B, A, D = 3, 7, 2, 5
CRITICS = ("qf1", "qf2", "target_qf1", "target_qf2")


def _module(
    inference_only: bool = False, hiddens: tuple[int, ...] = (16, 12), **model_config
) -> SACModule:
    return SACModule(
        observation_space=gym.spaces.Box(-9.0, 9.0, (D,), np.float32),
        action_space=gym.spaces.Box(-3.0, 1.0, (A,), np.float32),
        inference_only=inference_only,
        model_config={"fcnet_hiddens": list(hiddens), "initial_alpha": 1.0} | model_config,
    )


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _constant_policy(mean: list[float], log_std: list[float], **kwargs) -> SACModule:
    """A member whose Gaussian before the squashing is the same at every observation."""
    module = _module(**kwargs)
    with torch.no_grad():
        module.policy[-1].weight.zero_()
        module.policy[-1].bias.copy_(torch.tensor(mean + log_std))
    return module


def _explore(module: SACModule, num_actions: int) -> Tensor:
    batch = {Columns.OBS: torch.zeros(num_actions, D)}
    return module.forward_exploration(batch)[Columns.ACTIONS]


# ---------------------------------------------------------------- actions


@pytest.mark.parametrize("inference_only", [False, True])
def test_deterministic_action_is_tanh_of_the_mean(inference_only):
    """tanh(1.5) = 0.905148, where clipping the mean would give 1.0; tanh(-0.2) = -0.197375."""
    module = _constant_policy([1.5, -0.2], [1.0, -3.0], inference_only=inference_only)
    obs = torch.randn(B, D)
    expected = torch.tensor([[0.905148, -0.197375]]).expand(B, -1)
    torch.testing.assert_close(module.deterministic_actions(obs), expected, rtol=0, atol=1e-6)
    output = module.forward_inference({Columns.OBS: obs})
    assert set(output) == {Columns.ACTIONS}  # anything else would be stored with every step
    torch.testing.assert_close(output[Columns.ACTIONS], expected, rtol=0, atol=1e-6)
    assert not output[Columns.ACTIONS].requires_grad


def test_exploration_samples_the_squashed_gaussian():
    """Moments of 100,000 actions: those of u = atanh(a) are the Gaussian's, and the mean action
    is E[tanh(u)] by Gauss-Hermite quadrature, all within 4 standard errors."""
    mean, std, n = np.array([0.6, -0.4]), np.array([0.5, 0.8]), 100_000
    module = _constant_policy(mean.tolist(), np.log(std).tolist())
    output = module.forward_exploration({Columns.OBS: torch.randn(n, D)})
    assert set(output) == {Columns.ACTIONS}
    actions = output[Columns.ACTIONS].double().numpy()
    assert not output[Columns.ACTIONS].requires_grad
    assert np.abs(actions).max() < 1.0

    u = np.arctanh(actions)
    np.testing.assert_array_less(np.abs(u.mean(0) - mean), 4 * std / math.sqrt(n))
    np.testing.assert_array_less(np.abs(u.std(0) - std), 4 * std / math.sqrt(2 * n))
    correlation = np.corrcoef(u.T)[0, 1]
    assert abs(correlation) < 4 / math.sqrt(n)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    expected = np.tanh(mean + std * nodes[:, None]).T @ weights / math.sqrt(2 * math.pi)
    error = 4 * actions.std(0) / math.sqrt(n)
    np.testing.assert_array_less(np.abs(actions.mean(0) - expected), error)


def test_random_actions_are_uniform():
    """In [-1, 1], whatever the action bounds (here -3 and 1) and the policy are; 20 bins of
    40,000 draws: χ² below its 99.9 % quantile, 43.8 for 19 degrees of freedom."""
    module = _constant_policy([5.0, 5.0], [-3.0, -3.0])
    module.act_randomly = True
    actions = _explore(module, 20_000)
    assert actions.shape == (20_000, A)
    assert actions.min() >= -1.0
    assert actions.max() <= 1.0
    counts = torch.histc(actions, bins=20, min=-1.0, max=1.0)
    assert counts.sum() == 40_000
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 43.8
    # The deterministic action is not concerned: tanh(5) = 0.99991.
    assert (module.deterministic_actions(torch.zeros(1, D)) > 0.999).all()


@pytest.mark.parametrize("act_randomly", [False, True])
def test_exploration_follows_its_own_generator(act_randomly):
    """Same seed, same actions, wherever torch's global generator is, which is left alone."""
    module = _module()
    module.act_randomly = act_randomly
    drawn = []
    for seed, global_seed in ((1, 10), (1, 20), (2, 10)):
        module.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        drawn.append(torch.stack([_explore(module, B), _explore(module, B)]))
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0][0], drawn[0][1])


def test_observations_of_other_types_are_converted():
    module = _module()
    obs = torch.randint(-3, 4, (B, D))
    expected = module.deterministic_actions(obs.float())
    for typed in (obs, obs.double()):
        actions = module.forward_inference({Columns.OBS: typed})[Columns.ACTIONS]
        assert torch.equal(actions, expected)


def test_train_pass_gives_the_distribution():
    module = _constant_policy([0.3, -0.3], [9.0, -0.5])
    inputs = module.forward_train({Columns.OBS: torch.randn(B, D)})[Columns.ACTION_DIST_INPUTS]
    torch.testing.assert_close(inputs, torch.tensor([0.3, -0.3, 2.0, -0.5]).expand(B, -1))


# ---------------------------------------------------------------- what it is made of


def test_defaults_are_the_published_networks():
    """Two ReLU layers of 256; the policy gives 2A numbers; critics see D + A."""
    module = SACModule(
        observation_space=gym.spaces.Box(-9.0, 9.0, (D,), np.float32),
        action_space=gym.spaces.Box(-1.0, 1.0, (A,), np.float32),
        model_config={"initial_alpha": 0.2},
    )
    for name, in_dim, out_dim in [("policy", D, 2 * A), *((c, D + A, 1) for c in CRITICS)]:
        kinds = [type(layer) for layer in getattr(module, name)]
        assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
        shapes = [tuple(layer.weight.shape) for layer in getattr(module, name)[::2]]
        assert shapes == [(256, in_dim), (256, 256), (out_dim, 256)]
    assert module.log_alpha.item() == pytest.approx(math.log(0.2))


@pytest.mark.parametrize(("name", "kind"), [("relu", nn.ReLU), ("tanh", nn.Tanh), ("elu", nn.ELU)])
def test_model_settings_change_the_networks(name, kind):
    module = _module(fcnet_activation=name, fcnet_hiddens=[4])
    for network in ("policy", *CRITICS):
        layers = getattr(module, network)
        assert [type(layer) for layer in layers] == [nn.Linear, kind, nn.Linear]
        assert layers[0].out_features == 4


def test_layer_normalisation_of_critics():
    module = _module(critic_layer_norm=True, fcnet_hiddens=[4, 6])
    assert [type(layer) for layer in module.policy][1] == nn.ReLU
    for network in CRITICS:
        _, norm, *_ = layers = list(getattr(module, network))
        kinds = [nn.Linear, nn.LayerNorm, nn.ReLU]
        assert [type(layer) for layer in layers] == [*kinds, *kinds, nn.Linear]
        assert norm.normalized_shape == (4,)
        assert not list(norm.parameters())
    assert {n for n, _ in module.named_parameters()} == {
        n.replace(".2.", ".3.").replace(".4.", ".6.") if "qf" in n else n
        for n, _ in _module(fcnet_hiddens=[4, 6]).named_parameters()
    }


def test_inference_only_module_has_the_policy_alone():
    module = _module(inference_only=True)
    assert {name.split(".")[0] for name, _ in module.named_parameters()} == {"policy"}
    assert not any(hasattr(module, name) for name in (*CRITICS, "log_alpha"))


def test_inference_only_state_acts_the_same():
    """What travels to env runners: the policy's weights and nothing else, enough to act."""
    module = _module()
    full, small = module.get_state(), module.get_state(inference_only=True)
    assert {name.split(".")[0] for name in full} == {"policy", *CRITICS, "log_alpha"}
    assert {name.split(".")[0] for name in small} == {"policy"}
    runner, obs = _module(inference_only=True), torch.randn(B, D)
    assert not torch.equal(runner.deterministic_actions(obs), module.deterministic_actions(obs))
    runner.set_state(small)
    assert torch.equal(runner.deterministic_actions(obs), module.deterministic_actions(obs))


@pytest.mark.parametrize(
    "other",
    [
        {"hiddens": (16, 13)},
        {"hiddens": (16,)},
        {"hiddens": (16, 12, 12)},
        {"batch_norm": True},
        {"fcnet_activation": "tanh"},
    ],
)
def test_weights_of_other_networks_are_refused(other, tmp_path):
    """Nothing is loaded then; RLlib would load what has the same name."""
    stored = _module(**other)
    stored.save_to_path(tmp_path)
    for inference_only in (False, True):
        module = _module(inference_only=inference_only)
        before = {name: value.copy() for name, value in module.get_state().items()}
        with pytest.raises(ValueError, match=r"was .* in .*: networks keep their shapes"):
            module.restore_from_path(tmp_path)
        if "fcnet_activation" not in other:  # which is not in the weights
            with pytest.raises(ValueError, match=r"weights are of other networks: .* has shape"):
                module.set_state(stored.get_state())
        for name, value in module.get_state().items():
            np.testing.assert_array_equal(value, before[name])


def test_a_member_that_learns_needs_all_its_critics():
    """Or none of them, where it only acts, as in an env runner."""
    module, state = _module(), _module().get_state()
    del state["qf1.0.weight"]
    with pytest.raises(ValueError, match="has shape none, as it is not there, expected"):
        module.set_state(state)
    module.set_state(_module().get_state(inference_only=True))


# ---------------------------------------------------------------- initial weights


# ---------------------------------------------------------------- the stack
