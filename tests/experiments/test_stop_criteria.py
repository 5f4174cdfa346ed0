"""Stop criteria: classic and nested names, and names that no result has."""

import pytest

from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.stop_criteria import flatten_stop


@pytest.mark.parametrize(
    ("stop", "flat"),
    [
        ({"timesteps_total": 5}, {"num_env_steps_sampled_lifetime": 5}),
        ({"episode_reward_mean": 5}, {"env_runners/episode_return_mean": 5}),
        ({"sampler_results": {"episode_reward_max": 5}}, {"env_runners/episode_return_max": 5}),
        ({"episodes_total": 5}, {"env_runners/num_episodes_lifetime": 5}),
        ({"training_iteration": 5}, {"training_iteration": 5}),
        (
            {"evaluation": {"env_runners": {"episode_return_mean": -150}}},
            {"evaluation/env_runners/episode_return_mean": -150},
        ),
        (
            {"evaluation/sampler_results/episode_reward_mean": -1.5},
            {"evaluation/env_runners/episode_return_mean": -1.5},
        ),
    ],
)
def test_classic_and_nested_keys(stop, flat):
    assert flatten_stop(stop) == flat


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{timesteps_total: 1000}", "{timesteps_total: many}", "timesteps_total is 'many'"),
        ("timesteps_total", "time_steps_total", "'time_steps_total' is not reported"),
        ("timesteps_total", "env_runners/episode_retrun_mean", "env_runners/episode_return_mean"),
        ("timesteps_total", "evaluation/episode_reward_mean", "Set `evaluation_interval`"),
        ("{timesteps_total: 1000}", "{timesteps_total: -5}", "lifetime is -5, where every run beg"),
    ],
)
def test_what_would_never_stop_a_trial(load, minimal, old, new, words):
    with pytest.raises(CommandError, match=f"experiment.yaml: .*stop: .*{words}"):
        load(minimal.replace(old, new))


def test_results_of_a_member(load, minimal):
    text = minimal + "        evaluation_interval: 1\n"
    for key in ("ensemble/return_mean/policy_1", "evaluation/ensemble/worst_return_mean"):
        (experiment,) = load(text.replace("timesteps_total", key))
        assert list(experiment.stop) == [key]


def test_what_a_callback_logs(load):
    (experiment,) = load(
        """
        from rllib_cikd import CIKDConfig

        def log(metrics_logger, **kwargs):
            metrics_logger.log_value("distance", 1.0)

        config = CIKDConfig().environment("Pendulum-v1").callbacks(on_episode_end=log)
        stop = {"distance": 10}
        """,
        name="logs.py",
    )
    assert experiment.stop == {"distance": 10}


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ("evaluation/ensemble/maen_return_mean", "Did you mean 'evaluation/ensemble/mean_ret"),
        ("best_return", "is not reported by CIKD, so no checkpoint would be scored"),
        ("evaluation/ensemble/return_mean/policy_7", "is not reported"),
    ],
)
def test_scores_of_checkpoints_that_are_never_reported(load, minimal, score, words):
    text = minimal + "        evaluation_interval: 1\n"
    scored = f"checkpoint_config: {{checkpoint_score_attribute: {score}}}\n      stop:"
    with pytest.raises(CommandError, match=f"checkpoint_score_attribute: .*{words}"):
        load(text.replace("stop:", scored))


def test_scores_of_checkpoints(load, minimal):
    scored = "checkpoint_config: {{checkpoint_score_attribute: {}}}\n      stop:"
    with pytest.raises(CommandError, match=r"evaluation_mean_return_mean' .*`evaluation_interval`"):
        load(minimal.replace("stop:", scored.format("evaluation_mean_return_mean")))
    for given, attribute in [
        ("evaluation/ensemble/return_mean/policy_1", "evaluation/ensemble/return_mean/policy_1"),
        ("evaluation_elected_return_mean", "evaluation_elected_return_mean"),
        ("episode_reward_mean", "env_runners/episode_return_mean"),
    ]:
        text = minimal + "        evaluation_interval: 1\n"
        (experiment,) = load(text.replace("stop:", scored.format(given)))
        assert experiment.checkpoint_config.checkpoint_score_attribute == attribute


def test_of_other_algorithms_ray_finds_top_level_scores_only(load):
    text = (
        "ppo: {{run: PPO, env: CartPole-v1, checkpoint_config: {{checkpoint_score_attribute: {}}}}}"
    )
    (experiment,) = load(text.format("time_total_s"))
    assert experiment.checkpoint_config.checkpoint_score_attribute == "time_total_s"
    with pytest.raises(CommandError, match="for PPO it would keep the last checkpoints"):
        load(text.format("env_runners/episode_return_mean"))


@pytest.mark.parametrize(("steps", "notes"), [(100, 1), (101, 0)])
def test_a_run_that_ends_before_it_learns_is_told_of(load, minimal, steps, notes):
    text = minimal.replace("1000}", f"{steps}}}").replace("actor_lr: 1e-4", "random_steps: 100")
    (experiment,) = load(text)
    assert len(experiment.notes) == notes
    for note in experiment.notes:
        assert note == (
            "it ends at 100 environment steps, and learning begins after 100 (`random_steps`): "
            "nothing is learned."
        )
