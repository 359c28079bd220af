"""Keys of a suite's file: each is checked for what it holds, so that a mistake is named where it was made.

``where`` is the place of a value in the file, such as ``tiers.small.seeds``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from fedpref.errors import ConfigurationError, did_you_mean

__all__ = [
    "Words",
    "entries",
    "grid",
    "is_true",
    "keys",
    "listed",
    "names",
    "number",
    "one_of",
    "optional",
    "seeds",
    "text",
    "words",
]

Words = tuple[str, ...]

_Value = TypeVar("_Value")
_Other = TypeVar("_Other")


def entries(where: str, value: Any) -> dict[str, Any]:
    """Things by their names; a name that looks like a number is one all the same."""
    if not isinstance(value, dict) or not value:
        raise _wrong(where, value, "a mapping from names to what they are, at least one")
    return {str(name): entry for name, entry in value.items()}


def keys(where: str, value: Any, known: Sequence[str], required: Sequence[str]) -> dict[str, Any]:
    """A mapping that has all required keys, and none that is not known."""
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where} must be a mapping with {', '.join(required)}, got {_short(value)}")
    for key in value:
        if key not in known:
            raise ConfigurationError(f"{where}: unknown key {key}.{did_you_mean(str(key), known)}")
    for key in required:
        if key not in value:
            raise ConfigurationError(f"{where}: {key} is missing")
    return value


def optional(
    where: str, entry: Mapping[str, Any], key: str, check: Callable[[str, Any], _Value], other: _Other
) -> _Value | _Other:
    """What a key holds, checked; ``other`` where the key is not there."""
    return check(f"{where}.{key}", entry[key]) if key in entry else other


def listed(where: str, value: Any) -> list[Any]:
    """Things without names."""
    if not isinstance(value, list):
        raise _wrong(where, value, "a list; leave it out where there are none")
    return value


def text(where: str, value: Any) -> str:
    """Words that say something."""
    if not isinstance(value, str) or not value.strip():
        raise _wrong(where, value, "text that is not empty")
    return value


def number(where: str, value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _wrong(where, value, "a finite number")
    return value


def is_true(where: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong(where, value, "true or false")
    return value


def words(where: str, value: Any) -> Words:
    """Words of a command line."""
    if not isinstance(value, list) or not all(isinstance(word, str) and "=" in word for word in value):
        raise _wrong(where, value, "a list of key=value")
    return tuple(value)


def grid(where: str, value: Any) -> tuple[Words, ...]:
    """Settings to choose from."""
    if not isinstance(value, list) or not value:
        what = "a list of settings, each a list of key=value; leave it out where nothing is to choose"
        raise _wrong(where, value, what)
    return tuple(words(f"{where}[{place}]", setting) for place, setting in enumerate(value))


def names(where: str, value: Any, known: Collection[str]) -> tuple[str, ...]:
    """Some of those that are known, each once."""
    if not isinstance(value, list) or not value:
        raise _wrong(where, value, f"a list of some of {', '.join(known)}")
    found = tuple(one_of(where, str(name), known) for name in value)
    if len(set(found)) < len(found):
        raise _wrong(where, value, "different names; take out what is there twice")
    return found


def one_of(where: str, value: Any, known: Collection[str]) -> str:
    """One of those that are known."""
    name = text(where, value)
    if name not in known:
        mend = did_you_mean(name, known) or f" There are {', '.join(known)}"
        raise ConfigurationError(f"{where}: unknown {name}.{mend}")
    return name


def seeds(where: str, value: Any) -> tuple[int, ...]:
    """Seeds, each once."""
    what = "a list of different integers from 0 on, at least one"
    if not isinstance(value, list) or not value or not all(map(_is_seed, value)):
        raise _wrong(where, value, what)
    if len(set(value)) < len(value):
        raise _wrong(where, value, what)
    return tuple(value)


def _is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _wrong(where: str, value: Any, what: str) -> ConfigurationError:
    return ConfigurationError(f"{where}={_short(value)} must be {what}")


def _short(value: Any) -> str:
    return "null" if value is None else f"{value!r:.80}"
