"""What is measured: the metrics of a suite's tables, and the tables of newcomers."""

from __future__ import annotations

__all__ = ["COSTS", "EXTRA", "HIDDEN", "METRICS", "NEWCOMERS", "OF_NEWCOMERS", "SHOTS", "newcomers_table"]

METRICS = ("user_accuracy", "worst_decile", "worst_group", "bytes_up", "bytes_down", "virtual_s")
EXTRA = ("to_target_s", "to_target_bytes", "k_star")
"""Where some run has them."""

HIDDEN = ("oracle", "ari", "order_consistency")
"""For claims alone."""

COSTS = ("bytes_up", "bytes_down", "virtual_s", "to_target_s", "to_target_bytes")
"""Of a federation alone."""

OF_NEWCOMERS = ("user_accuracy", "worst_decile")
"""All that is known of them."""

SHOTS = (0, 1, 5, 20, 100)
"""Pairs shown by newcomers, of which the tables tell."""

NEWCOMERS = ", newcomers with "
"""In the name of a table, between its data set and how many pairs they show."""


def newcomers_table(data: str, shots: int) -> str:
    """Name of the table of a data set's newcomers who show that many pairs."""
    return f"{data}{NEWCOMERS}{shots} pair{'' if shots == 1 else 's'}"
