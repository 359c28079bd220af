"""Pairs that nobody has judged: two responses to a prompt, in an order that tells nothing.

A row has ``prompt``, ``response_a`` and ``response_b``, as texts or conversations. Preference rows serve
as well; their label is hidden by sorting the two texts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedpref.data.rows import Rows, collect
from fedpref.data.sources import PreferenceFile
from fedpref.errors import ConfigurationError, did_you_mean

__all__ = ["unlabelled_rows"]

_FIRST, _SECOND = "response_a", "response_b"


def unlabelled_rows(path: str, bad_rows: str = "error") -> Rows:
    """The rows of a file: ``chosen`` is the response that stands first, ``rejected`` the other one.

    Args:
        path: JSON lines, gzipped JSON lines or Parquet.
        bad_rows: "error" stops at the first row that cannot be used, such as one of two equal responses;
            "drop" leaves such rows out and counts them.

    Raises:
        ConfigurationError: the file cannot be read, or a column or row is wrong.
    """
    file = PreferenceFile(
        client_column=None,
        topic_column=None,
        split_column=None,
        pair_id_column=None,
        bad_rows=bad_rows,
        path=path,
    )
    records = file.records()
    found = list(dict.fromkeys(name for record in records for name in record))
    if not records or ({"chosen", "rejected"} <= set(found) and _FIRST not in found):
        return _without_label(file.rows())
    for name in (_FIRST, _SECOND):
        if name not in found:
            raise ConfigurationError(
                f"{Path(path).name}: no column {name!r}.{did_you_mean(name, found)} "
                f"Columns found: {', '.join(found)}; "
                f"rows to label need {_FIRST!r} and {_SECOND!r}, or 'chosen' and 'rejected'"
            )
    sides = [{**record, "chosen": record.get(_FIRST), "rejected": record.get(_SECOND)} for record in records]
    return collect(sides, Path(path).name, file)


def _without_label(rows: Rows) -> Rows:
    """The same pairs, each in the order of its texts, which says nothing about the label."""
    sides = [sorted(pair) for pair in zip(rows.chosen, rows.rejected, strict=True)]
    first, second = zip(*sides, strict=True)
    note = "The rows are labelled: their labels were ignored."
    return replace(rows, chosen=first, rejected=second, notes=(*rows.notes, note))
