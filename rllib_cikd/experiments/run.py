"""What `rllib train file` does: runs checked experiments with Tune, tells what they leave."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import ray
from ray import tune
from ray.train.constants import DEFAULT_STORAGE_PATH
from ray.tune.utils import flatten_dict

from rllib_cikd.common.errors import FAILED, INTERRUPTED, OK, CommandError
from rllib_cikd.experiments.experiment_file import Experiment, load_experiments
from rllib_cikd.experiments.outcome import error_text, state
from rllib_cikd.experiments.progress import (
    ProgressCallback,
    format_number,
    format_table,
    trial_label,
)
from rllib_cikd.experiments.ray_start import check_fits, start_ray
from rllib_cikd.experiments.tune_record import RecordKeeper, restorable

# Beyond a few threads, updates of small networks do not get faster.
_MAX_CPUS_OF_MAIN_PROCESS = 4
_TIME_FORMAT = "%Y-%m-%d_%H-%M-%S"


@dataclass
class _Run:
    """An experiment and its folder of results, `storage`/`name`."""

    experiment: Experiment
    storage: str
    name: str
    resumes: bool = False

    @property
    def folder(self) -> str:
        return f"{self.storage}/{self.name}"


def train_file(args: argparse.Namespace) -> int:
    """Trains the experiments of `args.file` one after another; returns the exit code."""
    if args.resume and (args.stop or args.config or args.num_samples):
        raise CommandError(
            "--resume continues a run with the settings that it was started with: leave out "
            "--stop, --config and --num-samples."
        )
    experiments = load_experiments(
        args.file,
        variant=args.variant,
        config=args.config,
        stop=args.stop,
        num_samples=args.num_samples,
        checkpoint_freq=args.checkpoint_freq,
        checkpoint_at_end=args.checkpoint_at_end,
    )
    runs = _plan(experiments, args)
    local = start_ray(args.ray_address)
    if local:
        for run in runs:
            _fit_to_this_machine(run)
    exit_code = OK
    for run in runs:
        results = _resume(run) if run.resumes else _start(run, args.verbose)
        exit_code = max(exit_code, _report(results, run.folder, args))
        if exit_code == INTERRUPTED:
            break
    return exit_code


def _plan(experiments: list[Experiment], args: argparse.Namespace) -> list[_Run]:
    """Gives each experiment its folder: a free one, or with `--resume` that of its last run."""
    if args.experiment_name and len(experiments) > 1:
        raise CommandError(
            f"--experiment-name names one experiment, but {args.file} has {len(experiments)}: "
            f"{', '.join(experiment.name for experiment in experiments)}."
        )
    runs = []
    for experiment in experiments:
        storage = args.storage_path or experiment.storage_path or DEFAULT_STORAGE_PATH
        if "://" not in storage:
            storage = str(Path(storage).expanduser().resolve())
        name = args.experiment_name or experiment.name
        earlier = _earlier_runs(storage, name)
        if args.resume and earlier:
            runs.append(_Run(experiment, storage, earlier[-1], resumes=True))
        elif earlier:
            runs.append(_Run(experiment, storage, f"{name}_{datetime.now():{_TIME_FORMAT}}"))
        else:
            runs.append(_Run(experiment, storage, name))
    if args.resume and not any(run.resumes for run in runs):
        raise CommandError(
            f"nothing to resume in {runs[0].folder}. Start the run without --resume, or say where "
            "it is with --storage-path and --experiment-name."
        )
    return runs


def _earlier_runs(storage: str, name: str) -> list[str]:
    """Names of the folders in which this experiment has been run, the last one last."""
    runs = [name] if tune.Tuner.can_restore(f"{storage}/{name}") else []
    if "://" not in storage:
        folders = sorted(path.parent.name for path in Path(storage).glob("*/tuner.pkl"))
        runs += [folder for folder in folders if _is_stamped(folder, name)]
    return runs


def _is_stamped(folder: str, name: str) -> bool:
    if not folder.startswith(f"{name}_"):
        return False
    try:
        datetime.strptime(folder.removeprefix(f"{name}_"), _TIME_FORMAT)
    except ValueError:
        return False
    return True


def _fit_to_this_machine(run: _Run) -> None:
    """Sees that trials can start here, and gives a lone one the CPUs that it would leave idle.

    Raises:
        CommandError: If a trial needs more than there is: Tune would wait for it for ever.
    """
    if run.resumes:
        return
    experiment = run.experiment
    for config in experiment.variants:
        needed = check_fits(experiment.algorithm, config, f"experiment {experiment.name!r}")
    if experiment.num_trials > 1:
        return  # trials run side by side
    settings = {"num_cpus_for_main_process", "num_cpus_for_driver", "num_cpus_per_learner"}
    if settings & set(config) or config.get("num_learners"):
        return
    # The main process learns, with as many threads as Ray gives it CPUs: by default 1.
    idle = int(ray.cluster_resources()["CPU"] - needed["CPU"])
    if idle > 0:
        cpus = min(1 + idle, _MAX_CPUS_OF_MAIN_PROCESS)
        experiment.param_space["num_cpus_for_main_process"] = cpus


def _start(run: _Run, verbose: bool) -> tune.ResultGrid:
    experiment = run.experiment
    several = experiment.num_trials > 1
    env = experiment.param_space.get("env")
    until = " or ".join(f"{key} >= {format_number(v)}" for key, v in experiment.stop.items())
    print(
        f"{experiment.name}: {experiment.algorithm.__name__} on {getattr(env, '__name__', env)}, "
        f"{experiment.num_trials} trial{'s' if several else ''}, "
        f"until {until or 'interrupted: `stop` is empty'}\n"
        f"results: {run.folder}",
        flush=True,
    )
    tuner = tune.Tuner(
        experiment.algorithm,
        param_space=experiment.param_space,
        tune_config=tune.TuneConfig(num_samples=experiment.num_samples),
        run_config=tune.RunConfig(
            name=run.name,
            storage_path=run.storage,
            stop=experiment.stop,
            checkpoint_config=experiment.checkpoint_config,
            callbacks=[ProgressCallback(experiment.name, several_trials=several), RecordKeeper()],
            verbose=2 if verbose else 0,
        ),
    )
    return tuner.fit()


def _resume(run: _Run) -> tune.ResultGrid:
    print(f"resuming {run.folder}", flush=True)
    if not restorable(run.folder, run.experiment.checkpoint_config.num_to_keep):
        raise CommandError(
            f"{run.folder} has no record of its trials: it was killed before Tune had written one. "
            "Start the run without --resume."
        )
    tuner = tune.Tuner.restore(
        run.folder,
        trainable=run.experiment.algorithm,
        resume_unfinished=True,
        resume_errored=True,
    )
    return tuner.fit()


def _report(grid: tune.ResultGrid, folder: str, args: argparse.Namespace) -> int:
    """Says how each trial ended, where its files are and how to go on; returns the exit code."""
    results = sorted((grid[i] for i in range(len(grid))), key=lambda result: result.path)
    several = len(results) > 1
    print("", *([_table(results), ""] if several else []), sep="\n")
    for result in results:
        label = f"{_label(result)}: " if several else ""
        if result.error:
            print(f"{label}failed: {error_text(result, args.verbose)}", file=sys.stderr)
        if result.checkpoint:
            path = result.checkpoint.path
            if not several:
                print(f"checkpoint:  {path}")
            print(f"{label or 'evaluate it: '}{shlex.join(['rllib', 'evaluate', path])}")
        elif not result.error:
            print(f"{label}no checkpoint was written")
    print(f"TensorBoard: {shlex.join(['tensorboard', '--logdir', folder])}", flush=True)
    states = [state(result) for result in results]
    if set(states) == {"done"}:
        return OK
    counts = ", ".join(f"{states.count(s)} {s}" for s in ("failed", "unfinished") if s in states)
    resume = shlex.join(_resume_command(args, folder))
    print(f"{counts}; to go on from the last checkpoints: {resume}", file=sys.stderr)
    return INTERRUPTED if "unfinished" in states else FAILED


def _resume_command(args: argparse.Namespace, folder: str) -> list[str]:
    storage, _, name = folder.rpartition("/")
    command = ["rllib", "train", "file", args.file, "--resume"]
    if args.variant:
        command += ["--variant", args.variant]
    if args.storage_path:
        command += ["--storage-path", storage]
    if args.experiment_name:
        command += ["--experiment-name", name]
    if args.ray_address:
        command += ["--ray-address", args.ray_address]
    return command


def _label(result: tune.Result) -> str:
    tag = (result.metrics or {}).get("experiment_tag")
    return trial_label(tag) if tag else Path(result.path).name


def _table(results: list[tune.Result]) -> str:
    """One row a trial: its state, and the last figures of its training and evaluation."""
    metrics = [flatten_dict(result.metrics or {}) for result in results]
    evaluation = "evaluation/ensemble/{}_return_mean"
    columns = {
        "steps": "num_env_steps_sampled_lifetime",
        "return": "env_runners/episode_return_mean",
        **{who: evaluation.format(who) for who in ("best", "worst", "mean", "elected")},
    }
    shown = [name for name, key in columns.items() if any(key in row for row in metrics)]
    rows = [["trial", "state", *shown]]
    for result, row in zip(results, metrics, strict=True):
        figures = [format_number(row.get(columns[name])) for name in shown]
        rows.append([_label(result), state(result), *figures])
    return format_table(rows)
