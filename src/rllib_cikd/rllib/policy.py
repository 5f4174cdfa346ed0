"""One member of a checkpoint as a function from observations to actions, without Ray running."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module import RLModule
from ray.tune import Checkpoint

from rllib_cikd.algorithm.history import History
from rllib_cikd.algorithm.members import policy_id, policy_ids
from rllib_cikd.common.errors import CommandError, EnvironmentFault
from rllib_cikd.common.user_modules import UserModules
from rllib_cikd.rllib.action_map import ActionMap
from rllib_cikd.rllib.checkpoint_files import find_checkpoint, unreadable
from rllib_cikd.rllib.environment import make_task
from rllib_cikd.rllib.exported import is_exported, read_exported
from rllib_cikd.rllib.manifest import MANIFEST, MEMBERS, check_checkpoint
from rllib_cikd.rllib.observation_map import ObservationMap
from rllib_cikd.rllib.restore import StoredRun, checkpoint_path, refuse_changed_spaces
from rllib_cikd.rllib.spaces import Spaces
from rllib_cikd.rllib.task import Task


class Policy:
    """A member's policy: call it with an observation to get an action.

    Args:
        module: The member.
        observations: The environment's.
        actions: The environment's.
        member: The member's id.
        deterministic: Whether actions are the policy's likeliest, or drawn from it.
        seed: Of the draws; None for another one each time.

    Attributes:
        member: Such as "policy_0".
        observation_space: The environment's own.
        action_space: The environment's own.
    """

    def __init__(
        self,
        module: Any,
        observations: ObservationMap,
        actions: ActionMap,
        member: str,
        deterministic: bool = True,
        seed: int | None = None,
    ):
        self.member = member
        self.observation_space: gym.Space = observations.space
        self.action_space: gym.Space = actions.space
        self._observations, self._actions = observations, actions
        self._act = module.forward_inference if deterministic else module.forward_exploration
        module.generator = torch.Generator()
        if seed is None:
            module.generator.seed()
        else:
            module.generator.manual_seed(seed)

    def __call__(self, observation: Any) -> Any:
        """Returns the action for one observation, mapped as in training.

        Args:
            observation: As the environment returns it: an element of `observation_space`.

        Returns:
            An element of `action_space`, in the environment's units.

        Raises:
            ValueError: If the observation is none of that space, or a number in it not finite.
        """
        try:
            flat = self._observations(observation, "the environment")
        except EnvironmentFault as fault:
            # What is wrong, without the words on what an environment has to do.
            wrong = fault.__context__ or fault
            raise ValueError(
                f"observation: {wrong}. Give one observation of {self.observation_space}."
            ) from None
        actions = self._act({Columns.OBS: torch.from_numpy(flat)[None]})[Columns.ACTIONS]
        return self._actions(actions[0].numpy())

    def __repr__(self) -> str:
        return f"Policy({self.member!r}, {self.observation_space} -> {self.action_space})"


@dataclass(frozen=True)
class StoredMember:
    """One member of a checkpoint, and the run that trained it."""

    path: Path
    id: str
    module: Any
    task: Task  #: an environment, made for its spaces and closed
    config: Any
    history: History


def read_member(checkpoint: str | Path | Checkpoint, member: str | int) -> StoredMember:
    """Reads one member of a checkpoint; arguments and errors as for `load_policy`."""
    path = find_checkpoint(checkpoint_path(checkpoint))
    UserModules.recall(path).load()
    config, history = _read(path)
    chosen = _chosen(member, config, history)
    try:
        task = make_task(config)
    except Exception as error:  # whatever a user's environment raises
        raise CommandError(f"{path}: {error}") from error
    task.close()
    check_checkpoint(str(path), needed=lambda name: name.startswith(f"{MEMBERS}/{chosen}/"))
    module = RLModule.from_checkpoint(path / MEMBERS / chosen)
    spaces = Spaces(task.observations.member_space, task.actions.member_space)
    try:
        refuse_changed_spaces(StoredRun(str(path)), spaces)
    except ValueError as error:
        raise CommandError(f"{path}: {error}") from error
    return StoredMember(path, chosen, module, task, config, history)


def load_policy(
    checkpoint: str | Path | Checkpoint,
    member: str | int = "best",
    *,
    deterministic: bool = True,
    seed: int | None = None,
) -> Policy:
    """Loads one member of a checkpoint, to act with it. Ray need not be running.

    The environment is made once, for its spaces, and closed.

    Args:
        checkpoint: A checkpoint's folder, or one above it, such as a run's, for the latest in it;
            or the folder of `rllib export --format safetensors`, which holds one member and runs
            no code when it is opened.
        member: "best" (of the last evaluation if no step came after it, else as "elected", else
            policy_0), "elected" (the highest R_k), a member's id such as "policy_1", or its index.
        deterministic: Whether actions are the policy's likeliest (tanh of its mean, or the choice
            of the highest probability), as in evaluation; else they are drawn, as in training.
        seed: Of the draws; None for another one each time.

    Raises:
        ValueError: If there is no checkpoint of CIKD or no such member, if what is needed of it is
            damaged, or if the environment cannot be made in this process.
    """
    folder = checkpoint_path(checkpoint)
    if is_exported(Path(folder)):
        module, observations, actions, description = read_exported(Path(folder))
        held = description["member"]
        if member not in ("best", "elected", held):
            raise CommandError(f"member={member!r}: {folder} holds {held} alone. Leave it out.")
        return Policy(module, observations, actions, held, deterministic, seed)
    stored = read_member(checkpoint, member)
    task = stored.task
    return Policy(stored.module, task.observations, task.actions, stored.id, deterministic, seed)


def best_member(history: History) -> int:
    """The best of the last evaluation if no step came after it, else by R_k, else 0."""
    if history.evaluation_best is not None:
        return history.evaluation_best
    return history.elected or 0


def _read(path: Path) -> tuple[AlgorithmConfig, History]:
    """The config and history of a checkpoint.

    Raises:
        CommandError: If it is not one of CIKD, or damaged.
    """
    if (path / MANIFEST).is_file():  # else it may be another algorithm's
        _check_own_files(path)
    try:
        config: Any = StoredRun(str(path)).config()
        state = pickle.loads((path / "algorithm_state.pkl").read_bytes())
        history_state = state.get("cikd", {}).get("history")
    except Exception as error:  # whatever unpickling finds missing
        raise unreadable(path, error) from error
    if history_state is None:
        raise CommandError(
            f"{path}: load_policy needs a checkpoint of CIKD; this is one of "
            f"{config.algo_class.__name__}."
        )
    _check_own_files(path)
    history = History(config.ensemble_size, config.num_returns, config.return_horizon)
    history.set_state(history_state)
    return config, history


def _check_own_files(path: Path) -> None:
    check_checkpoint(str(path), needed=lambda name: "/" not in name)


def _chosen(member: str | int, config: Any, history: History) -> str:
    ids = policy_ids(config.ensemble_size)
    if member == "best":
        return policy_id(best_member(history))
    if member == "elected":
        if history.elected is None:
            raise CommandError(
                "member='elected': no member has finished a training episode yet. Give \"best\" or "
                f"one of {', '.join(ids)}."
            )
        return policy_id(history.elected)
    if member in ids:
        return str(member)
    if isinstance(member, int) and 0 <= member < len(ids):
        return ids[member]
    raise CommandError(
        f'member={member!r}: give "best", "elected", one of {", ".join(ids)}, or its index.'
    )
