"""`docs/SETTINGS.md`, made from the tables: `python -m rllib_cikd.rllib.settings.page`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from rllib_cikd.rllib.sac_module import DEFAULT_MODEL_CONFIG
from rllib_cikd.rllib.settings.arguments import FIELD_OF
from rllib_cikd.rllib.settings.honoured import EVALUATION_OVERRIDES, PER_MEMBER, SECTIONS
from rllib_cikd.rllib.settings.refused import INTERNAL, OTHER_NAMES, UNSUPPORTED, WITHOUT_MEANING
from rllib_cikd.rllib.settings.values import Kind

_HEAD = """# Settings

Made from the tables in `src/rllib_cikd/rllib/settings` by
`python -m rllib_cikd.rllib.settings.page`; a test compares. What CIKD's own settings mean stands
below their tables, as in `CIKDConfig.training`; what RLlib's mean in
[its documentation](https://docs.ray.io/en/latest/rllib/algorithm-config.html).

Every setting of RLlib is honoured or refused: what is accepted does what RLlib says of it. A value
of the wrong type or out of range, an unknown name, and a change of a setting that is refused end in
one line, before anything is built: the setting, its value, and what to do.

    ValueError: normalize_actions=False: is not supported by CIKD: …

They are arguments of the config's methods (`CIKDConfig().training(ensemble_size=5)`), and plain
keys in YAML, Tune, `--config` and `--set`. True and False are no numbers, numbers are finite and
never text, numpy's scalars are numbers.
"""

_AFTER_A_CHECKPOINT = """## Going on from a checkpoint with other settings

`CIKD.from_checkpoint(path, config={"actor_lr": 1e-4})` changes some settings of the run, a whole
`CIKDConfig` replaces them all. Step sizes, intervals, `env_config`, numbers of env runners and
learners and so on take effect at once; with another `seed` all draws begin anew. What cannot change
is refused with its old and new value: `ensemble_size`, the networks, `initial_alpha`, the spaces, a
capacity below what the buffer holds, `n_step` from 1 to more with a stored buffer, and which
members have equal settings.
"""


def settings_page(default: Any) -> str:
    """The page; `default` is a config with all defaults."""
    parts = [_HEAD, "## Honoured\n"]
    meanings = _meanings(default)
    for heading, kinds in SECTIONS.items():
        parts += [f"### {heading}\n", _honoured(kinds, default)]
        own = [f"- {code(name)}: {meanings[name]}" for name in kinds if name in meanings]
        parts += ["\n".join(own) + "\n"] if own else []
    parts += [
        f"Members may differ in {_listed(PER_MEMBER)}: "
        "`rl_module(algorithm_config_overrides_per_module={'policy_0': {…}})`.\n",
        f"`evaluation_config` may hold {_listed(EVALUATION_OVERRIDES)}.\n",
        _AFTER_A_CHECKPOINT,
        "## Refused\n",
        "They must keep their defaults: CIKD cannot honour them.\n",
        _table(("Setting", "Instead"), ((code(n), UNSUPPORTED[n]) for n in UNSUPPORTED)),
        "## Without meaning\n",
        "By RLlib's own design they do nothing on its new API stack, or nothing in online "
        "training. They must keep their defaults, too.\n",
        _table(("Settings", "Why, and what to do"), _by_reason(WITHOUT_MEANING)),
        "## Not for users\n",
        "RLlib and CIKD keep these in a config for themselves.\n",
        _table(("Field", "Instead"), ((code(name), INTERNAL[name]) for name in INTERNAL)),
        "## Names of former versions and other programs\n",
        "They are refused, with the name that stands for them here.\n",
        _table(("Name", "Here"), ((code(k), f"`{v}`") for k, v in sorted(OTHER_NAMES.items()))),
    ]
    return "\n".join(parts)


def _honoured(kinds: Mapping[str, Kind], default: Any) -> str:
    rows = ((code(name), _default(name, default), kinds[name].words) for name in kinds)
    return _table(("Setting", "Default", "Takes"), rows)


def _default(name: str, default: Any) -> str:
    value = getattr(default, name)
    if name == "_model_config":
        value = DEFAULT_MODEL_CONFIG
    if name == "stats_cls_lookup":
        return "RLlib's"
    return f"`{getattr(value, '__name__', None) or repr(value)}`"


def _meanings(default: Any) -> dict[str, str]:
    """What the docstring of `CIKDConfig.training` says of each of its own arguments."""
    text = inspect.getdoc(default.training) or ""
    _, _, arguments = text.partition("\nReturns:")[0].partition("Args:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _by_reason(reasons: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for reason in dict.fromkeys(reasons.values()):
        yield _listed(name for name in reasons if reasons[name] == reason), reason


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(code(name) for name in names)


def code(field: str) -> str:
    """A field by the name that users write."""
    arguments = {attribute: argument for argument, attribute in FIELD_OF.items()}
    return f"`{arguments.get(field, field)}`"


if __name__ == "__main__":
    from pathlib import Path

    from ray.tune.registry import get_trainable_cls

    default = get_trainable_cls("CIKD").get_default_config()
    Path("docs/SETTINGS.md").write_text(settings_page(default))
