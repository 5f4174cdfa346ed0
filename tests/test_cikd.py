"""`CIKD`: how it is constructed, its named members, and its hooks for callbacks."""

from __future__ import annotations

from collections import Counter

import envs
import points
import pytest
from helpers import MEMBERS, SMALL_RUN, plain_values, small_config
from ray.tune.registry import get_trainable_cls

from rllib_cikd import CIKD, CIKDConfig
from rllib_cikd.algorithm.history import FinishedEpisode


def test_the_algorithm_is_registered_by_name():
    assert get_trainable_cls("CIKD") is CIKD
    assert isinstance(CIKD.get_default_config(), CIKDConfig)


def test_three_ways_to_construct_agree(build, tmp_path):
    settings = SMALL_RUN | {"env": envs.DriftEnv, "ensemble_size": 2, "actor_lr": 1e-3}
    config = small_config(envs.DriftEnv, ensemble_size=2, actor_lr=1e-3)
    built = build(config)
    path = built.save_to_path(str(tmp_path / "checkpoint"))
    from_dict = CIKD(config=settings)
    from_whole_dict = CIKD(config=config.to_dict())
    restored = CIKD.from_checkpoint(path)
    expected = plain_values(built.config)
    for other in (from_dict, from_whole_dict, restored):
        assert isinstance(other.config, CIKDConfig)
        assert plain_values(other.config) | {"class": ""} == expected | {"class": ""}
        result = other.train()
        assert result["num_env_steps_sampled_lifetime"] == 100
        assert set(result["ensemble"]["return_mean"]) == {"policy_0", "policy_1"}
        other.stop()


@pytest.mark.parametrize(("env", "words"), [(None, "env"), (points.Buttons, "MultiBinary")])
def test_an_environment_that_cannot_be_used_is_named(ray_cluster, env, words):
    with pytest.raises(ValueError, match=words):
        small_config(env).build_algo()


def test_elected_and_best(build):
    """Elected: by R_k alone. Best: by the last evaluation, until training goes on."""
    algo = build(small_config(envs.DriftEnv))
    assert algo.best_policy_id == "policy_0"
    assert algo.elected_policy_id is None
    algo.history.record_episodes([FinishedEpisode(k, r) for k, r in enumerate([1.0, -1.0, 2.0])])
    assert algo.elected_policy_id == algo.best_policy_id == "policy_2"
    best = algo.evaluate()["ensemble"]["best_policy"]
    other = (best + 1) % 3
    algo.history.record_episodes([FinishedEpisode(other, 1e6)])
    assert algo.best_policy_id == MEMBERS[best]
    assert algo.elected_policy_id == MEMBERS[other]
    algo.train()
    assert algo.best_policy_id == algo.elected_policy_id == MEMBERS[other]


def test_callbacks_fire(build):
    calls = Counter()
    evaluations = []

    def note(name):
        return lambda **kwargs: calls.update([name])

    config = (
        small_config(envs.CountingEnv, env_config={"lengths": [10]})
        .evaluation(evaluation_interval=2)
        .callbacks(
            on_algorithm_init=note("init"),
            on_episode_start=note("episode_start"),
            on_episode_step=note("episode_step"),
            on_episode_end=note("episode_end"),
            on_sample_end=note("sample_end"),
            on_train_result=note("train_result"),
            on_evaluate_start=note("evaluate_start"),
            on_evaluate_end=lambda evaluation_metrics, **kwargs: evaluations.append(
                evaluation_metrics
            ),
        )
    )
    algo = build(config)
    results = [algo.train() for _ in range(4)]
    assert calls["init"] == 1
    # 40 episodes of training, and in each of two evaluations 3 of 3 members; 10 steps each.
    episodes = 40 + 2 * 9
    assert calls["episode_end"] == episodes
    assert calls["episode_start"] in (episodes, episodes + 1)
    assert calls["episode_step"] == 10 * episodes
    assert calls["sample_end"] == 8 + 2  # fragments, and evaluations
    assert calls["train_result"] == 4
    assert calls["evaluate_start"] == len(evaluations) == 2
    returns = evaluations[-1]["ensemble"]["return_mean"]
    assert returns == results[-1]["evaluation"]["ensemble"]["return_mean"]
