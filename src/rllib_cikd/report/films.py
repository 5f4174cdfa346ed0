"""Films of members on a report's page."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from rllib_cikd.common.errors import CommandError

#: What browsers play, by the ending of a file's name.
MEDIA_TYPES = {".mp4": "video/mp4", ".webm": "video/webm"}
_NO_BRACKETS = str.maketrans("[]", "()")  # which end a Markdown title


def find_films(paths: Sequence[str]) -> list[Path]:
    """The films that are meant by paths of files, or of folders of them.

    Raises:
        CommandError: If there is no film at one of them.
    """
    films: list[Path] = []
    for given in paths:
        path = Path(given).expanduser()
        some = sorted(path.iterdir()) if path.is_dir() else [path]
        found = [one for one in some if one.is_file() and one.suffix.lower() in MEDIA_TYPES]
        if not found:
            raise CommandError(
                f"--video {given}: no film there ({' or '.join(MEDIA_TYPES)}); make one with "
                "`rllib evaluate DIR --video FOLDER`."
            )
        films += found
    return films


def film_blocks(films: Sequence[Path], out: Path) -> list[str]:
    """Copies films to `out`/films; returns a Markdown block of each, its path seen from `out`."""
    blocks = []
    for number, film in enumerate(films, start=1):
        target = out / "films" / f"film-{number}{film.suffix.lower()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(film, target)
        blocks.append(f"![{film.stem.translate(_NO_BRACKETS)}]({target.relative_to(out)})")
    return blocks
