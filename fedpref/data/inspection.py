"""What is in the rows: counts a client, a few pairs in full, what was dropped and why.

Pure data, for the command line to print or to write as JSON (``dataclasses.asdict``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedpref.data.rows import Rows

__all__ = ["QUANTILES", "Example", "Inspection", "inspect"]

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Least, deciles and quartiles, most."""


@dataclass(frozen=True)
class Example:
    """One pair as backbones receive it, before any template of their own."""

    row: int
    client: str
    topic: str
    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Inspection:
    """Figures of a table of rows.

    Attributes:
        source: where the rows come from.
        formats: rows by preference format.
        num_rows: judgements.
        num_pairs: distinct unordered pairs.
        num_texts: distinct responses.
        clients: rows of each client, most first.
        rows_per_client: rows a client at ``QUANTILES``.
        response_chars: length of the responses in characters at ``QUANTILES``.
        topics: rows by topic, most first.
        splits: rows by side of the split; empty where the source has none.
        chosen_is_longer: share of rows whose chosen response is the longer one: what a rule that
            looks at nothing but length would get. Equal lengths count half.
        dropped: rows left out, by reason.
        examples: a few pairs in full.
        notes: what the source has to say.
    """

    source: str
    formats: Mapping[str, int]
    num_rows: int
    num_pairs: int
    num_texts: int
    clients: Mapping[str, int]
    rows_per_client: tuple[float, ...]
    response_chars: tuple[float, ...]
    topics: Mapping[str, int]
    splits: Mapping[str, int]
    chosen_is_longer: float
    dropped: Mapping[str, int]
    examples: tuple[Example, ...]
    notes: tuple[str, ...]


def inspect(rows: Rows, num_examples: int = 3) -> Inspection:
    """Figures of the rows, and ``num_examples`` pairs spread evenly over them."""
    clients = _counted(rows.clients)
    lengths = np.array([[len(text) for text in side] for side in (rows.chosen, rows.rejected)])
    shown = np.unique(np.linspace(0, len(rows) - 1, min(num_examples, len(rows))).astype(int))
    return Inspection(
        source=rows.source,
        formats=rows.formats,
        num_rows=len(rows),
        num_pairs=len(set(rows.pair_ids)),
        num_texts=len({*rows.chosen, *rows.rejected}),
        clients=clients,
        rows_per_client=_quantiles(list(clients.values())),
        response_chars=_quantiles(lengths.ravel()),
        topics=_counted(rows.topics),
        splits=_counted(rows.splits),
        chosen_is_longer=float(np.mean((np.sign(lengths[0] - lengths[1]) + 1) / 2)),
        dropped=rows.dropped,
        examples=tuple(
            Example(
                row=int(row),
                client=rows.clients[row],
                topic=rows.topics[row],
                prompt=rows.prompts[row],
                chosen=rows.chosen[row],
                rejected=rows.rejected[row],
            )
            for row in shown
        ),
        notes=rows.notes,
    )


def _counted(values: Sequence[str]) -> dict[str, int]:
    counts = Counter(value for value in values if value)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _quantiles(numbers: Sequence[int] | np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(numbers, QUANTILES))
