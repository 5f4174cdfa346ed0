"""Files that come with the package: tuned examples, variants and studies.

In a clone they lie beside `src/`; `setup.py` copies them into the package that is installed.
"""

from __future__ import annotations

from pathlib import Path

from rllib_cikd.common.errors import CommandError, did_you_mean

_INSTALLED = Path(__file__).parents[1] / "files"
_CLONE = Path(__file__).parents[3]

TUNED_EXAMPLES, STUDIES = "tuned_examples", "studies"
#: A file of comparisons in `studies/`, itself no study.
VARIANTS = "variants"


def packaged(folder: str, name: str) -> Path | None:
    """The YAML file of this name, without ending, in `tuned_examples` or `studies`."""
    return packaged_names(folder).get(name)


def packaged_names(folder: str) -> dict[str, Path]:
    """All of them by name, in alphabetical order."""
    root = _INSTALLED if _INSTALLED.is_dir() else _CLONE
    return {path.stem: path for path in sorted((root / folder).glob("*.yaml"))}


def tuned_example(name: str) -> Path:
    """The file of a tuned example.

    Raises:
        CommandError: If there is none of this name.
    """
    path = packaged(TUNED_EXAMPLES, name)
    if path is None:
        names = packaged_names(TUNED_EXAMPLES)
        raise CommandError(
            f"{name!r} is no tuned example.{did_you_mean(name, names)} `rllib list` names all."
        )
    return path


def study_file(path: str) -> Path:
    """A study's file: the user's own, or one that comes with the package, by its name."""
    own = Path(path)
    known = None if path == VARIANTS else packaged(STUDIES, path)
    return known if known is not None and not own.is_file() else own
