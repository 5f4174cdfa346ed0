"""How the project's YAML files are read: numbers as people write them, no key given twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from rllib_cikd.common.errors import CommandError


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader that reads `1e-4` as a float and refuses keys given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = str(key_node.value)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise CommandError(f"line {line}: {key!r} is given twice.")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


# YAML 1.2's floats. PyYAML follows YAML 1.1, which wants a point and a signed exponent.
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_value(text: str) -> Any:
    """A value as it would stand in a YAML file, such as `1e-4`, `true` or `[64, 64]`.

    Raises:
        ValueError: If it is not valid YAML.
    """
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, CommandError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        CommandError: If it cannot be read as UTF-8, is not valid YAML, or has a key twice; the
            message names the file.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: not readable as text: {error}") from error
    except yaml.YAMLError as error:
        fault = " ".join(str(error).split())
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
            fault = f"line {error.problem_mark.line + 1}: {error.problem}"
        raise CommandError(f"{path}: not valid YAML: {fault}") from error
    except CommandError as error:
        raise CommandError(f"{path}: {error}") from error
