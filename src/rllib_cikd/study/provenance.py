"""How the runs of a report were made, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rllib_cikd.config import CIKDConfig
from rllib_cikd.report.markdown import table

# Said elsewhere on the page, or not a setting.
_LEFT_OUT = ("env", "seed")
_SHOWN = 200  # characters of a value


@dataclass(frozen=True)
class Run:
    """What a report says of one training run.

    Attributes:
        variant, task: As in its figures.
        seed: None if it was not set.
        config: Its settings, defaults among them or not; as JSON has them.
    """

    variant: str
    task: str
    seed: int | None
    config: Mapping[str, Any]


def provenance(runs: Sequence[Run], starts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown blocks: commands, versions, machine, seeds and settings.

    Args:
        runs: Empty if the folder says nothing of them.
        starts: See `read_starts`.
    """
    blocks = _starts(starts)
    if not runs:
        return [*blocks, "Settings: not recorded in this folder."]
    return [*blocks, _seeds(runs), *_settings(runs)]


def _starts(starts: Sequence[Mapping[str, Any]]) -> list[str]:
    if not starts:
        return ["Command, versions and machine: not recorded in this folder."]
    lines = [
        f"- {_code(start.get('command'))}, {start.get('at', 'at an unknown time')}"
        for start in starts
    ]
    blocks = ["Started with:", "\n".join(lines)]
    for name, heading in (("versions", "Versions"), ("commit", "Commit"), ("machine", "Machine")):
        found = dict.fromkeys(_words(start.get(name)) for start in starts if start.get(name))
        if found:
            blocks.append(f"{heading}: {'; then '.join(found)}.")
    return blocks


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return str(value)


def _seeds(runs: Sequence[Run]) -> str:
    seeds = sorted({run.seed for run in runs if run.seed is not None})
    unset = sum(run.seed is None for run in runs)
    text = f"Seeds: {', '.join(map(str, seeds))}." if seeds else ""
    return f"{text} {unset} without a seed: numbered in its place.".strip() if unset else text


def _settings(runs: Sequence[Run]) -> list[str]:
    """A row for each setting and value that is not the algorithm's default."""
    defaults = _plain(CIKDConfig().to_dict())
    places: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for run in runs:
        for key, value in sorted(_plain(run.config).items()):
            is_setting = key not in _LEFT_OUT and not key.startswith("_")
            if is_setting and (key not in defaults or value != defaults[key]):
                places.setdefault((key, _text(value)), []).append((run.variant, run.task))
    if not places:
        return ["Settings: the algorithm's defaults."]
    every = [(run.variant, run.task) for run in runs]
    rows = [
        [
            _code(key),
            _code(value),
            _code(_text(defaults[key])) if key in defaults else "",
            _names(found, every),
        ]
        for (key, value), found in sorted(places.items())
    ]
    text = "Settings that differ from the algorithm's defaults:"
    return [text, table(["setting", "value", "default", "runs"], rows, words=4)]


def _names(found: Sequence[tuple[str, str]], every: Sequence[tuple[str, str]]) -> str:
    """Names those runs by variant, and by task where a variant has others."""
    if set(found) == set(every):
        return "all"
    names = []
    for variant in dict.fromkeys(variant for variant, _ in found):
        tasks = dict.fromkeys(task for of, task in found if of == variant)
        whole = set(tasks) == {task for of, task in every if of == variant}
        names.append(variant if whole else f"{variant} on {', '.join(tasks)}")
    return "; ".join(names)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it."""
    return json.loads(json.dumps(dict(config), default=str))


def _text(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _code(value: Any) -> str:
    return f"`{str(value).replace('`', chr(39))}`"
