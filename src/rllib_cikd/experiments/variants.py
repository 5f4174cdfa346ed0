"""Named variants of an experiment: the paper's comparisons, as differences from CIKD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rllib_cikd.common.errors import CommandError, did_you_mean
from rllib_cikd.experiments.packaged import STUDIES, VARIANTS, packaged_names
from rllib_cikd.experiments.yaml_file import read_yaml

#: Where variants are stated, seen from the folder of an experiment file or one above it.
VARIANTS_FILE = Path("studies", "variants.yaml")


def load_variant(name: str, experiment_file: Path) -> dict[str, Any]:
    """The settings in which a variant differs from CIKD.

    Args:
        name: A key of `studies/variants.yaml`.
        experiment_file: In whose folder, or the nearest one above it that has that file, to look;
            its variants are laid over those that come with the package.

    Raises:
        CommandError: If there is no such variant.
    """
    folders = experiment_file.resolve().parents
    packaged = packaged_names(STUDIES)[VARIANTS]
    path = next((f / VARIANTS_FILE for f in folders if (f / VARIANTS_FILE).is_file()), packaged)
    variants = _read(packaged) | _read(path)
    if name not in variants:
        known = ", ".join(variants)
        raise CommandError(
            f"variant {name!r} is not in {path}, nor in the package.{did_you_mean(name, variants)} "
            f"Known: {known}."
        )
    return variants[name]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    variants = read_yaml(path)
    if not isinstance(variants, dict) or not all(isinstance(v, dict) for v in variants.values()):
        raise CommandError(f"{path}: its form is `variant-name: {{setting: value, ...}}`.")
    return variants
