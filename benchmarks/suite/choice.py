"""Options are chosen alike for all methods: the best of equally many settings, by pairs held out of training.

What was chosen is kept beside the suite, with the grid, the score of each setting and the words of the
trials, so that a reader can judge it and a run need not repeat it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpref.benchmarks.suite.declared import DataSet, Method, Suite, Tier
from fedpref.errors import ConfigurationError
from fedpref.report.storage import read_json, write_json

__all__ = ["METRIC", "Choices", "best", "read_choices"]

METRIC = "user_accuracy"
_FOLDER = Path(__file__).parent.parent / "suites" / "chosen"


@dataclass(frozen=True)
class Choices:
    """Settings by data set and method.

    Attributes:
        tree: of each data set, of each method, ``setting``, ``scores`` in the order of the grid, ``grid``,
            the ``words`` that all trials had, and ``tier`` and ``budget``, its words.
    """

    tree: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    def setting(self, suite: Suite, data: DataSet, method: Method) -> tuple[str, ...]:
        """The chosen setting of a method; its only one where there is no choice.

        Raises:
            ConfigurationError: nothing was chosen from this grid yet, or for other words.
        """
        if len(method.grid) == 1:
            return method.grid[0]
        found = self.tree.get(data.name, {}).get(method.name, {})
        grid = [list(setting) for setting in method.grid]
        if found.get("grid") != grid or found.get("words") != _words(suite, data, method):
            raise ConfigurationError(
                f"suite {suite.name}: no options were chosen for {method.name} on {data.name} as they are; "
                "add --tune"
            )
        return tuple(found["setting"])

    def with_(
        self, suite: Suite, tier: Tier, data: DataSet, method: Method, scores: Sequence[float | None]
    ) -> Choices:
        """These and one more; the first of equals wins, and a setting that failed has no score.

        Raises:
            ConfigurationError: every setting failed.
        """
        place = best(scores)
        if place is None:
            raise ConfigurationError(f"{method.name} on {data.name}: every setting of its grid failed")
        entry = {
            "setting": list(method.grid[place]),
            "scores": list(scores),
            "grid": [list(setting) for setting in method.grid],
            "words": _words(suite, data, method),
            "tier": tier.name,
            "budget": list(tier.words),
        }
        return self.over(Choices({data.name: {method.name: entry}}))

    def over(self, other: Choices) -> Choices:
        """These, and where ``other`` has some, those."""
        names = {*self.tree, *other.tree}
        merged = {name: {**self.tree.get(name, {}), **other.tree.get(name, {})} for name in names}
        return Choices(merged)

    def tiers(self, data: DataSet) -> list[str]:
        """Names of the tiers whose trials chose for a data set."""
        return sorted({entry["tier"] for entry in self.tree.get(data.name, {}).values()})

    def write(self, path: Path) -> None:
        """Keep them.

        Raises:
            StorageError: the disk is full or not writable.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.tree)


def best(scores: Sequence[float | None]) -> int | None:
    """Place of the highest score, the first of equals; None if there is none."""
    known = [(score, -place) for place, score in enumerate(scores) if score is not None]
    return -max(known)[1] if known else None


def read_choices(suite: Suite, own: Path | None = None) -> Choices:
    """What was chosen for a suite: what fedpref brings, and before it what is in the file of one's own.

    Raises:
        StorageError: a file is damaged.
    """
    found = Choices()
    brought = _FOLDER / f"{suite.name}.json" if suite.path is None else None
    for path in (brought, own):
        if path is not None and path.is_file():
            found = found.over(Choices(read_json(path)))
    return found


def _words(suite: Suite, data: DataSet, method: Method) -> list[str]:
    """What all trials of a method on a data set have in common, but for the tier's."""
    return [*suite.words, *data.words, *method.words]
