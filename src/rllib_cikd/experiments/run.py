"""Trains the experiments of a file with Tune, or goes on with their last runs."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.train.constants import DEFAULT_STORAGE_PATH

from rllib_cikd.common.errors import FAILED, INTERRUPTED, OK, CommandError, print_error
from rllib_cikd.common.user_modules import UserModules, given_modules
from rllib_cikd.experiments import interrupt
from rllib_cikd.experiments.disk import disk_problem
from rllib_cikd.experiments.experiment import (
    Experiment,
    check_experiments,
    read_specs,
    storage_of,
)
from rllib_cikd.experiments.kept_modules import recall_modules
from rllib_cikd.experiments.loggers import with_options
from rllib_cikd.experiments.new_tuner import new_tuner
from rllib_cikd.experiments.outcome import last_checkpoints, remedy, report_outcome, state
from rllib_cikd.experiments.ray_start import check_fits, start_ray
from rllib_cikd.experiments.recorded_run import differences, raise_goals, recorded_trials
from rllib_cikd.experiments.resume import mend_run, restore_tuner
from rllib_cikd.experiments.run_lock import Locked, RunLock
from rllib_cikd.experiments.starts import record_start
from rllib_cikd.experiments.stop_criteria import flatten_stop

# Beyond a few threads, updates of small networks do not get faster.
_MAX_CPUS_OF_MAIN_PROCESS = 4
_TIME_FORMAT = "%Y-%m-%d_%H-%M-%S"


@dataclass
class _Run:
    """Where an experiment's results are: in `storage`/`name`."""

    storage: str
    name: str
    resumes: bool

    @property
    def folder(self) -> str:
        return f"{self.storage}/{self.name}"


def train(
    file: str,
    *,
    variant: str | None = None,
    config: Mapping[str, Any] | None = None,
    stop: Mapping[str, Any] | None = None,
    num_samples: int | None = None,
    checkpoint_freq: int | None = None,
    checkpoint_at_end: bool | None = None,
    storage_path: str | None = None,
    experiment_name: str | None = None,
    resume: bool = False,
    imports: Sequence[str] = (),
    ray_address: str | None = None,
    wandb: str | None = None,
    mlflow: str | None = None,
    verbose: bool = False,
) -> int:
    """Trains the experiments of a file one after another, and says what they leave.

    Args:
        file, variant, config, stop, num_samples, checkpoint_freq, checkpoint_at_end: As for
            `load_experiments`.
        storage_path: Folder or URI of results; None for the file's, else `~/ray_results`.
        experiment_name: Name of the results' folder in there; None for the experiment's.
        resume: Whether to go on with the last run where its checkpoints end; with `stop` also with
            trials that have ended, until they reach it.
        imports: Modules of the user's that register environments; remembered in the checkpoints.
        ray_address: Of the Ray cluster to use (see `start_ray`).
        wandb, mlflow: Loggers laid over those of the file (see `loggers.with_options`).
        verbose: Whether Tune tells what it does, and errors come with their traceback.

    Returns:
        The exit code.

    Raises:
        CommandError: If something of this cannot be done.
    """
    given = (config, num_samples, checkpoint_freq, checkpoint_at_end, wandb, mlflow)
    if resume and any(value is not None for value in given):
        raise CommandError(
            "--resume continues a run with the settings, checkpoints and loggers that it was "
            "started with: leave out --config, --set and --num-samples, --checkpoint-freq and "
            "--checkpoint-at-end, --wandb and --mlflow. A higher goal may be given with --stop."
        )
    modules = given_modules(imports, Path(file).parent)
    modules.load()
    options = {
        "num_samples": num_samples,
        "checkpoint_freq": checkpoint_freq,
        "checkpoint_at_end": checkpoint_at_end,
    }
    specs = read_specs(file, variant=variant, config=config, options=options)
    for spec in specs.values():
        spec["loggers"] = with_options(spec.get("loggers"), wandb, mlflow)
    with ExitStack() as locks:
        runs = _find_folders(file, specs, storage_path, experiment_name, resume, locks)
        for run in runs:
            if run.resumes:
                modules = modules.over(recall_modules(run.folder))
        modules.load()
        experiments = check_experiments(file, specs, stop)
        for run, experiment in zip(runs, experiments, strict=True):
            if run.resumes:
                _prepare_resume(file, run, experiment, stop or {})
        if start_ray(ray_address, modules):
            experiments = [
                experiment if run.resumes else _fit_to_this_machine(experiment)
                for run, experiment in zip(runs, experiments, strict=True)
            ]
        exit_code = OK
        for run, experiment in zip(runs, experiments, strict=True):
            again = {
                "--variant": variant,
                "--storage-path": storage_path and run.storage,
                "--experiment-name": experiment_name and run.name,
                "--ray-address": ray_address,
            }
            words = [word for option, value in again.items() if value for word in (option, value)]
            command = shlex.join(["rllib", "train", "file", file, "--resume", *words])
            exit_code = max(exit_code, _train(run, experiment, modules, command, verbose))
            if exit_code >= INTERRUPTED:
                break
        return exit_code


def _train(
    run: _Run, experiment: Experiment, modules: UserModules, resume: str, verbose: bool
) -> int:
    """Trains an experiment; `resume` is the command that goes on with it. Returns the exit code."""
    try:
        record_start(run.folder)
        if run.resumes:
            print(f"resuming {run.folder}", flush=True)
            tuner = restore_tuner(run.folder, experiment.algorithm)
        else:
            tuner = new_tuner(run.storage, run.name, experiment, modules, verbose)
        with interrupt.after_a_checkpoint():
            grid = tuner.fit()
    except KeyboardInterrupt:  # the second one
        print("rllib: interrupted", file=sys.stderr)
        exit_code = interrupt.exit_code() or INTERRUPTED
    except Exception as error:  # Tune raises all kinds when it cannot write or read its files
        problem = disk_problem(run.folder)
        if problem is None and not isinstance(error, OSError):
            raise
        print_error(f"{problem or error}. Training has stopped.")
        exit_code = FAILED
    else:
        problem = None
        if any(state(grid[i]) != "done" for i in range(len(grid))):
            problem = disk_problem(run.folder)
        if problem is None:
            score = experiment.checkpoint_config
            exit_code = report_outcome(grid, run.folder, score, resume, verbose)
            return exit_code if exit_code != INTERRUPTED else interrupt.exit_code() or INTERRUPTED
        print_error(f"{problem}. Training has stopped.")
        exit_code = FAILED
    left = last_checkpoints(run.folder)
    if tune.Tuner.can_restore(run.folder):
        print(remedy(left, resume), file=sys.stderr)
    else:
        print("nothing is left to go on with: start it again without --resume", file=sys.stderr)
    return exit_code


def _find_folders(
    file: str,
    specs: Mapping[str, Mapping[str, Any]],
    storage_path: str | None,
    experiment_name: str | None,
    resume: bool,
    locks: ExitStack,
) -> list[_Run]:
    """Gives each experiment its folder: a free one, or with `resume` that of its last run.

    `locks` gives the folders back in the end.
    """
    if experiment_name and len(specs) > 1:
        raise CommandError(
            f"--experiment-name names one experiment, but {file} has {len(specs)}: "
            f"{', '.join(specs)}."
        )
    runs = []
    for experiment, spec in specs.items():
        storage = storage_path or storage_of(spec) or DEFAULT_STORAGE_PATH
        if "://" not in storage:
            storage = str(Path(storage).expanduser().resolve())
        name = experiment_name or experiment
        try:
            earlier = _earlier_runs(storage, name)
            resumes = bool(earlier and resume)
            if resumes:
                name = earlier[-1]
                _lock(storage, name, locks)
            else:
                name = _free_name(storage, name, locks)
        except OSError as error:
            raise CommandError(
                f"{storage}/{name} cannot be written to: {error.strerror}. Give another folder "
                "with --storage-path."
            ) from error
        runs.append(_Run(storage, name, resumes))
    if resume and not any(run.resumes for run in runs):
        raise CommandError(
            f"nothing to resume in {runs[0].folder}. Start the run without --resume, or say where "
            "it is with --storage-path and --experiment-name."
        )
    return runs


def _free_name(storage: str, name: str, locks: ExitStack) -> str:
    """Takes a folder in which there is no run, nor is one starting: `name`, or with the time."""
    candidate, now = name, datetime.now()
    while True:
        if not tune.Tuner.can_restore(f"{storage}/{candidate}"):
            try:
                _lock(storage, candidate, locks)
                return candidate
            except Locked:
                pass
        candidate = f"{name}_{now:{_TIME_FORMAT}}"
        now += timedelta(seconds=1)


def _lock(storage: str, name: str, locks: ExitStack) -> None:
    if "://" not in storage:
        locks.callback(RunLock(Path(storage, name)).release)


def _prepare_resume(file: str, run: _Run, experiment: Experiment, stop: Mapping[str, Any]) -> None:
    """Mends the record of a run, says how its file differs from it, and raises its goals.

    Raises:
        CommandError: If it cannot go on.
    """
    if not mend_run(run.folder, experiment.algorithm):
        raise CommandError(
            f"{run.folder} has no record of its trials: it was killed before Tune had written "
            "one. Start the run without --resume."
        )
    trials = recorded_trials(run.folder)
    changed = differences(experiment, trials, goals_given=bool(stop))
    if changed:
        print(
            f"rllib: note: {run.folder} goes on as it was started; {file} differs: "
            f"{', '.join(changed)}. Start a new run without --resume for the file's"
            f"{', or raise the goal with --stop.' if not stop else '.'}",
            file=sys.stderr,
        )
    if stop:
        raise_goals(run.folder, trials, flatten_stop(stop))
        mend_run(run.folder, experiment.algorithm)  # now also of those that had ended


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


def _fit_to_this_machine(experiment: Experiment) -> Experiment:
    """Sees that trials can start here, and gives a lone one the CPUs that it would leave idle.

    Raises:
        CommandError: If a trial needs more than there is: Tune would wait for it for ever.
    """
    for config in experiment.trial_configs:
        needed = check_fits(experiment.algorithm, config, f"experiment {experiment.name!r}")
    if experiment.num_trials > 1:
        return experiment  # trials run side by side
    settings = {"num_cpus_for_main_process", "num_cpus_for_driver", "num_cpus_per_learner"}
    if settings & set(config) or config.get("num_learners"):
        return experiment
    # The main process learns, with as many threads as Ray gives it CPUs: by default 1.
    idle = int(ray.cluster_resources()["CPU"] - needed["CPU"])
    if idle <= 0:
        return experiment
    cpus = min(1 + idle, _MAX_CPUS_OF_MAIN_PROCESS)
    param_space = {**experiment.param_space, "num_cpus_for_main_process": cpus}
    return dataclasses.replace(experiment, param_space=param_space)
