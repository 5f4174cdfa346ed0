"""Schedulers, searchers, loggers and draws as an experiment file names them."""

from __future__ import annotations

import math

import pytest
from ray.tune.schedulers import SCHEDULER_IMPORT, AsyncHyperBandScheduler
from ray.tune.search import SEARCH_ALG_IMPORT
from ray.tune.search.sample import Float

from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.loggers import LOGGERS, with_options
from rllib_cikd.experiments.tuning import SCHEDULERS, SEARCHERS

FILE = """
    e:
      run: CIKD
      env: Pendulum-v1
      stop: {{timesteps_total: 800}}
      {more}
      config: {{ensemble_size: 2, evaluation_interval: 2, actor_lr: {actor_lr}}}
"""
METRIC = "metric: evaluation/ensemble/best_return_mean"
DRAWN = "{tune.loguniform: [1e-5, 1e-3]}"
PBT = f"{METRIC}; num_samples: 2; scheduler: {{pbt: {{hyperparam_mutations: %s}}}}"


def text(more: str, actor_lr: str = "1e-4") -> str:
    """A file; its keys in `more` are separated by "; "."""
    return FILE.format(more="\n      ".join(more.split("; ")), actor_lr=actor_lr)


def test_names_are_those_of_the_installed_ray():
    """With another name for ASHA; without Ray's other names and what a file cannot say."""
    left_out = {"fifo", "pbt_replay", "resource_changing", "medianstopping"}
    names = set(SCHEDULERS.load) - {"asha"} | {"async_hyperband", "asynchyperband"}
    assert names | left_out == set(SCHEDULER_IMPORT)
    assert set(SEARCHERS.load) | {"random", "variant_generator"} == set(SEARCH_ALG_IMPORT)
    for kind in (SCHEDULERS, SEARCHERS, LOGGERS):
        for name in kind.load:
            assert isinstance(kind.load[name](), type)


def test_what_is_built(load):
    more = f"{METRIC}; mode: min; scheduler: {{asha: {{time_attr: timesteps_total, max_t: 9}}}}"
    (experiment,) = load(text(f"{more}; loggers: ['ray.tune.logger:CSVLoggerCallback']", DRAWN))
    tuning = experiment.tuning
    assert (tuning.metric, tuning.mode) == ("evaluation/ensemble/best_return_mean", "min")
    assert isinstance(tuning.scheduler, AsyncHyperBandScheduler)
    assert tuning.scheduler._max_t == 9
    assert tuning.scheduler._time_attr == "num_env_steps_sampled_lifetime"
    assert [type(logger).__name__ for logger in experiment.loggers] == ["CSVLoggerCallback"]
    drawn = experiment.param_space["actor_lr"]
    assert isinstance(drawn, Float)
    assert (drawn.lower, drawn.upper) == (1e-5, 1e-3)
    assert 1e-5 <= experiment.trial_configs[0]["actor_lr"] <= 1e-3
    (replaced,) = load(text("num_samples: 2", DRAWN), config={"actor_lr": {"tune.choice": [1]}})
    assert replaced.param_space["actor_lr"].categories == [1]


def test_a_population_is_in_step_and_keeps_more_checkpoints(load):
    (experiment,) = load(text(PBT % "{actor_lr: [1e-4, 1e-3]}"))
    assert experiment.tuning.scheduler._synch is True
    assert experiment.checkpoint_config.num_to_keep == 4
    given = "{actor_lr: [1e-4]}, synch: false"
    (experiment,) = load(text(PBT % given))
    assert experiment.tuning.scheduler._synch is False


def test_a_population_stays_within_the_ranges_it_is_drawn_from(load):
    """PBT multiplies by 1.2 or 0.8, whatever the range."""
    ranges = "{gamma: {tune.uniform: [0.9, 1]}, policy_delay: {tune.randint: [2, 4]}}"
    (experiment,) = load(text(PBT % ranges))
    explore = experiment.tuning.scheduler._custom_explore_fn
    found = explore({"gamma": 1.188, "policy_delay": 5, "actor_lr": 9.0})
    assert found == {"gamma": math.nextafter(1.0, 0.0), "policy_delay": 3, "actor_lr": 9.0}
    assert explore({"gamma": 0.79, "policy_delay": 1}) == {"gamma": 0.9, "policy_delay": 2}


@pytest.mark.parametrize(
    ("more", "actor_lr", "words"),
    [
        ("loggers: [wandb]", "1", "wandb needs a missing package: .* pip install wandb"),
        ("loggers: [{mlflow: {a: 1}}]", "1", "mlflow needs a missing .* pip install mlflow"),
        ("loggers: wandb", "1", "`loggers` is 'wandb'. Give a list"),
        ("loggers: [mlflow, mlflow]", "1", "mlflow is listed twice"),
        ("loggers: [mlflo]", "1", "`loggers` is 'mlflo'.* Did you mean 'mlflow'"),
        ("loggers: ['os:path']", "1", "os:path is no Callback"),
        ("loggers: ['nowhere:A']", "1", "nowhere:A: ModuleNotFoundError"),
        ("loggers: ['ray.tune.logger:CSVLoggerCallback': {x: 1}]", "1", "no argument 'x'"),
        ("scheduler: asha", "1", "`metric` is None. Name the result"),
        (METRIC, "1", "nothing that compares trials"),
        (f"{METRIC}; mode: maxi; scheduler: asha", "1", "`mode` is 'maxi'. Give max or min"),
        (f"{METRIC}; scheduler: ash", "1", "Did you mean 'asha'"),
        (f"{METRIC}; scheduler: [asha]", "1", r"`scheduler` is \['asha'\]. Give a name"),
        (f"{METRIC}; scheduler: {{asha: {{max: 1}}}}", "1", "no argument 'max'. .*'max_t'"),
        (f"{METRIC}; scheduler: {{asha: {{max_t: 0}}}}", "1", "asha: Max .* not valid"),
        (f"{METRIC}; scheduler: {{asha: {{mode: min}}}}", "1", "mode stands elsewhere: beside"),
        (f"{METRIC}; scheduler: {{asha: {{time_attr: x}}}}", "1", "time_attr: 'x' is not reported"),
        ("metric: evaluation/x; scheduler: asha; config: {}", "1", "given twice"),
        ("metric: evaluation_bst_return_mean; scheduler: asha", "1", "'evaluation_best_return_m"),
        (f"{METRIC}; scheduler: hb_bohb", "1", "hb_bohb and bohb belong together"),
        (f"{METRIC}; scheduler: pbt", "1", "which compares trials, but there is one"),
        (PBT % "{}", "1", "Name the settings that it may change"),
        (PBT % "{actor_lrr: [1]}", "1", "`scheduler`: .* Did you mean 'actor_lr'"),
        (PBT % "{actor_lr: [1e-4, -1]}", "1", "actor_lr=-1: must be a number above 0"),
        (PBT % "{replay_buffer_config: {capacity: [8]}}", "1", "Set what is to be changed"),
        (PBT % "{ensemble_size: [2, 3]}", "1", "ensemble_size cannot change while a run goes on"),
        (PBT % "{adam_beta1: {tune.uniform: [0.5, 1.5]}}", "1", "adam_beta1=1.4999"),
        (PBT % "{policy_delay: {tune.choice: [1, 0]}}", "1", "policy_delay=0: must be"),
        ((PBT % "{actor_lr: [1]}") + "; search_alg: optuna", DRAWN, "leave out `search_alg`"),
        (f"{METRIC}; search_alg: optuna", "1", "no setting in `config` is left to it"),
        (f"{METRIC}; search_alg: optuna", "{grid_search: [1]}", "takes no `grid_search`"),
        (f"{METRIC}; search_alg: ax", DRAWN, "missing package: ax. .*pip install ax-platform"),
        (f"{METRIC}; search_alg: optun", DRAWN, "Did you mean 'optuna'"),
        ("num_samples: 2", "{tune.logunifrom: [1, 2]}", "Did you mean 'tune.loguniform'"),
        ("num_samples: 2", "{tune.loguniform: 3}", "tune.loguniform is 3. Give a list"),
        ("num_samples: 2", "{tune.loguniform: [0, 1]}", "lower bound greater than 0"),
        ("num_samples: 2", "{tune.uniform: [0, 1], a: 3}", "nothing may stand beside"),
        ("checkpoint_on_evaluation: 2", "1", "Give true or false"),
        ("checkpoint_on_evaluation: true; checkpoint_freq: 3", "1", "Keep one"),
    ],
)
def test_what_cannot_run_is_refused(load, more, actor_lr, words):
    with pytest.raises(CommandError, match=words) as caught:
        load(text(more, actor_lr))
    assert "\n" not in str(caught.value)


def test_a_searcher_is_not_told_of_no_number(load, tmp_path, monkeypatch):
    """It reads the last result, which may be of an iteration without an evaluation."""
    (tmp_path / "searchers_of_mine.py").write_text(
        "from ray.tune.search import Searcher\nclass S(Searcher): pass\n"
    )
    more = "metric: evaluation_best_return_mean; search_alg: 'searchers_of_mine:S'"
    with pytest.raises(CommandError, match="Give 'evaluation/ensemble/best_return_mean'"):
        load(text(more, DRAWN))
    load(text(more, DRAWN), config={"evaluation_interval": 1})


def test_checkpoints_on_evaluation(load):
    (experiment,) = load(text("checkpoint_on_evaluation: true"))
    assert experiment.checkpoint_config.checkpoint_frequency == 2
    with pytest.raises(CommandError, match="`evaluation_interval` in `config` is None"):
        load(text("checkpoint_on_evaluation: true"), config={"evaluation_interval": None})


def test_a_commands_loggers_are_laid_over_the_files():
    listed = [{"wandb": {"project": "old", "group": "g"}}, "comet"]
    assert with_options(listed, None, None) is listed
    assert with_options(listed, "new", "http://host:5000") == [
        {"wandb": {"project": "new", "group": "g"}},
        {"comet": {}},
        {"mlflow": {"tracking_uri": "http://host:5000"}},
    ]
    assert with_options(None, None, "name") == [{"mlflow": {"experiment_name": "name"}}]
