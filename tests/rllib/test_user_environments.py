"""Making environments from a config, and what training and evaluation give them and take."""

from __future__ import annotations

import sys
import textwrap

import gymnasium as gym
import numpy as np
import points
import pytest
from gymnasium import spaces
from helpers import rows_of, small_config
from ray.tune.registry import register_env

from rllib_cikd.common.errors import EnvironmentFault
from rllib_cikd.rllib.environment import AGENT_ID, create_env, make_task

Point = points.Point


def made(env, env_config=None, **kwargs):
    return create_env(small_config(env, env_config=env_config), **kwargs)


# ---------------------------------------------------------------------- Constructors


class Config(Point):
    def __init__(self, config):
        super().__init__(config)


class AnyName(Point):
    def __init__(self, c, extra=3):
        super().__init__(c)


class DefaultsToNone(Point):
    def __init__(self, c=None):
        super().__init__(c)


class OnlySize(Point):
    def __init__(self, size=5):
        super().__init__({"n": size})


class ConfigLast(Point):
    def __init__(self, render_mode=None, *, env_config):
        super().__init__(env_config)
        self.render_mode = render_mode


class PassesOn(Config):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class PassesOnSettings(points.Settings):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class OnlyKeywords(Point):
    def __init__(self, **settings):
        super().__init__(settings)


class Needs(Point):
    def __init__(self, size):
        super().__init__({"n": size})


class NeedsNumber(Point):
    def __init__(self, size: int):
        super().__init__({"n": size})


class NeedsTwo(Point):
    def __init__(self, config, size):
        super().__init__(config)


@pytest.mark.parametrize(
    ("env", "env_config", "attribute", "expected"),
    [
        (Point, {"n": 7}, "n", 7),
        (Config, {"n": 7}, "n", 7),
        (AnyName, {"n": 7}, "n", 7),
        (DefaultsToNone, {"n": 7}, "n", 7),
        (DefaultsToNone, {}, "n", 20),
        (OnlySize, {"size": 7}, "n", 7),
        (OnlySize, {}, "n", 5),
        (ConfigLast, {"n": 7}, "n", 7),
        (PassesOn, {"n": 7}, "n", 7),
        (PassesOn, {}, "n", 20),
        (OnlyKeywords, {"n": 7}, "n", 7),
        (points.Settings, {"size": 7}, "size", 7),
        (points.Settings, {}, "size", 5),
        (PassesOnSettings, {"size": 7}, "size", 7),
        (points.Settings, {"render_mode": "rgb_array"}, "render_mode", "rgb_array"),
        (points.NoSettings, {}, "n", 20),
        (Needs, {"size": 7}, "n", 7),
        (NeedsNumber, {"size": 7}, "n", 7),
        ("points.Point", {"n": 7}, "n", 7),
        ("points.Settings", {"size": 7}, "size", 7),
    ],
)
def test_classes_get_env_config_as_they_are_written(env, env_config, attribute, expected):
    assert getattr(made(env, env_config), attribute) == expected


@pytest.mark.parametrize(
    ("env", "env_config", "words"),
    [
        (points.Settings, {"sice": 7}, r"has no parameter \['sice'\].*env_config=\{'sice': 7\}"),
        (points.NoSettings, {"size": 7}, r"`__init__\(self\)` has no parameter \['size'\]"),
        (OnlySize, {"n": 7}, r"`__init__\(self, size=5\)` has no parameter \['n'\]"),
        (NeedsNumber, {}, r"`__init__\(self, size: 'int'\)` needs \['size'\]"),
        (NeedsTwo, {"size": 3}, r"needs \['size'\].*and gets the whole of env_config"),
        ("points.Pointt", {}, "the module 'points' has no class 'Pointt'"),
        ("pointss.Point", {}, "No module named 'pointss'.*PYTHONPATH"),
        ("Pendulum-v1", {"gg": 3}, "unexpected keyword argument 'gg'"),
        (3, {}, "give a Gymnasium id"),
    ],
)
def test_env_config_that_does_not_fit_is_one_line(env, env_config, words):
    with pytest.raises(EnvironmentFault, match=words) as error:
        made(env, env_config)
    assert str(error.value).startswith("env=")
    assert "\n" not in str(error.value)


def test_a_class_path_trains(build, tmp_path, monkeypatch):
    """As RLlib documents it."""
    (tmp_path / "my_tasks.py").write_text("from points import Settings as MyEnv\n")
    monkeypatch.syspath_prepend(tmp_path)
    algo = build(small_config("my_tasks.MyEnv", env_config={"size": 3}))
    assert algo.train()["timesteps_total"] == 100
    assert algo.env_runner.env.get_attr("size") == (3,)
    sys.modules.pop("my_tasks")


def test_an_error_within_the_users_module_comes_out(tmp_path, monkeypatch):
    (tmp_path / "bad_tasks.py").write_text(textwrap.dedent("raise RuntimeError('oh no')"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="oh no"):
        made("bad_tasks.MyEnv")


@pytest.mark.parametrize("env_config", [{}, {"render_mode": None}, {"render_mode": "human"}])
@pytest.mark.parametrize(
    "env", ["Pendulum-v1", Config, ConfigLast, points.Settings, PassesOnSettings, "registered"]
)
def test_a_video_gets_its_render_mode_whatever_env_config_says(env, env_config):
    register_env("registered", lambda context: Point(context))
    assert made(env, env_config, render_mode="rgb_array").render_mode == "rgb_array"


def test_indices_reach_the_environment(build):
    algo = build(small_config(Point, env_config={"n": 9}, num_envs=3))
    contexts = algo.env_runner.env.get_attr("config")
    assert [context.vector_index for context in contexts] == [0, 1, 2]


# ---------------------------------------------------------------------- What is checked


class OwnStatistics(gym.ObservationWrapper):
    """As many have written it."""

    def __init__(self, env):
        super().__init__(env)
        self.statistics = gym.wrappers.utils.RunningMeanStd(shape=(2,))

    def observation(self, observation):
        return observation


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (
            gym.wrappers.NormalizeObservation,
            "NormalizeObservation.*observation_filter='MeanStdFilter'",
        ),
        (lambda e: gym.wrappers.TimeLimit(gym.wrappers.NormalizeReward(e), 9), "TransformReward"),
        (OwnStatistics, "the wrapper OwnStatistics keeps running statistics"),
    ],
)
def test_statistics_of_a_wrapper_are_refused(wrap, words):
    register_env("statistics", lambda config: wrap(Point(config)))
    with pytest.raises(EnvironmentFault, match=words):
        made("statistics")


def test_wrappers_without_statistics_are_fine(build):
    def make(config):
        env = gym.wrappers.TimeAwareObservation(gym.wrappers.TimeLimit(Point(config), 10))
        env = gym.wrappers.FrameStackObservation(env, 2)
        env = gym.wrappers.TransformReward(env, lambda reward: 2.0 * reward)
        return gym.wrappers.RecordEpisodeStatistics(env)

    register_env("wrapped", make)
    algo = build(small_config("wrapped"))
    algo.train()
    assert rows_of(algo)["obs"].shape == (100, 6)


@pytest.mark.parametrize("reward", [1, np.float32(1), np.array([1.0]), np.array(1), True])
def test_rewards_of_any_numeric_type(reward):
    class Env(Point):
        def reward(self):
            return reward

    task = make_task(small_config(Env))
    task.reset(seed=0)
    result = task.step(np.zeros(1, np.float32))[1]
    assert result == 1.0
    assert type(result) is float


@pytest.mark.parametrize("reward", ["1.0", [1.0, 2.0], np.zeros(2), {}, 1j])
def test_other_rewards_are_faults(reward):
    class Env(Point):
        def reward(self):
            return reward

    task = make_task(small_config(Env))
    task.reset(seed=0)
    with pytest.raises(EnvironmentFault, match=r"env='Env': step.* as reward. Return one number"):
        task.step(np.zeros(1, np.float32))


# ---------------------------------------------------------------------- Training and evaluation


class IntegerReset(Point):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([0, 0]), {}

    def observe(self):
        return np.array([self.t + 0.5, 0.25])


def test_observations_are_not_cut_after_a_reset_of_integers(build):
    algo = build(small_config(IntegerReset, env_config={"n": 5}))
    algo.train()
    stored = rows_of(algo)
    assert stored["next_obs"][:10, 0].tolist() == [1.5, 2.5, 3.5, 4.5, 5.5] * 2
    assert stored["obs"][:10, 0].tolist() == [0.0, 1.5, 2.5, 3.5, 4.5] * 2
    seen = []
    module = algo.env_runner.module["policy_0"]
    act = module.deterministic_actions
    module.deterministic_actions = lambda obs: seen.append(obs.tolist()) or act(obs)
    algo.evaluate_members(1, seed=0)
    assert seen == [[[0.0, 0.0]]] + [[[t + 0.5, 0.25]] for t in range(1, 5)]


ACTION_SPACES = [
    spaces.Box(-10, 10, (1,), np.int64),
    spaces.Box(-128, 127, (1,), np.int8),
    spaces.Box(0, 1, (1,), np.bool_),
    spaces.Box(-2.0, 4.0, (1,), np.float16),
    spaces.Box(-1e300, 1e300, (1,), np.float64),
    spaces.Box(3.0, 3.0, (2, 2), np.float32),
]


class Actor(Point):
    """Notes which actions it got."""

    got: list

    def __init__(self, config):
        super().__init__(config)
        self.action_space = config["action_space"]

    def step(self, action):
        assert self.action_space.contains(action), action
        self.got.append(np.array(action))
        return super().step(np.zeros(1))


@pytest.mark.parametrize("space", ACTION_SPACES, ids=str)
def test_training_and_evaluation_give_the_same_actions(build, space):
    """Checked against the textbook formula, from what the members answered."""
    Actor.got = []
    algo = build(small_config(Actor, env_config={"action_space": space}, ensemble_size=1))
    algo.train()
    in_training, Actor.got = np.stack(Actor.got), []
    stored = rows_of(algo)["actions"]
    assert np.abs(stored).max() <= 1.0
    answered = []
    module = algo.env_runner.module["policy_0"]
    act = module.deterministic_actions
    module.deterministic_actions = lambda obs: answered.append(act(obs)) or answered[-1]
    algo.evaluate_members(1, seed=0)
    units = np.concatenate(answered)
    for unit, got in ((stored, in_training), (units, np.stack(Actor.got))):
        low, high = space.low.ravel().astype(float), space.high.ravel().astype(float)
        expected = low * (1 - unit.astype(float)) / 2 + high * (1 + unit.astype(float)) / 2
        if space.dtype.kind != "f":
            expected = np.rint(expected)
        assert got.dtype == space.dtype
        assert np.allclose(got.reshape(len(got), -1).astype(float), expected, rtol=1e-3)


@pytest.mark.parametrize("num_env_runners", [0, 1])
def test_dictionaries_and_tuples_train_and_evaluate(build, num_env_runners):
    config = small_config(points.Structured).env_runners(num_env_runners=num_env_runners)
    algo = build(config)
    algo.train()
    stored = rows_of(algo)
    assert stored["obs"].shape == (100, 4)
    assert stored["actions"].shape == (100, 3)
    assert np.abs(stored["obs"][:, 0]).max() <= 10
    assert (np.sort(stored["obs"][:, 1:], axis=1) == [0, 0, 1]).all()
    assert np.isfinite(algo.evaluate()["env_runners"]["episode_return_mean"])


# ---------------------------------------------------------------------- Faults and crashes


@pytest.mark.parametrize(
    ("env", "words", "act"),
    [
        (points.FourValues, "step.. returned 4 values instead of five", "train"),
        (points.DivergedReward, "non-finite reward", "evaluate"),
    ],
)
def test_a_fault_in_a_remote_env_runner_ends_the_run_with_its_line(build, env, words, act):
    config = small_config(env).env_runners(num_env_runners=1 if act == "train" else 0)
    if act == "evaluate":
        config.evaluation(evaluation_num_env_runners=1, evaluation_interval=100)
    algo = build(config)
    with pytest.raises(EnvironmentFault, match=f"env='{env.__name__}': .*{words}.*policy_"):
        getattr(algo, act)()


def test_a_crash_names_the_environment_and_keeps_its_cause(build):
    points.Raises.steps = 0
    with pytest.raises(RuntimeError, match="env='Raises' raised OSError: simulator cr") as error:
        build(small_config(points.Raises)).train()
    assert isinstance(error.value.__cause__, OSError)


@pytest.mark.parametrize("act", ["train", "evaluate"])
def test_failed_environments_are_replaced_if_asked_for(build, act):
    points.Raises.steps = 0
    config = small_config(points.Raises).fault_tolerance(restart_failed_sub_environments=True)
    algo = build(config)
    if act == "train":
        # The six steps before the crash, and two fragments of 50.
        assert algo.train()["timesteps_total"] == 106
        assert points.Raises.steps == 107
        return
    returns = algo.evaluate_members(2, seed=1)
    expected = build(small_config(Point))
    expected.env_runner.module.set_state(algo.env_runner.module.get_state())
    assert points.Raises.steps > 7
    for member, played in returns.items():
        assert played["lengths"].tolist() == [20, 20], member


def test_an_environment_that_always_fails_is_no_endless_loop(build):
    class Always(Point):
        def step(self, action):
            raise OSError("no licence")

    config = small_config(Always).fault_tolerance(restart_failed_sub_environments=True)
    with pytest.raises(RuntimeError, match="env='Always' raised OSError: no licence"):
        build(config).train()
    with pytest.raises(OSError, match="no licence"):
        build(config).evaluate()


def test_a_mistake_is_not_mended_by_another_environment(build):
    config = small_config(points.NoReward).fault_tolerance(restart_failed_sub_environments=True)
    with pytest.raises(EnvironmentFault, match="None as reward"):
        build(config).train()


def test_episodes_may_be_as_long_as_the_setting_says(build):
    algo = build(small_config(Point, env_config={"n": 60}, max_evaluation_steps=60))
    assert algo.evaluate()["env_runners"]["episode_len_mean"] == 60
    algo = build(small_config(Point, env_config={"n": 61}, max_evaluation_steps=60))
    with pytest.raises(EnvironmentFault, match="episode of policy_0 has not ended after 60 steps"):
        algo.evaluate()


def test_a_long_training_episode_is_warned_of_once(build, caplog):
    algo = build(small_config(points.Endless, max_evaluation_steps=120, random_steps=5_000))
    for _ in range(4):
        algo.train()
    (warning,) = [m for m in caplog.messages if "TimeLimit" in m]
    assert "env='Endless': a training episode has not ended after 150 steps" in warning


def test_more_episodes_than_environments_are_played_in_turns(build):
    algo = build(small_config(Point).evaluation(evaluation_duration=3))
    few = [algo.evaluate_members(n, seed=4)["policy_1"]["returns"] for n in (1, 3, 8)]
    assert [len(returns) for returns in few] == [1, 3, 8]
    assert len(algo.env_runner._evaluation_envs[1]) == 3
    for returns in few[:2]:
        assert returns == pytest.approx(few[2][: len(returns)], rel=1e-5)


def test_agent_id_is_fixed():
    """It is documented for callbacks."""
    assert AGENT_ID == "agent_0"
