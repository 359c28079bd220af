"""Options are chosen alike for all methods: the best of equally many settings, by pairs held out of training.

What was chosen is kept beside the suite, with all scores and what the choice cost, so that a reader can judge
it and a run need not repeat it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpref.benchmarks.suite.declared import DataSet, Method, Suite
from fedpref.errors import ConfigurationError

__all__ = ["METRIC", "Choices", "best", "read_choices"]

METRIC = "user_accuracy"
_FOLDER = Path(__file__).parent.parent / "suites" / "chosen"


@dataclass(frozen=True)
class Choices:
    """Settings by data set and method.

    Attributes:
        tree: of each data set, of each method, ``setting``, ``scores`` in the order of the grid, ``grid``.
    """

    tree: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    def setting(self, suite: Suite, data: DataSet, method: Method) -> tuple[str, ...]:
        """The chosen setting of a method; its only one where there is no choice.

        Raises:
            ConfigurationError: nothing was chosen from this grid yet.
        """
        if len(method.grid) == 1:
            return method.grid[0]
        found = self.tree.get(data.name, {}).get(method.name, {})
        if [list(setting) for setting in method.grid] != found.get("grid"):
            raise ConfigurationError(
                f"suite {suite.name}: no options were chosen for {method.name} on {data.name} from its grid; "
                "add --tune"
            )
        return tuple(found["setting"])

    def with_(self, data: str, method: Method, scores: Sequence[float | None]) -> Choices:
        """These and one more; the first of equals wins, and a setting that failed has no score.

        Raises:
            ConfigurationError: every setting failed.
        """
        place = best(scores)
        if place is None:
            raise ConfigurationError(f"{method.name} on {data}: every setting of its grid failed")
        entry = {
            "setting": list(method.grid[place]),
            "scores": list(scores),
            "grid": [list(setting) for setting in method.grid],
        }
        return Choices({**self.tree, data: {**self.tree.get(data, {}), method.name: entry}})

    def write(self, path: Path) -> None:
        """Keep them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.tree, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def best(scores: Sequence[float | None]) -> int | None:
    """Place of the highest score, the first of equals; None if there is none."""
    known = [(score, -place) for place, score in enumerate(scores) if score is not None]
    return -max(known)[1] if known else None


def read_choices(suite: str, own: Path | None = None) -> Choices:
    """What was chosen for a suite: the file of one's own if it is there, else what fedpref brings."""
    for path in (own, _FOLDER / f"{suite}.json"):
        if path is not None and path.is_file():
            return Choices(json.loads(path.read_text(encoding="utf-8")))
    return Choices()
