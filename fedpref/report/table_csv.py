"""Comparisons as CSV: one line a data set, method and metric, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["as_csv"]

_COLUMNS = (
    *("data", "method", "metric", "mean", "low", "high"),
    *("base", "difference", "difference_low", "difference_high", "over", "is_best", "seeds", "by_seed"),
)


def as_csv(tables: Sequence[Mapping[str, Any]]) -> str:
    """All figures of tables as of ``fedpref.evaluation.compare.Table.as_json``; what is not known is empty.

    Seeds, and the values of the seeds in their order, stand in one column each, spaces between them.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for table in tables:
        for row in table["rows"]:
            for metric, cell in row["metrics"].items():
                difference = cell["difference"] or {}
                estimates = [cell.get(key) for key in ("mean", "low", "high")]
                differences = [difference.get(key) for key in ("mean", "low", "high")]
                lists = [" ".join(map(str, values)) for values in (table["seeds"], cell["by_seed"])]
                line = [table["data"], row["name"], metric, *estimates, table["base"], *differences]
                writer.writerow([*line, cell["over"], cell["is_best"], *lists])
    return text.getvalue()
