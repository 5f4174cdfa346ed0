"""Evaluates a member that was exported as `safetensors`: nothing in its folder is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rllib_cikd.common.errors import CommandError
from rllib_cikd.common.result_keys import STEPS, summary_key
from rllib_cikd.config import CIKDConfig
from rllib_cikd.rllib.environment import make_task
from rllib_cikd.rllib.evaluation import evaluation_seeds
from rllib_cikd.rllib.exported import read_exported
from rllib_cikd.rllib.lockstep import play_episodes


def evaluate_exported(folder: Path, num_episodes: int, seed: int | None) -> dict[str, Any]:
    """Plays deterministic episodes; the same figures as of `evaluate_checkpoint`.

    Raises:
        CommandError: If its files are damaged, or its environment cannot be played.
    """
    module, _, _, description = read_exported(folder)
    env_config = description["env_config"]
    config = CIKDConfig().environment(description["env"], env_config=env_config)
    seed = description["seed"] or 0 if seed is None else seed

    def act(observations: Any) -> Any:
        with torch.no_grad():
            return module.deterministic_actions(torch.from_numpy(observations)).numpy()

    tasks = []
    try:
        tasks += [make_task(config, vector_index=i) for i in range(num_episodes)]
        returns, lengths = play_episodes(
            [act], [tasks], evaluation_seeds(seed, num_episodes), config.max_evaluation_steps
        )
    except Exception as error:  # whatever a user's environment raises
        raise CommandError(f"{folder}: {error}") from error
    finally:
        for task in tasks:
            task.close()
    member, mean = description["member"], float(returns.mean())
    return {
        "checkpoint": str(folder),
        "algorithm": "CIKD",
        "env": description["env"],
        STEPS: description["env_steps"],
        "episodes": num_episodes,
        "seed": seed,
        "best_policy": member,
        "elected_policy": None,
        "summary": {summary_key("mean"): mean},
        "members": {member: {"returns": returns[0].tolist(), "lengths": lengths[0].tolist()}},
    }
