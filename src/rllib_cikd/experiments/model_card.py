"""The model card of an exported member."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from rllib_cikd.common import space_json
from rllib_cikd.common.text import format_number

_USE = {
    "onnx": """```python
import numpy as np
import onnxruntime

policy = onnxruntime.InferenceSession("policy.onnx")
(actions,) = policy.run(None, {"observation": np.zeros((1, DIM), np.float32)})
action = actions[0]  # in the environment's units
```""",
    "pt2": """```python
import torch

policy = torch.export.load("policy.pt2").module()
action = policy(torch.zeros(1, DIM))[0]  # in the environment's units
```""",
    "safetensors": """```python
from rllib_cikd import load_policy

policy = load_policy("FOLDER")
action = policy(observation)  # as the environment gives it; the action in its units
```""",
}
_CHOICES = {
    "best": "the best of the run's last evaluation, chosen with hindsight, or else by its training "
    "returns",
    "elected": "the best by its last training episodes, which costs no evaluation",
}


def model_card(description: dict[str, Any], form: str, difference: float) -> str:
    """The model card, in Markdown.

    Args:
        description: Of the export (`exported.DESCRIPTION`).
        form: A key of `export.FILES`.
        difference: The largest one from the member's actions, over their range.
    """
    returns = description["returns"]
    space = space_json.from_json(description["observation_space"])
    dim = gym.spaces.flatdim(space)
    inside = "inside" if description["model"]["normalize_observations"] else "none"
    settings = "\n".join(f"- `{key}`: `{value}`" for key, value in description["settings"].items())
    versions = ", ".join(f"{name} {version}" for name, version in description["versions"].items())
    choice = _CHOICES.get(description["chosen_as"], "named by the user")
    return f"""# {description["member"]} of CIKD on {description["env"]}

A deterministic policy, trained by collaborative inter-agent knowledge distillation.

| | |
|---|---|
| task | {description["env"]} |
| observations | `{space}`, flattened to {dim} float32 numbers |
| actions | `{space_json.from_json(description["action_space"])}` |
| return | {returns["mean"]:,.1f} [{returns["low"]:,.1f} to {returns["high"]:,.1f}]: mean of \
{returns["episodes"]} episodes from seed {returns["seed"]}, 95 % bootstrap interval |
| the member is | {choice} |
| trained for | {format_number(description["env_steps"])} environment steps, seed \
{description["seed"]} |
| observation normalisation | {inside} |
| compared with the member | largest difference {difference:.1e} of the range of actions |
| versions | {versions} |

Settings that differ from the defaults:

{settings or "- none"}

## Use

{_USE[form].replace("DIM", str(dim))}
"""
