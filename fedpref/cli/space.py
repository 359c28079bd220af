"""What ``fedpref tune`` searches: a few options, and the values that each may take.

``key=choice(a,b,…)``, ``key=uniform(a,b)`` and ``key=loguniform(a,b)``, as words of a command line or as
lines ``key: choice(a,b,…)`` of a YAML file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fedpref.errors import ConfigurationError

__all__ = ["Choice", "Dimension", "Point", "Range", "check_keys", "overrides", "read_space", "split_words"]

Point: TypeAlias = Mapping[str, str | float]
"""A value of each option: a word as it is typed, or a number from a range."""

_FORM = re.compile(r"([^=]+)=(choice|uniform|loguniform)\((.*)\)", re.DOTALL)
_FORMS = "choice(a,b,…), uniform(a,b) or loguniform(a,b)"
_FIXED = ("data", "partition", "split", "seed", "experiment", "debug", "evaluation", "name", "out", "hydra")


@dataclass(frozen=True)
class Choice:
    """One of some words.

    Attributes:
        key: the option or group.
        values: as after ``key=``, each once.
    """

    key: str
    values: tuple[str, ...]

    @property
    def samples(self) -> tuple[str, ...]:
        """Values that stand for all: here all."""
        return self.values

    def __str__(self) -> str:
        return f"{self.key}=choice({','.join(self.values)})"


@dataclass(frozen=True)
class Range:
    """A number between two others.

    Attributes:
        key: the option.
        low: least value.
        high: largest value.
        is_log: equal ratios are equally likely, not equal differences.
    """

    key: str
    low: float
    high: float
    is_log: bool

    @property
    def samples(self) -> tuple[float, ...]:
        """Values that stand for all: the ends and the middle."""
        middle = math.sqrt(self.low * self.high) if self.is_log else (self.low + self.high) / 2
        return self.low, self.rounded(middle), self.high

    def rounded(self, value: float) -> float:
        """``value`` to four digits, which say all that a search can tell, and between the ends."""
        return min(max(float(f"{value:.4g}"), self.low), self.high)

    def __str__(self) -> str:
        return f"{self.key}={'loguniform' if self.is_log else 'uniform'}({self.low!r},{self.high!r})"


Dimension: TypeAlias = Choice | Range


def overrides(point: Point) -> list[str]:
    """The words of a point, as after ``fedpref run``."""
    return [f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in point.items()]


def split_words(words: Sequence[str]) -> tuple[list[Dimension], list[str]]:
    """What is to be searched, and the words of every run.

    Raises:
        ConfigurationError: a word that is searched is wrong, or holds several values in another form.
    """
    space: list[Dimension] = []
    rest = []
    for word in words:
        dimension = _dimension(word)
        if dimension is not None:
            space.append(dimension)
        elif _is_sweep(word):
            raise ConfigurationError(f"'{word}' holds several values; to search an option write {_FORMS}")
        else:
            rest.append(word)
    return space, rest


def read_space(path: Path) -> list[Dimension]:
    """What a YAML file says is to be searched.

    Raises:
        ConfigurationError: it cannot be read, or a line is not ``key: choice(…)`` or another form.
    """
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        table = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except OSError as error:
        raise ConfigurationError(f"--space {path} cannot be read: {error.strerror or error}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--space {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict) or not table:
        raise ConfigurationError(f"--space {path} must hold lines such as 'client.lr: loguniform(0.01, 1)'")
    space = []
    for key, value in table.items():
        dimension = _dimension(f"{key!s}={value}") if isinstance(value, str) else None
        if dimension is None:
            raise ConfigurationError(f"--space {path}: {key!s}: {value!r:.80} must be {_FORMS}")
        space.append(dimension)
    return space


def check_keys(space: Sequence[Dimension], words: Sequence[str]) -> None:
    """Refuse a search of nothing, of one option twice, or of what decides who is asked what.

    Raises:
        ConfigurationError: it is one of these.
    """
    if not space:
        raise ConfigurationError(f"there is nothing to search; write an option as {_FORMS}, or give --space")
    keys = [dimension.key for dimension in space]
    typed = [word.partition("=")[0].lstrip("+~") for word in words]
    for key in keys:
        if key.split(".")[0].split("/")[0] in _FIXED:
            raise ConfigurationError(f"{key} cannot be searched: all trials share their pairs and their seed")
        if keys.count(key) > 1 or key in typed:
            raise ConfigurationError(f"{key} is given twice; give it one value or one range")


def _dimension(word: str) -> Dimension | None:
    match = _FORM.fullmatch(word.strip())
    if match is None:
        return None
    key, form, inside = (part.strip() for part in match.groups())
    key = key.lstrip("+")
    return Choice(key, _values(word, inside)) if form == "choice" else _range(word, key, form, inside)


def _values(word: str, inside: str) -> tuple[str, ...]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:  # Hydra's own choice() takes no null, a list with commas does
        override = OverridesParser.create().parse_override(f"x={inside}")
        several = list(override.sweep_string_iterator()) if override.is_sweep_override() else []
    except HydraException as error:
        raise ConfigurationError(f"'{word}': {str(error).splitlines()[0]}") from error
    values = tuple(dict.fromkeys(several))
    if len(values) < 2:
        raise ConfigurationError(f"'{word}' must hold at least two values, such as choice(0.1,1)")
    return values


def _range(word: str, key: str, form: str, inside: str) -> Range:
    try:
        low, high = (float(number) for number in inside.split(","))
    except ValueError as error:
        raise ConfigurationError(f"'{word}' must hold two numbers, such as {form}(0.01,1)") from error
    is_log = form == "loguniform"
    if not (math.isfinite(low) and math.isfinite(high) and low < high and (low > 0 or not is_log)):
        positive = " above 0" if is_log else ""
        raise ConfigurationError(f"'{word}' must hold two numbers{positive}, the smaller first")
    return Range(key, low, high, is_log)


def _is_sweep(word: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return bool(OverridesParser.create().parse_override(word).is_sweep_override())
    except HydraException:  # whoever composes says what is wrong with it
        return False
