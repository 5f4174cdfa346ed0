"""A member as two files that hold no code: weights in `safetensors`, all else in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rllib_cikd.common import space_json
from rllib_cikd.common.errors import CommandError
from rllib_cikd.rllib.action_map import ActionMap
from rllib_cikd.rllib.observation_map import ObservationMap
from rllib_cikd.rllib.sac_module import SACModule

WEIGHTS, DESCRIPTION = "policy.safetensors", "policy.json"
#: Of the description; another one is not read.
FORMAT = 1


class ExportedMember(NamedTuple):
    """A member that was read, and what its description says."""

    module: SACModule
    observations: ObservationMap
    actions: ActionMap
    description: dict[str, Any]


def is_exported(folder: Path) -> bool:
    """Whether there is a member in safetensors form."""
    return (folder / WEIGHTS).is_file() and (folder / DESCRIPTION).is_file()


def model_description(module: Any) -> dict[str, Any]:
    """What its networks are made of."""
    settings = module.model_config
    return {
        "fcnet_hiddens": [int(width) for width in settings["fcnet_hiddens"]],
        "fcnet_activation": settings["fcnet_activation"],
        "batch_norm": bool(module.batch_norm),
        "normalize_observations": bool(module.normalizes),
    }


def write_weights(folder: Path, module: Any) -> None:
    """Writes `WEIGHTS`: the policy, and what observations are normalised by."""
    save_file, _ = _safetensors()
    names = ("policy.", "obs_mean", "obs_deviation")
    state = {k: v.contiguous() for k, v in module.state_dict().items() if k.startswith(names)}
    save_file(state, str(folder / WEIGHTS))


def read_exported(folder: Path) -> ExportedMember:
    """Reads what `rllib export --format safetensors` wrote. Nothing in it is run.

    Raises:
        CommandError: If a file is damaged, or of another format.
    """
    _, load_file = _safetensors()
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        if description["format"] != FORMAT:
            raise CommandError(
                f"{folder / DESCRIPTION}: format {description['format']} is not known; this "
                f"version reads format {FORMAT}. Export the member again."
            )
        name = str(description["env"])
        observations = ObservationMap(space_json.from_json(description["observation_space"]), name)
        actions = ActionMap(space_json.from_json(description["action_space"]), name)
        module = SACModule(
            observation_space=observations.member_space,
            action_space=actions.member_space,
            inference_only=True,
            model_config=description["model"],
        )
        state = load_file(str(folder / WEIGHTS))
        module.load_state_dict(state, strict=True)
    except CommandError:
        raise
    except Exception as error:  # whatever is missing or damaged
        line = str(error).splitlines()[0] if str(error) else ""
        raise CommandError(
            f"{folder}: {WEIGHTS} and {DESCRIPTION} cannot be read as a member "
            f"({type(error).__name__}: {line}). Export it again."
        ) from error
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise CommandError(f"{folder / WEIGHTS}: a weight is not finite. Export another member.")
    return ExportedMember(module, observations, actions, description)


def _safetensors() -> tuple[Any, Any]:
    try:
        from safetensors.torch import load_file, save_file
    except ImportError as error:
        raise CommandError(
            "safetensors is not installed: `pip install 'rllib-cikd[export]'`."
        ) from error
    return save_file, load_file
