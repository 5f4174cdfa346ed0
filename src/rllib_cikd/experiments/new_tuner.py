"""Tune's `Tuner` for an experiment that starts, with what this package adds to it."""

from __future__ import annotations

import sys

from ray import tune

from rllib_cikd.cikd import CIKD
from rllib_cikd.common.text import format_number
from rllib_cikd.common.user_modules import UserModules
from rllib_cikd.engine import library
from rllib_cikd.experiments import interrupt
from rllib_cikd.experiments.experiment import Experiment
from rllib_cikd.experiments.kept_modules import ModulesKeeper
from rllib_cikd.experiments.progress import ProgressCallback
from rllib_cikd.experiments.tensorboard import TensorBoard
from rllib_cikd.experiments.tune_record import ProgressFile, RecordKeeper


def new_tuner(
    storage: str, name: str, experiment: Experiment, modules: UserModules, verbose: bool
) -> tune.Tuner:
    """Says what is going to be trained, and prepares it.

    Args:
        storage, name: The run's folder is `storage`/`name`.
        experiment: What is trained.
        modules: The user's, remembered in the run and its checkpoints.
        verbose: Whether Tune tells what it does.
    """
    several = experiment.num_trials > 1
    env = experiment.param_space.get("env")
    until = " or ".join(f"{key} >= {format_number(v)}" for key, v in experiment.stop.items())
    print(
        f"{experiment.name}: {experiment.algorithm.__name__} on {getattr(env, '__name__', env)}, "
        f"{experiment.num_trials} trial{'s' if several else ''}, "
        f"until {until or 'interrupted: `stop` is empty'}\n"
        f"results: {storage}/{name}",
        *([library.describe()] if issubclass(experiment.algorithm, CIKD) else []),
        sep="\n",
        flush=True,
    )
    for note in experiment.notes:
        print(f"rllib: note: {note}", file=sys.stderr)
    tuning = experiment.tuning
    return tune.Tuner(
        experiment.algorithm,
        param_space=experiment.param_space,
        tune_config=tune.TuneConfig(
            num_samples=experiment.num_samples,
            metric=tuning.metric,
            mode=tuning.mode,
            scheduler=interrupt.PausedByASignal(tuning.scheduler),
            search_alg=tuning.searcher,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=storage,
            stop=experiment.stop,
            checkpoint_config=experiment.checkpoint_config,
            callbacks=[
                ProgressCallback(experiment.name, several_trials=several, bars=not verbose),
                RecordKeeper(),
                ProgressFile(),
                ModulesKeeper(modules),
                *([TensorBoard()] if issubclass(experiment.algorithm, CIKD) else []),
                *experiment.loggers,
                interrupt.EndedByASignal(),
            ],
            verbose=2 if verbose else 0,
        ),
    )
