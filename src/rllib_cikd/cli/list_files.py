"""`rllib list`."""

from __future__ import annotations


def list_files() -> None:
    """List the tuned examples, variants and studies that come with the package."""
    from rllib_cikd.experiments.packaged import STUDIES, TUNED_EXAMPLES, VARIANTS, packaged_names
    from rllib_cikd.experiments.yaml_file import read_yaml

    studies = packaged_names(STUDIES)
    variants = read_yaml(studies.pop(VARIANTS))
    for title, use, names in (
        ("Tuned examples", "rllib train example NAME", packaged_names(TUNED_EXAMPLES)),
        ("Variants", "rllib train example … --variant NAME", variants),
        ("Studies", "rllib study run NAME", studies),
    ):
        print(f"{title} ({use}):", *(f"  {name}" for name in names), sep="\n")
