"""Evaluates a checkpoint: loads it, plays episodes of each member, records videos."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm

from rllib_cikd.cikd import CIKD
from rllib_cikd.common.errors import OK, CommandError, DamagedCheckpoint, EnvironmentFault
from rllib_cikd.common.files import check_writable, write_whole
from rllib_cikd.common.result_keys import ENSEMBLE, STEPS, SUMMARIES, summary_key
from rllib_cikd.common.text import format_duration, format_number, format_table
from rllib_cikd.common.user_modules import UserModules, given_modules
from rllib_cikd.experiments.exported_evaluation import evaluate_exported
from rllib_cikd.experiments.graphics import missing_library
from rllib_cikd.experiments.ray_start import start_ray
from rllib_cikd.rllib.checkpoint_files import find_checkpoint, unreadable
from rllib_cikd.rllib.endless import endless_episode
from rllib_cikd.rllib.environment import create_env, env_name
from rllib_cikd.rllib.evaluation import summarize
from rllib_cikd.rllib.exported import is_exported
from rllib_cikd.rllib.manifest import MANIFEST, check_checkpoint
from rllib_cikd.rllib.task import Task


def evaluate(
    checkpoint: str,
    *,
    num_episodes: int = 20,
    member: str = "all",
    seed: int | None = None,
    video_folder: str | None = None,
    out: str | None = None,
    imports: Sequence[str] = (),
    ray_address: str | None = None,
) -> int:
    """Evaluates a checkpoint and prints the figures.

    Args:
        checkpoint: Its folder, or one above it (see `find_checkpoint`); or that of a member that
            was exported as safetensors.
        num_episodes, member, seed, video_folder: As for `evaluate_checkpoint`.
        out: A JSON file for the figures.
        imports: Modules of the user's that register environments, in place of those that the
            checkpoint remembers.
        ray_address: Of the Ray cluster to use (see `start_ray`).

    Returns:
        The exit code.

    Raises:
        CommandError: If something of this cannot be done.
    """
    if out:
        try:
            check_writable(Path(out))
        except OSError as error:
            raise CommandError(f"--out {out}: {error.strerror}. Give another file.") from error
    if video_folder is not None:
        try:
            Path(video_folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(
                f"--video {video_folder}: {error.strerror}. Give a folder, there or to be made."
            ) from error
    exported = Path(checkpoint).expanduser()
    if is_exported(exported):
        if member not in ("all", "best") or video_folder is not None:
            raise CommandError(
                f"{checkpoint}: an exported member is alone, and no video of it is recorded: leave "
                "--member and --video out."
            )
        given_modules(imports).load()
        _show(evaluate_exported(exported, num_episodes, seed), out)
        return OK
    path = find_checkpoint(checkpoint)
    modules = given_modules(imports).over(UserModules.recall(path))
    modules.load()
    start_ray(ray_address, modules)
    torch.set_num_threads(1)  # batches of a few observations do not get faster by more
    started = time.monotonic()
    evaluation = evaluate_checkpoint(
        path, num_episodes=num_episodes, member=member, seed=seed, video_folder=video_folder
    )
    _show(evaluation, out)
    print(f"took {format_duration(time.monotonic() - started)}")
    return OK


def _show(evaluation: dict[str, Any], out: str | None) -> None:
    print(format_evaluation(evaluation))
    if out:
        write_whole(Path(out), json.dumps(evaluation, indent=2) + "\n")
        print(f"results: {out}")


def evaluate_checkpoint(
    path: Path,
    num_episodes: int = 20,
    member: str = "all",
    seed: int | None = None,
    video_folder: str | Path | None = None,
) -> dict[str, Any]:
    """Plays deterministic episodes with the policies of a checkpoint.

    Args:
        path: Folder of the checkpoint.
        num_episodes: Episodes of each member.
        member: "all", "best" (`CIKD.best_policy_id`), "elected" (`CIKD.elected_policy_id`) or a
            member's id.
        seed: Seed of the initial states; None for the training's seed, or 0 if it had none.
        video_folder: If given, an episode of each member is recorded there.

    Returns:
        What `rllib evaluate --out` writes, of plain Python types.
    """
    algorithm = _load(path, num_episodes, seed)
    if seed is None:
        seed = algorithm.config.seed or 0  # `_load` has set it for other algorithms
    evaluation: dict[str, Any] = {
        "checkpoint": str(path),
        "algorithm": type(algorithm).__name__,
        "env": getattr(algorithm.config.env, "__name__", algorithm.config.env),
        STEPS: _steps(algorithm),
        "episodes": num_episodes,
        "seed": seed,
    }
    if isinstance(algorithm, CIKD):
        chosen = _chosen_members(algorithm, member)
        if video_folder is not None:  # first, because it may turn out to be impossible
            evaluation["videos"] = [
                str(_record(algorithm, policy_id, Path(video_folder), seed)) for policy_id in chosen
            ]
        played = algorithm.evaluate_members(num_episodes, seed=seed)
        evaluation["best_policy"] = algorithm.best_policy_id
        evaluation["elected_policy"] = algorithm.elected_policy_id
        evaluation["summary"] = _summary(played, algorithm.elected_policy_id)
        evaluation["members"] = {
            policy_id: {name: values.tolist() for name, values in played[policy_id].items()}
            for policy_id in chosen
        }
    else:
        if member != "all" or video_folder is not None:
            raise CommandError(
                f"--member and --video need a checkpoint of CIKD; {path} is one of "
                f"{type(algorithm).__name__}."
            )
        results = algorithm.evaluate()["env_runners"]
        evaluation["summary"] = {
            name: float(results[f"episode_{name}"])
            for name in ("return_mean", "return_min", "return_max", "len_mean")
        }
    algorithm.stop()
    return evaluation


def format_evaluation(evaluation: dict[str, Any]) -> str:
    """Returns the lines that `rllib evaluate` prints."""
    lines = [
        f"checkpoint: {evaluation['checkpoint']}",
        f"{evaluation['algorithm']} on {evaluation['env']} after "
        f"{format_number(evaluation[STEPS])} env steps; "
        f"{evaluation['episodes']} episodes, seed {evaluation['seed']}, deterministic actions",
        "",
    ]
    summary = evaluation["summary"]
    if "members" not in evaluation:
        rows = [["return mean", "min", "max", "length mean"]]
        rows += [[_decimal(value) for value in summary.values()]]
        return "\n".join([*lines, format_table(rows)])
    elected = evaluation["elected_policy"]
    rows = [["member", "mean", "std", "min", "max", "length", ""]]
    for policy_id, played in evaluation["members"].items():
        returns = np.asarray(played["returns"])
        figures = [returns.mean(), returns.std(), returns.min(), returns.max()]
        mark = "<- elected" if policy_id == elected else ""
        length = np.mean(played["lengths"])
        rows.append([policy_id, *(_decimal(x) for x in figures), _decimal(length), mark])
    lines += [format_table(rows), ""]
    explained = {
        "best": "highest mean of all members, chosen with hindsight",
        "worst": "lowest mean of all members",
        "mean": "mean of all members",
        "elected": f"{elected or 'none yet'}: the best by its last training episodes",
    }
    for who in [who for who in SUMMARIES if summary_key(who) in summary]:
        lines.append(f"{who:8}{_decimal(summary[summary_key(who)]):>10}  {explained[who]}")
    lines += [f"video: {video}" for video in evaluation.get("videos", [])]
    return "\n".join(lines)


def _decimal(value: float) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:,.1f}"


def _summary(played: dict[str, dict[str, np.ndarray]], elected: str | None) -> dict[str, Any]:
    returns, lengths = (
        np.stack([member[name] for member in played.values()]) for name in ("returns", "lengths")
    )
    index = None if elected is None else list(played).index(elected)
    figures = summarize(returns, lengths, index, env_steps=0)[ENSEMBLE]
    summary = {summary_key(who): figures[summary_key(who)] for who in SUMMARIES}
    return summary if elected else summary | {summary_key("elected"): None}  # JSON has no NaN


def _load(path: Path, num_episodes: int, seed: int | None) -> Algorithm:
    """Loads the algorithm without the env runners, learners and GPUs that trained it."""
    if (path / MANIFEST).is_file():  # then it is CIKD's
        check_checkpoint(str(path), needed=lambda name: "/" not in name)
    try:
        with (path / Algorithm.CLASS_AND_CTOR_ARGS_FILE_NAME).open("rb") as file:
            ctor = pickle.load(file)
        config = dict(ctor["ctor_args_and_kwargs"][0][0])
    except Exception as error:  # whatever unpickling finds missing
        raise unreadable(path, error) from error
    config |= {"num_env_runners": 0, "evaluation_num_env_runners": 0, "num_learners": 0}
    if not torch.cuda.is_available():
        config["num_gpus_per_learner"] = 0
    if issubclass(ctor["class"], CIKD):
        config["sample_while_learning"] = False
    else:
        config |= {
            "evaluation_interval": 1,
            "evaluation_duration": num_episodes,
            "evaluation_duration_unit": "episodes",
            "evaluation_parallel_to_training": False,
            "evaluation_config": {**(config["evaluation_config"] or {}), "explore": False},
            "seed": seed if seed is not None else config["seed"] or 0,
        }
    try:
        # Not `from_checkpoint(path, config=...)`: it has no effect on SAC and what derives from it.
        algorithm = ctor["class"](config)
        with suppress(OSError):
            Path(algorithm.logdir).rmdir()  # an empty folder in ~/ray_results
        if isinstance(algorithm, CIKD):
            algorithm.restore_members(path)
        else:
            algorithm.restore_from_path(str(path))
        return algorithm
    except DamagedCheckpoint:
        raise
    except Exception as error:
        missing = missing_library(error)  # MuJoCo loads it as soon as it is imported
        if missing:
            raise missing from error
        raise CommandError(
            f"{path}: could not be restored: {type(error).__name__}: {error}"
        ) from error


def _steps(algorithm: Algorithm) -> int:
    if isinstance(algorithm, CIKD):
        return algorithm.history.env_steps
    return int(algorithm.metrics.peek(("env_runners", STEPS), default=0))


def _chosen_members(algorithm: CIKD, member: str) -> list[str]:
    members = list(algorithm.config.policies)
    if member == "all":
        return members
    if member == "best":
        return [algorithm.best_policy_id]
    if member == "elected" and algorithm.elected_policy_id is not None:
        return [algorithm.elected_policy_id]
    if member == "elected":
        raise CommandError(
            "--member elected: no member has finished a training episode yet. Give all, best, or "
            f"one of {', '.join(members)}."
        )
    if member not in members:
        raise CommandError(
            f"--member {member}: give all, best, elected, or one of {', '.join(members)}."
        )
    return [member]


def _record(algorithm: CIKD, policy_id: str, folder: Path, seed: int) -> Path:
    """Records an episode of one member; returns the file."""
    module: Any = algorithm.get_module(policy_id)
    config: Any = algorithm.config
    try:
        env: gym.Env = gym.wrappers.RecordVideo(
            create_env(config, render_mode="rgb_array"),
            video_folder=str(folder),
            name_prefix=policy_id,
            episode_trigger=lambda episode: True,
            disable_logger=True,
        )
        task = Task(env, env_name(config), config.sample_timeout_s)
        observation, _ = task.reset(seed=seed)
        done, length = False, 0
        while not done:
            with torch.no_grad():
                batch = {"obs": torch.from_numpy(observation)[None]}
                action = module.forward_inference(batch)["actions"][0].numpy()
            observation, _, terminated, truncated, _ = task.step(action)
            done, length = terminated or truncated, length + 1
            if not done and length >= config.max_evaluation_steps:
                raise endless_episode(task.name, "the video's episode", length)
        env.close()  # writes the file
    except EnvironmentFault as fault:
        raise CommandError(str(fault)) from fault
    except Exception as error:  # from moviepy, the environment's renderer or its graphics library
        raise missing_library(error) or CommandError(
            f"no video: {error}\nRecording needs `pip install 'rllib-cikd[video]'`."
        ) from error
    return folder / f"{policy_id}-episode-0.mp4"
