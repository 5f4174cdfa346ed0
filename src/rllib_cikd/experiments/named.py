"""Parts of an experiment that are named: Ray's own or the user's classes, with their arguments."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rllib_cikd.common.errors import CommandError, did_you_mean


@dataclass(frozen=True)
class Kind:
    """What may be named in a field of an experiment.

    Attributes:
        field: The experiment's key, such as "scheduler".
        base: The class that all of this kind have.
        load: By name, a function that imports the class.
        modules: By name, the modules that Ray's class needs, which Ray does not install.
        pip: By name, what `pip install` takes for them, if it is not the names of the modules.
        elsewhere: Arguments that stand elsewhere, and where.
    """

    field: str
    base: type
    load: Mapping[str, Callable[[], type]]
    modules: Mapping[str, tuple[str, ...]]
    pip: Mapping[str, str]
    elsewhere: Mapping[str, str]

    def build(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Makes what is named, with these arguments.

        Args:
            name: One of `load`, or the path of a class of the user's, "module:Class".
            arguments: Of the class.

        Raises:
            CommandError: If there is no such name, a package is missing, or the class does not
                take an argument.
        """
        cls = self._find(name)
        field = f"`{self.field}`: {name}"
        takes = inspect.signature(cls).parameters
        named = [key for key, p in takes.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        takes_any = any(p.kind == p.VAR_KEYWORD for p in takes.values())
        for key in arguments:
            if key in self.elsewhere:
                raise CommandError(f"{field}: {key} stands elsewhere: {self.elsewhere[key]}.")
            if key not in named and not takes_any:
                known = [key for key in named if key not in self.elsewhere]
                raise CommandError(
                    f"{field} has no argument {key!r}.{did_you_mean(str(key), known)} "
                    f"Known: {', '.join(known)}."
                )
        try:
            return cls(**arguments)
        except Exception as error:  # Ray asserts some, raises for others
            raise CommandError(f"{field}: {' '.join(str(error).split())}") from error

    def _find(self, name: str) -> type:
        if name not in self.load:
            return self._import(name)
        missing = [m for m in self.modules.get(name, ()) if importlib.util.find_spec(m) is None]
        if missing:
            package = self.pip.get(name, " ".join(self.modules[name]))
            raise CommandError(
                f"`{self.field}`: {name} needs a missing package: {', '.join(missing)}. Install "
                f"it: pip install {package}"
            )
        try:
            return self.load[name]()
        except ImportError as error:
            raise CommandError(f"`{self.field}`: {name} cannot be imported: {error}") from error

    def _import(self, path: str) -> type:
        module, _, attribute = path.rpartition(":")
        if not module:
            raise CommandError(
                f"`{self.field}` is {path!r}, which is not known.{did_you_mean(path, self.load)} "
                f"Known: {', '.join(self.load)}; a class of your own: module:Class."
            )
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # whatever a user's module raises
            raise CommandError(
                f"`{self.field}`: {path}: {type(error).__name__}: {error}"
            ) from error
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            raise CommandError(f"`{self.field}`: {path} is no {self.base.__name__}.")
        return cls


def name_and_arguments(field: str, value: Any, known: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """What a field names: `asha`, or with arguments `{asha: {max_t: 100}}`.

    Raises:
        CommandError: If it has neither form.
    """
    if isinstance(value, str):
        return value, {}
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, arguments),) = value.items()
        arguments = {} if arguments is None else arguments
        if isinstance(name, str) and isinstance(arguments, Mapping):
            return name, dict(arguments)
    first = next(iter(known))
    raise CommandError(
        f"`{field}` is {value!r}. Give a name, or a name with its arguments: "
        f"{{{first}: {{argument: value}}}}."
    )
