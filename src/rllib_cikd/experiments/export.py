"""Exports a member of a checkpoint: a network for deployment, its description, a model card."""

from __future__ import annotations

import json
import logging
import platform
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
from scipy.stats import bootstrap

from rllib_cikd.common import space_json
from rllib_cikd.common.errors import OK, CommandError
from rllib_cikd.common.user_modules import given_modules
from rllib_cikd.common.version import __version__
from rllib_cikd.experiments.model_card import model_card
from rllib_cikd.rllib.deployed import DeployedPolicy
from rllib_cikd.rllib.environment import make_task
from rllib_cikd.rllib.evaluation import evaluation_seeds
from rllib_cikd.rllib.exported import (
    DESCRIPTION,
    FORMAT,
    WEIGHTS,
    model_description,
    read_exported,
    write_weights,
)
from rllib_cikd.rllib.lockstep import play_episodes
from rllib_cikd.rllib.policy import StoredMember, read_member
from rllib_cikd.rllib.settings.honoured import HONOURED

#: Of `--format`, with the file's name.
FILES = {"onnx": "policy.onnx", "pt2": "policy.pt2", "safetensors": WEIGHTS}
#: How far an exported network's actions may be from the member's, over the range of actions.
TOLERANCE = 1e-5
#: Settings that stand in the description by themselves, or matter for training's speed alone.
_SAID_ELSEWHERE = {"env", "env_config", "seed", "num_cpus_for_main_process", "policies"}
#: Observations on which they are compared.
_NUM_COMPARED = 256


def export(
    checkpoint: str,
    *,
    member: str = "best",
    form: str = "onnx",
    out: str | None = None,
    num_episodes: int = 20,
    seed: int | None = None,
    imports: Sequence[str] = (),
) -> int:
    """Writes one member of a checkpoint to a folder of its own and prints what is in it.

    Args:
        checkpoint, member: As for `load_policy`.
        form: A key of `FILES`.
        out: The folder; None for one named after checkpoint and member, where the command runs.
        num_episodes: Deterministic episodes that are played for the model card.
        seed: Of their initial states; None for the training's seed, or 0 if it had none.
        imports: Modules of the user's that register environments.

    Returns:
        The exit code.

    Raises:
        CommandError: If something of this cannot be done; nothing is left behind then.
    """
    given_modules(imports).load()
    torch.set_num_threads(1)
    stored = read_member(checkpoint, member)
    folder = Path(out or f"{stored.path.name}-{stored.id}").expanduser()
    if folder.exists():
        raise CommandError(f"--out {folder}: it exists already. Give another folder.")
    seed = stored.config.seed or 0 if seed is None else seed
    returns, observations = _play(stored, num_episodes, seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        draft = Path(temporary, "draft")
        draft.mkdir()
        difference = _write(draft, form, stored, observations)
        description = _describe(stored, member, form, returns, seed)
        (draft / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        if form == "safetensors":
            network = DeployedPolicy(read_exported(draft).module, stored.task.actions)
            difference = _difference(stored, network, observations)
        (draft / "README.md").write_text(model_card(description, form, difference))
        _check(difference, form)
        shutil.move(str(draft), str(folder))
    mean, low, high = (description["returns"][key] for key in ("mean", "low", "high"))
    print(f"{stored.id} of {stored.path}")
    print(f"return of {num_episodes} episodes: {mean:,.1f} [{low:,.1f} to {high:,.1f}]")
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    print(f"largest difference from the member, of the range of actions: {difference:.1e}")
    return OK


def _play(stored: StoredMember, num_episodes: int, seed: int) -> tuple[np.ndarray, torch.Tensor]:
    """Returns of deterministic episodes, and the observations that came first in them."""
    seen: list[np.ndarray] = []

    def act(observations: np.ndarray) -> np.ndarray:
        if len(seen) * num_episodes < _NUM_COMPARED:
            seen.append(observations)
        with torch.no_grad():
            return stored.module.deterministic_actions(torch.from_numpy(observations)).numpy()

    tasks = [make_task(stored.config, vector_index=i) for i in range(num_episodes)]
    try:
        returns, _ = play_episodes(
            [act], [tasks], evaluation_seeds(seed, num_episodes), stored.config.max_evaluation_steps
        )
    except Exception as error:  # whatever a user's environment raises
        raise CommandError(f"{stored.path}: its environment cannot be played: {error}") from error
    finally:
        for task in tasks:
            task.close()
    return returns[0], torch.from_numpy(np.concatenate(seen)[:_NUM_COMPARED])


def _write(folder: Path, form: str, stored: StoredMember, observations: torch.Tensor) -> float:
    """Writes the network; returns how far its actions are from the member's."""
    network = DeployedPolicy(stored.module, stored.task.actions).eval()
    if form == "safetensors":
        write_weights(folder, stored.module)
        return 0.0  # compared once it can be read
    path, sample = folder / FILES[form], observations[:2]
    batch = torch.export.Dim("batch")
    if form == "pt2":
        program = torch.export.export(network, (sample,), dynamic_shapes=({0: batch},))
        torch.export.save(program, str(path))
        return _difference(stored, torch.export.load(str(path)).module(), observations)
    try:
        import onnxruntime

        # It tells of vision operators that are not needed, and of its own use of PyTorch.
        logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            torch.onnx.export(
                network,
                (sample,),
                str(path),
                input_names=["observation"],
                output_names=["action"],
                dynamic_shapes=({0: batch},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except ImportError as error:
        raise CommandError(
            f"{error.name} is not installed: `pip install 'rllib-cikd[export]'`."
        ) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(batch: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {"observation": batch.numpy()})[0])

    return _difference(stored, run, observations)


def _difference(stored: StoredMember, network: Any, observations: torch.Tensor) -> float:
    """The largest difference from the member's actions, over the range of each number."""
    actions = stored.task.actions
    with torch.no_grad():
        given = network(observations).numpy().astype(np.float64)
        own = stored.module.deterministic_actions(observations).numpy()
    expected = actions.batch(own)
    if actions.first is not None:
        return float(np.abs(given - np.array(expected)).max())
    flat = np.array([gym.spaces.flatten(actions.space, action) for action in expected], float)
    span = np.maximum(actions.high - actions.low, np.finfo(np.float32).tiny)
    return float((np.abs(given - flat) / span).max())


def _check(difference: float, form: str) -> None:
    if not difference <= TOLERANCE:
        raise CommandError(
            f"--format {form}: the exported network's actions differ from the member's by "
            f"{difference:.1e} of their range. Nothing was written; give another format."
        )


def _path_of(env: Any) -> str:
    """An environment's id, or the dotted path of its class."""
    return env if isinstance(env, str) else f"{env.__module__}.{env.__qualname__}"


def _plain(value: Any) -> Any:
    """The value, if JSON can hold it; else what it looks like."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return repr(value)


def _describe(
    stored: StoredMember, asked: str, form: str, returns: np.ndarray, seed: int
) -> dict[str, Any]:
    mean = float(returns.mean())
    low = high = mean
    if len(returns) > 1 and np.ptp(returns) > 0:
        interval = bootstrap(
            (returns,), np.mean, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    config, default = stored.config.to_dict(), type(stored.config)().to_dict()
    return {
        "format": FORMAT,
        "member": stored.id,
        "chosen_as": asked,
        "file": FILES[form],
        "env": _path_of(stored.config.env),
        "env_config": _plain(dict(stored.config.env_config or {})),
        "observation_space": space_json.to_json(stored.task.observations.space),
        "action_space": space_json.to_json(stored.task.actions.space),
        "model": model_description(stored.module),
        "returns": {
            **{"episodes": len(returns), "seed": seed, "mean": mean, "low": low, "high": high},
            "all": returns.tolist(),
        },
        "env_steps": stored.history.env_steps,
        "seed": stored.config.seed,
        "settings": {
            key: _plain(value)
            for key, value in sorted(config.items())
            if key in HONOURED.keys() - _SAID_ELSEWHERE and repr(value) != repr(default.get(key))
        },
        "versions": {
            **{"rllib-cikd": __version__, "ray": ray.__version__, "torch": torch.__version__},
            **{"gymnasium": gym.__version__, "python": platform.python_version()},
        },
    }
