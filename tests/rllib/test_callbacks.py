"""Callbacks see infos, members and evaluation episodes, and reach the environments."""

from __future__ import annotations

from collections import Counter

import numpy as np
import points
import pytest
from helpers import rows_of, same, small_config, weights_of
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from rllib_cikd import CIKD

MEMBERS = ("policy_0", "policy_1", "policy_2")


class Infos(RLlibCallback):
    def on_episode_step(self, *, episode, metrics_logger, **kwargs):
        info = episode.get_infos(-1)["agent_0"]
        metrics_logger.log_value("energy", info["energy"], reduce="mean", window=1000)
        metrics_logger.log_value("keys", len(info), reduce="max", window=1000)


@pytest.mark.parametrize("num_env_runners", [0, 1])
def test_infos_reach_callbacks_and_metrics(build, num_env_runners):
    config = small_config(points.Point).callbacks(Infos)
    result = build(config.env_runners(num_env_runners=num_env_runners)).train()["env_runners"]
    assert result["energy"] == pytest.approx(np.mean([3.0 + t for t in range(1, 21)]))
    assert result["keys"] == 1


class Where(RLlibCallback):
    def on_episode_end(self, *, episode, env_runner, metrics_logger, **kwargs):
        where = "eval" if env_runner.config.in_evaluation else "train"
        metrics_logger.log_value(f"length_{where}", len(episode), reduce="mean", window=100)
        metrics_logger.log_value(f"ends_{where}", 1, reduce="sum")

    def on_evaluate_end(self, *, evaluation_metrics, **kwargs):
        evaluation_metrics["mine"] = 42.0


@pytest.mark.parametrize("runners", [0, 2])
def test_evaluation_episodes_reach_callbacks(build, runners):
    config = small_config(points.Point).callbacks(Where)
    config.evaluation(
        evaluation_interval=1, evaluation_duration=4, evaluation_num_env_runners=runners
    )
    result = build(config).train()
    assert result["env_runners"]["length_train"] == pytest.approx(20.0, abs=10)
    assert result["evaluation"]["env_runners"]["length_eval"] == 20.0
    assert result["evaluation"]["env_runners"]["ends_eval"] == 12
    assert result["evaluation"]["env_runners"]["num_episodes"] == 12
    assert result["evaluation"]["mine"] == 42.0
    assert not {"length_eval", "ends_eval"} & set(result["env_runners"])


class Lifetime(RLlibCallback):
    def on_episode_end(self, *, env_runner, metrics_logger, **kwargs):
        if env_runner.config.in_evaluation:
            metrics_logger.log_value("ends", 1, reduce="lifetime_sum")


def test_what_evaluation_logs_for_a_lifetime_goes_on_after_a_restore(build):
    """Also where a live algorithm goes back."""
    algo = build(small_config(points.Point).callbacks(Lifetime))
    assert algo.evaluate()["env_runners"]["ends"] == 9
    path = algo.save_to_path()
    assert algo.evaluate()["env_runners"]["ends"] == 18
    restored = CIKD.from_checkpoint(path)
    algo.restore_from_path(path)
    assert restored.evaluate()["env_runners"]["ends"] == 18
    assert algo.evaluate()["env_runners"]["ends"] == 18
    restored.stop()


def test_evaluation_without_an_env_runner_of_its_own(build):
    """It must not pass for training: neither its flag nor its metrics."""
    algo = build(small_config(points.Point).callbacks(Where))
    assert algo.evaluate()["env_runners"]["ends_eval"] == 9
    result = algo.train()["env_runners"]
    assert result["ends_train"] == 5
    assert "ends_eval" not in result


def test_an_evaluation_episode_is_whole_and_names_its_member(build):
    episodes, calls = [], Counter()

    def on_end(episode, env, env_index, rl_module, prev_episode_chunks, **kwargs):
        assert env.envs[env_index].unwrapped.t == len(episode) == 20
        assert prev_episode_chunks == []
        assert set(rl_module.keys()) == set(MEMBERS)
        episodes.append(episode)

    def count(name):
        return lambda **kwargs: calls.update([name])

    names = ["episode_created", "episode_start", "episode_step", "sample_end"]
    config = small_config(points.Point).callbacks(
        on_episode_end=on_end, **{f"on_{name}": count(name) for name in names}
    )
    algo = build(config.evaluation(evaluation_interval=100, evaluation_duration=2))
    results = algo.evaluate()
    assert calls == {
        "episode_created": 6,
        "episode_start": 6,
        "episode_step": 120,
        "sample_end": 1,
    }
    assert all(isinstance(episode, MultiAgentEpisode) for episode in episodes)
    acted = Counter(episode.module_for("agent_0") for episode in episodes)
    assert acted == dict.fromkeys(MEMBERS, 2)
    for member in MEMBERS:
        returns = [e.get_return() for e in episodes if e.module_for("agent_0") == member]
        assert np.mean(returns) == pytest.approx(results["ensemble"]["return_mean"][member])
    agent = episodes[0].agent_episodes["agent_0"]
    assert agent.is_truncated
    assert not agent.is_terminated
    assert np.asarray(agent.get_observations()).shape == (21, 2)
    assert np.abs(np.asarray(agent.get_actions())).max() <= 1.0
    assert [info.get("energy") for info in agent.get_infos()[1:]] == [3.0 + t for t in range(1, 21)]


def test_callbacks_change_nothing_in_training_or_evaluation(build):
    runs = []
    for callbacks in (None, Where):
        config = small_config(points.Point).evaluation(evaluation_interval=1)
        algo = build(config if callbacks is None else config.callbacks(callbacks))
        result = [algo.train() for _ in range(2)][-1]
        runs.append((weights_of(algo), rows_of(algo), result["evaluation"]["ensemble"]))
    assert all(same(runs[0][0], runs[1][0]).values())
    assert np.array_equal(runs[0][1]["obs"], runs[1][1]["obs"])
    assert runs[0][2] == runs[1][2]


# ---------------------------------------------------------------------- Calls into environments


def difficulties(runner) -> tuple[list[int], list[int]]:
    """Of the training environments (none: it has none), and of the evaluation episodes'."""
    training = [] if runner.env is None else list(runner.env.get_attr("difficulty"))
    return training, [env.difficulty for row in runner._evaluation_envs for env in row]


CALLS = {
    "env.call": lambda r: r.env.call("set_difficulty", 2),
    "env.unwrapped.call": lambda r: r.env.unwrapped.call("set_difficulty", 2),
    "env.set_attr": lambda r: r.env.set_attr("difficulty", 2),
    "foreach_env": lambda r: r.foreach_env(lambda env: env.set_difficulty(2)),
    "unwrapped.method": lambda r: [e.unwrapped.set_difficulty(2) for e in r.env.unwrapped.envs],
    "unwrapped.attribute": lambda r: [
        setattr(e.unwrapped, "difficulty", 2) for e in r.env.unwrapped.envs
    ],
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ["points.Point", "Point-v0"])
def test_calls_reach_training_and_evaluation(build, call, name):
    """`Point-v0` is under Gymnasium's wrappers. Evaluation environments are made later."""
    import gymnasium as gym

    if "Point-v0" not in gym.registry:
        gym.register("Point-v0", points.Point, max_episode_steps=20)
    algo = build(small_config(name, num_envs=2))
    algo.train()
    CALLS[call](algo.env_runner)
    assert difficulties(algo.env_runner) == ([2, 2], [])
    algo.evaluate()
    assert difficulties(algo.env_runner) == ([2, 2], [2] * 9)
    # Once they are there, later calls reach them, too, and are not made twice.
    algo.env_runner.env.call("harder")
    for _ in range(2):
        algo.evaluate()
    assert difficulties(algo.env_runner) == ([3, 3], [3] * 9)


@pytest.mark.parametrize("call", [*CALLS, "unwrapped.env.method"])
def test_calls_reach_the_evaluation_env_runner(build, call):
    calls = CALLS | {
        "unwrapped.env.method": lambda r: [e.unwrapped.env.set_difficulty(2) for e in r.env.envs]
    }
    algo = build(small_config(points.Point).evaluation(evaluation_interval=1))
    algo.eval_env_runner_group.foreach_env_runner(calls[call])
    algo.train()
    (found,) = algo.eval_env_runner_group.foreach_env_runner(difficulties)
    assert found == ([2] * 9, [2] * 9)


def test_calls_into_remote_environments_reach_the_evaluation_in_the_main_process(build):
    algo = build(small_config(points.Point).env_runners(num_env_runners=1))
    group = algo.env_runner_group
    for expected in (1, 2):
        group.foreach_env_runner(lambda r: r.env.call("harder"), local_env_runner=False)
        algo.evaluate()
        assert difficulties(algo.env_runner) == ([], [expected] * 9)


def test_group_foreach_env(build):
    algo = build(small_config(points.Point, num_envs=2))
    answers = algo.env_runner_group.foreach_env(lambda env: env.set_difficulty(5))
    assert answers == [["now 5", "now 5"]]


def test_of_calls_while_sampling_the_last_is_repeated(build):
    """A callback may call in each of a million steps."""

    def on_episode_step(env, env_index, **kwargs):
        env.envs[env_index].unwrapped.set_difficulty(env.envs[env_index].unwrapped.t)

    algo = build(small_config(points.Point).callbacks(on_episode_step=on_episode_step))
    algo.train()
    calls, count = algo.env_runner.calls.since()
    assert count == 100
    assert len(calls) == 1


def test_environments_that_take_the_place_of_failed_ones_get_the_calls(build):
    points.Raises.steps = 0
    config = small_config(points.Raises).fault_tolerance(restart_failed_sub_environments=True)
    algo = build(config)
    algo.env_runner.env.call("set_difficulty", 2)
    algo.train()
    assert points.Raises.steps > 7
    assert difficulties(algo.env_runner)[0] == [2]


def test_an_unknown_attribute_is_an_error(build):
    algo = build(small_config(points.Point))
    with pytest.raises(AttributeError, match="set_dificulty"):
        algo.env_runner.env.call("set_dificulty", 2)
    with pytest.raises(ValueError, match="3 values for 1 environments"):
        algo.env_runner.env.set_attr("difficulty", [1, 2, 3])
