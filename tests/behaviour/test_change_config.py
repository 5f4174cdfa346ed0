"""Going on from a checkpoint with other settings: they take effect, or are refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import envs
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box
from helpers import learner_of, optimizer_state, rows_of, same, small_config, weights_of

from rllib_cikd import CIKD, CIKDConfig, load_policy

STEPS = 200


class Line(gym.Env):
    """A point on a line; `size` observations, actions up to `force`, episodes of `n` steps."""

    def __init__(self, config=None):
        config = config or {}
        self.n = config.get("n", 20)
        self.observation_space = Box(-10, 10, (config.get("size", 2),), np.float32)
        force = config.get("force", 1)
        if getattr(config, "vector_index", 0) > 0:
            force = config.get("force_of_others", force)
        self.action_space = Box(-force, force, (config.get("actions", 1),), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._observation(), {}

    def step(self, action):
        self._step += 1
        return self._observation(), -1.0, False, self._step >= self.n, {}

    def _observation(self):
        return self.np_random.uniform(-1, 1, self.observation_space.shape).astype(np.float32)


def config_of(**training) -> CIKDConfig:
    return small_config(Line, ensemble_size=2, **training)


@pytest.fixture(scope="module")
def checkpoint(ray_cluster, tmp_path_factory) -> str:
    """Of 200 steps."""
    algo = config_of().build_algo()
    algo.train()
    algo.train()
    assert algo.history.env_steps == STEPS
    path = algo.save_to_path(str(tmp_path_factory.mktemp("checkpoint")))
    algo.stop()
    return path


@pytest.fixture
def go_on(checkpoint) -> Iterator[Callable[..., CIKD]]:
    """`go_on(config)` makes an algorithm of the checkpoint, which is stopped at the test's end."""
    algorithms = []

    def go_on_with(config: Any, path: str = checkpoint) -> CIKD:
        algorithms.append(CIKD.from_checkpoint(path, config=config))
        return algorithms[-1]

    yield go_on_with
    for algo in algorithms:
        algo.stop()


def step_sizes(algo: CIKD) -> dict[str, float]:
    optimizers = learner_of(algo)._named_optimizers
    return {
        name.rpartition("_")[2]: float(optimizer.param_groups[0]["lr"])
        for name, optimizer in optimizers.items()
    }


@pytest.mark.parametrize("whole", [False, True])
def test_step_sizes_of_the_new_config_hold_at_once_and_later(go_on, whole):
    algo = go_on(config_of(actor_lr=1e-5) if whole else {"actor_lr": 1e-5})
    expected = {"actor": 1e-5, "critic": 3e-4, "alpha": 3e-4}
    assert step_sizes(algo) == pytest.approx(expected)
    result = algo.train()
    assert step_sizes(algo) == pytest.approx(expected)
    assert result["learners"]["__all_modules__"]["actor_learning_rate"] == pytest.approx(1e-5)
    assert algo.history.env_steps == STEPS + 100
    assert len(rows_of(algo)["rewards"]) == STEPS + 100


def test_a_schedule_begins_where_the_run_is(go_on):
    algo = go_on({"actor_lr": [[0, 1e-3], [400, 1e-4]]})
    assert step_sizes(algo)["actor"] == pytest.approx(1e-3 - (1e-3 - 1e-4) * STEPS / 400)


def test_step_sizes_in_an_algorithm_that_restores(checkpoint, build):
    algo = build(config_of(actor_lr=1e-5, critic_lr=1e-4))
    algo.restore_from_path(checkpoint)
    assert step_sizes(algo) == pytest.approx({"actor": 1e-5, "critic": 1e-4, "alpha": 3e-4})


def test_the_environment_is_made_with_the_new_env_config(go_on):
    algo = go_on({"env_config": {"n": 7}})
    algo.train()
    new = learner_of(algo).replay_buffer.get_state()["rows"][STEPS:]
    assert algo.config.env_config == {"n": 7}
    assert len(new) == 100
    finished = sum(algo.history.episodes)
    assert finished == STEPS // 20 + 100 // 7
    assert (algo.evaluate_members(2)["policy_0"]["lengths"] == 7).all()


def test_settings_of_the_run_hold(go_on):
    algo = go_on(
        {
            "num_env_runners": 1,
            "distillation_interval": 50,
            "evaluation_interval": 1,
            "evaluation_duration": 2,
            "return_window": 1,
        }
    )
    phases = algo.history.num_phases
    result = algo.train()
    assert algo.env_runner_group.num_healthy_remote_workers() == 1
    assert algo.history.num_phases == phases + 2
    assert result["evaluation"]["env_runners"]["num_episodes"] == 2 * 2
    assert max(len(window) for window in algo.history.returns.get_state()) == 1


def generators(algo: CIKD) -> list[str]:
    """States of the generators of elections, of the learner, of selections and exploration."""
    runner = algo.env_runner
    return [
        repr(algo._rng.bit_generator.state),
        repr(learner_of(algo).draws.generator.get_state().tolist()),
        repr(runner._selection_rng.bit_generator.state),
        repr(runner._exploration_rng.get_state().tolist()),
    ]


def test_all_draws_begin_anew_from_another_seed(go_on):
    """The same seed goes on as the run would have; another one is another run."""
    runs = [go_on({"seed": seed}) for seed in (0, 0, 1, 1)]
    draws = [generators(algo) for algo in runs]
    assert draws[0] == draws[1]
    assert draws[2] == draws[3]
    assert not any(a == b for a, b in zip(draws[0], draws[2], strict=True))
    for algo in runs:
        algo.train()
    actions = [rows_of(algo)["actions"][STEPS:] for algo in runs]
    assert np.array_equal(actions[0], actions[1])
    assert np.array_equal(actions[2], actions[3])
    assert not np.array_equal(actions[0], actions[2])
    weights = [weights_of(algo) for algo in runs]
    assert all(same(weights[2], weights[3]).values())
    assert not any(same(weights[0], weights[2]).values())


def test_without_a_config_nothing_changes(checkpoint, go_on):
    config = go_on(None).config
    assert (config.actor_lr, config.seed, config.env_config) == (3e-4, 0, {})


#: A change, and what the message says.
REFUSED = [
    ({"ensemble_size": 3}, "ensemble_size=3: was 2 in the checkpoint"),
    ({"model_config": {"fcnet_hiddens": [64]}}, "fcnet_hiddens=[64]: was [16, 16] in"),
    (
        {"model_config": {"fcnet_hiddens": [16, 16], "fcnet_activation": "tanh"}},
        "fcnet_activation='tanh': was 'relu' in",
    ),
    (
        {"model_config": {"fcnet_hiddens": [16, 16], "critic_layer_norm": True}},
        "critic_layer_norm=True: was False in",
    ),
    (
        {"model_config": {"fcnet_hiddens": [16, 16], "batch_norm": True}},
        "batch_norm=True: was False in",
    ),
    ({"initial_alpha": 0.5}, "initial_alpha=0.5: was 1.0 in"),
    ({"n_step": 3}, "n_step=3: was 1 in"),
    ({"replay_buffer_config": {"capacity": 150}}, "which holds 200 transitions"),
    (
        {"algorithm_config_overrides_per_module": {"policy_1": {"gamma": 0.9}}},
        "algorithm_config_overrides_per_module={'policy_1': {'gamma': 0.9}}: was {} in",
    ),
    ({"env_config": {"size": 5}}, "observation_space=Box(-10.0, 10.0, (5,), float32): was Box("),
    ({"env_config": {"actions": 2}}, "action_space=Box(-1.0, 1.0, (2,), float32): was Box("),
    (
        {"env_config": {"force": 2}},
        "action_space=Box(-2.0, 2.0, (1,), float32): was Box(-1.0, 1.0, (1,), float32) in",
    ),
    ({"actor_ir": 1e-3}, "Unknown config key 'actor_ir'. Did you mean 'actor_lr'?"),
    ({"actor_lr": "x"}, "actor_lr='x': must be a number above 0"),
    (5, "config=5: must be a `CIKDConfig`, which replaces"),
    (CIKDConfig(), "env=None: a config replaces that of the checkpoint"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_what_cannot_change_is_refused(go_on, change, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        go_on(change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("change", "words"), REFUSED[:11])
def test_what_cannot_change_is_refused_where_it_is_restored(checkpoint, build, change, words):
    """A new algorithm of other settings that restores: nothing is loaded."""
    algo = build(config_of().update_from_dict(change))
    before = weights_of(algo)
    with pytest.raises(ValueError, match=re.escape(words)):
        algo.restore_from_path(checkpoint)
    assert all(same(weights_of(algo), before).values())
    assert algo.history.env_steps == 0


def test_who_has_equal_settings_counts_not_how_they_are_written(build, tmp_path):
    """The target entropy is -1 by default: two members share their optimisers. At -2 they would
    not, and Adam's moments would be lost."""

    def config(default: Any) -> CIKDConfig:
        one = {"policy_0": {"target_entropy": -1.0}}
        return config_of(target_entropy=default).rl_module(
            algorithm_config_overrides_per_module=one
        )

    algo, other = build(config("auto")), build(config(-2.0))
    algo.train()
    path = algo.save_to_path(str(tmp_path / "c"))
    with pytest.raises(ValueError, match=r"target_entropy=-2.0: was 'auto' .* share an"):
        other.restore_from_path(path)
    with pytest.raises(ValueError, match=r"the state has the optimisers \['__all_modules"):
        other.set_state(algo.get_state())
    assert other.history.env_steps == 0
    same_settings = CIKD.from_checkpoint(path, config={"target_entropy": -1.0})
    assert optimizer_state(same_settings).keys() == optimizer_state(algo).keys()
    same_settings.stop()


@pytest.mark.parametrize("capacity", [200, 20_000])
def test_the_buffer_may_have_another_capacity(go_on, capacity):
    algo = go_on({"replay_buffer_config": {"capacity": capacity}})
    algo.train()
    assert len(learner_of(algo).replay_buffer) == min(capacity, STEPS + 100)


def test_without_a_stored_buffer_its_settings_may_change(build, go_on, tmp_path):
    algo = build(config_of(store_buffer_in_checkpoints=False))
    algo.train()
    path = algo.save_to_path(str(tmp_path / "c"))
    algo = go_on({"n_step": 3, "replay_buffer_config": {"capacity": 60}}, path)
    assert (algo.config.n_step, len(learner_of(algo).replay_buffer)) == (3, 0)
    algo.train()


def test_paths_may_be_relative(build, go_on, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    algo = build(config_of())
    algo.train()
    assert algo.save_to_path("below/here") == str(tmp_path / "below" / "here")
    assert algo.save_to_path(Path("there")) == str(tmp_path / "there")
    other = build(config_of())
    other.restore_from_path("below/here")
    assert other.history.env_steps == 100
    assert go_on(None, "there").history.env_steps == 100
    assert go_on({"seed": 3}, Path("below") / "here").history.env_steps == 100


def test_in_a_checkpoint_of_a_remote_learner(build, go_on, tmp_path):
    algo = build(config_of().learners(num_learners=1))
    algo.train()
    path = algo.save_to_path(str(tmp_path / "c"))
    with pytest.raises(ValueError, match="which holds 100 transitions"):
        go_on({"replay_buffer_config": {"capacity": 60}}, path)
    assert step_sizes(go_on({"alpha_lr": 1e-5, "num_learners": 0}, path))["alpha"] == 1e-5


@pytest.mark.parametrize("horizon", [0, 5])
def test_a_lookback_changes_no_transition(build, horizon):
    """`episode_lookback_horizon`: what callbacks see of the chunk before; nothing else."""
    plain = build(small_config(envs.DriftEnv, fragment=7))
    other = build(
        small_config(envs.DriftEnv, fragment=7).env_runners(episode_lookback_horizon=horizon)
    )
    for algo in (plain, other):
        algo.train()
    assert all(np.array_equal(rows_of(plain)[key], value) for key, value in rows_of(other).items())


# ------------------------------------------------------------------ settings that do what they say


class FailsOnce(Line):
    """Raises in one step of a whole process's life."""

    failed = False

    def step(self, action):
        if self._step == 10 and not FailsOnce.failed:
            FailsOnce.failed = True
            raise RuntimeError("the simulation broke")
        return super().step(action)


def test_sub_environments_are_restarted(build):
    """`restart_failed_sub_environments`."""
    FailsOnce.failed = False
    config = small_config(FailsOnce).fault_tolerance(restart_failed_sub_environments=True)
    algo = build(config)
    algo.train()
    assert FailsOnce.failed
    assert algo.history.env_steps >= 100
    FailsOnce.failed = False
    algo = build(small_config(FailsOnce))
    with pytest.raises(RuntimeError):
        algo.train()


def test_evaluation_may_have_an_env_config_of_its_own(build):
    config = config_of().evaluation(
        evaluation_interval=1, evaluation_config={"env_config": {"n": 7}}
    )
    algo = build(config)
    result = algo.train()
    assert result["evaluation"]["env_runners"]["episode_len_mean"] == 7
    assert result["env_runners"]["episode_len_mean"] == 20


@pytest.mark.parametrize(
    "change",
    [
        {"evaluation_interval": 1, "evaluation_config": {"env_config": {"force": 2}}},
        {"env_config": {"force_of_others": 2}, "num_envs_per_env_runner": 2},
    ],
    ids=["evaluation", "sub-environments"],
)
def test_all_environments_of_a_run_have_the_same_spaces(build, change):
    config = config_of().update_from_dict(change)
    words = (
        "env='Line' has the action_space Box(-1.0, 1.0, (1,), float32) in one place and "
        "Box(-2.0, 2.0, (1,), float32) in another"
    )
    with pytest.raises(ValueError, match=re.escape(words)):
        build(config)


def test_a_policy_is_not_loaded_for_other_actions(checkpoint, monkeypatch):
    monkeypatch.setattr(Line, "__init__", _stronger(Line.__init__))
    with pytest.raises(ValueError, match=re.escape("action_space=Box(-3.0, 3.0, (1,), float32)")):
        load_policy(checkpoint)


def _stronger(init):
    def stronger(self, config=None):
        init(self, config)
        self.action_space = Box(-3, 3, (1,), np.float32)

    return stronger


def test_an_iteration_trains_for_as_long_as_it_must(build):
    """`min_train_timesteps_per_iteration`: 8 a gradient step, one for each step after 50."""
    config = config_of().reporting(
        min_sample_timesteps_per_iteration=0, min_train_timesteps_per_iteration=8 * 120
    )
    algo = build(config)
    algo.train()
    assert algo.history.num_updates == 150
