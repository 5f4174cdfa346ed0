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
        experiment_file: Whose folder, or the nearest one above it that has that file, to look in;
            if there is none, the variants that come with the package are meant.

    Raises:
        CommandError: If there is no such variant.
    """
    folders = experiment_file.resolve().parents
    path = next((f / VARIANTS_FILE for f in folders if (f / VARIANTS_FILE).is_file()), None)
    path = path or packaged_names(STUDIES)[VARIANTS]
    variants = read_yaml(path)
    if not isinstance(variants, dict) or not all(isinstance(v, dict) for v in variants.values()):
        raise CommandError(f"{path}: its form is `variant-name: {{setting: value, ...}}`.")
    if name not in variants:
        known = ", ".join(variants)
        raise CommandError(f"variant {name!r}: {path} has {known}.{did_you_mean(name, variants)}")
    return variants[name]
