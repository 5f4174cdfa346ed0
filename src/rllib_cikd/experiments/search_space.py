"""Values that Tune draws, as an experiment file writes them: `{tune.loguniform: [1e-5, 1e-3]}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ray import tune
from ray.tune.search.sample import Domain

from rllib_cikd.common.errors import CommandError, did_you_mean

#: Tune's functions that need no code of the user's.
_FUNCTIONS = (
    "choice",
    "uniform",
    "quniform",
    "loguniform",
    "qloguniform",
    "randint",
    "qrandint",
    "lograndint",
    "qlograndint",
    "randn",
    "qrandn",
)
_PREFIX = "tune."


def is_drawn(value: Any) -> bool:
    """Whether a mapping stands for a value that is drawn."""
    return isinstance(value, Mapping) and any(str(key).startswith(_PREFIX) for key in value)


def with_domains(where: str, value: Any) -> Any:
    """A copy of `value` in which Tune's domains stand for what the file writes for them.

    Args:
        where: Begins an error, such as "config".
        value: Settings, with mappings and lists in them.

    Raises:
        CommandError: If a function is not known, or does not take these arguments.
    """
    if is_drawn(value):
        return _domain(where, value)
    if type(value) is dict:  # no other mapping comes of a file
        return {key: with_domains(f"{where}: {key}", part) for key, part in value.items()}
    if type(value) is list:
        return [with_domains(where, part) for part in value]
    return value


def domains(value: Any) -> Iterator[Domain]:
    """All domains in a value, at any depth."""
    if isinstance(value, Domain):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from domains(part)
    elif isinstance(value, list):
        for part in value:
            yield from domains(part)


def _domain(where: str, value: Mapping[str, Any]) -> Domain:
    if len(value) > 1:
        raise CommandError(f"{where}: {dict(value)!r}: nothing may stand beside a value to draw.")
    ((key, arguments),) = value.items()
    name = str(key).removeprefix(_PREFIX)
    if name not in _FUNCTIONS:
        known = [_PREFIX + function for function in _FUNCTIONS]
        raise CommandError(
            f"{where}: unknown {key!r}.{did_you_mean(str(key), known)} Known: {', '.join(known)}."
        )
    if not isinstance(arguments, list) or not arguments:
        raise CommandError(f"{where}: {key} is {arguments!r}. Give a list: {{{key}: [...]}}.")
    try:
        domain = getattr(tune, name)(*([arguments] if name == "choice" else arguments))
        domain.sample()
    except Exception as error:  # of numpy's, too
        raise CommandError(f"{where}: {key}: {arguments!r}: {error}") from error
    return domain
