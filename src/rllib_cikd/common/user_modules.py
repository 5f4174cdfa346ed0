"""Users' own modules, with environments and callbacks: where they are, and who has to know."""

from __future__ import annotations

import importlib
import json
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rllib_cikd.common.errors import CommandError

#: In the folder of a run and of each of its checkpoints.
FILE = "user_modules.json"


@dataclass(frozen=True)
class UserModules:
    """Modules that a run needs besides installed ones.

    Attributes:
        folders: Where modules are looked for, after all of Python's own places; absolute.
        names: Modules that are imported for what they register, such as "my_envs".
    """

    folders: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def load(self) -> None:
        """Makes the modules known in this process.

        Raises:
            CommandError: If one cannot be imported.
        """
        sys.path.extend(folder for folder in self.folders if folder not in sys.path)
        for name in self.names:
            try:
                importlib.import_module(name)
            except Exception as error:  # whatever a user's module raises
                raise CommandError(
                    f"--import {name}: {type(error).__name__}: {error}. Modules are looked for in "
                    f"{', '.join(self.folders) or 'no other folder'} and on PYTHONPATH."
                ) from error

    def loader(self) -> Callable[[], None]:
        """A function that makes them known in another process, which needs no package for it."""
        folders, names = self.folders, self.names

        def load_user_modules() -> None:
            import importlib
            import sys

            sys.path.extend(folder for folder in folders if folder not in sys.path)
            for name in names:
                importlib.import_module(name)

        return load_user_modules

    def to_json(self) -> str:
        """The content of `FILE`."""
        known = {"folders": self.folders, "names": self.names}
        return json.dumps({**known, "checksum": _checksum(known)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, content: bytes, source: str) -> UserModules:
        """What `to_json` returned.

        Args:
            content: The file's.
            source: How an error calls it.

        Raises:
            CommandError: If it is not as it was written.
        """
        try:
            known = json.loads(content)
            if known.pop("checksum") != _checksum(known):
                raise ValueError
            return cls(tuple(known["folders"]), tuple(known["names"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CommandError(
                f"{source} is not as it was written. Delete it, and name the modules that the run "
                "needs with --import."
            ) from None

    @classmethod
    def recall(cls, folder: Path) -> UserModules:
        """What `FILE` in a folder says; nothing if there is none.

        Raises:
            CommandError: If it is damaged.
        """
        file = folder / FILE
        return cls.from_json(file.read_bytes(), str(file)) if file.is_file() else cls()

    def over(self, remembered: UserModules) -> UserModules:
        """Both's folders, own ones first; own names, or if there are none those remembered."""
        folders = dict.fromkeys([*self.folders, *remembered.folders])
        return UserModules(tuple(folders), self.names or remembered.names)


def _checksum(known: Mapping[str, Sequence[str]]) -> int:
    return zlib.crc32(json.dumps(known, sort_keys=True).encode())


NO_MODULES = UserModules()


def given_modules(names: Sequence[str], *folders: Path) -> UserModules:
    """Modules told to a command: found in these folders, and where the command was started.

    Args:
        names: Those of `--import`.
        folders: Where modules are, whether or not any is named.
    """
    places = [*folders, *([Path.cwd()] if names else [])]
    return UserModules(tuple(dict.fromkeys(str(place.resolve()) for place in places)), tuple(names))
