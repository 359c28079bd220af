"""Metrics of a comparison as a page shows them: shares in percent, bytes and seconds in their units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpref.report.units import human_bytes, human_joules, human_seconds

__all__ = ["is_share", "range_of", "shown", "title"]

_SHARES = ("user_accuracy", "pair_accuracy", "worst_decile", "worst_group", "oracle")
_TITLES = {
    "worst_decile": "worst tenth",
    "bytes_up": "bytes up",
    "bytes_down": "bytes down",
    "virtual_s": "virtual time",
    "wall_s": "wall time",
    "to_target_s": "time to target",
    "to_target_bytes": "bytes to target",
    "ari": "Rand index",
    "k_star": "k*",
}


def is_share(metric: str) -> bool:
    """True for accuracies."""
    return metric in _SHARES


def title(metric: str) -> str:
    """Heading of a column, with the unit where the figures have none."""
    name = _TITLES.get(metric, metric.removesuffix("_s").removesuffix("_j").replace("_", " "))
    return f"{name}, %" if is_share(metric) else name


def shown(metric: str, value: float | None) -> str:
    """One figure; a dash where there is none."""
    if value is None:
        return "–"
    if is_share(metric):
        return f"{100 * value:.1f}"
    for is_of_it, human in (
        ("bytes" in metric, human_bytes),
        (metric.endswith("_s"), human_seconds),
        (metric.endswith("_j"), human_joules),
        (metric == "k_star", "{:.3g}".format),  # pairs, which are whole in a single run
    ):
        if is_of_it:
            return human(value) if value >= 0 else f"−{human(-value)}"
    return (f"{value:,.4g}" if abs(value) >= 10 else f"{value:.3f}").replace("-", "−")


def range_of(metric: str, estimate: Mapping[str, Any]) -> str:
    """Its interval in brackets; empty where there is none, or where both ends read as the mean does."""
    ends = [shown(metric, estimate[end]) for end in ("low", "high")]
    is_known = estimate["low"] is not None and set(ends) != {shown(metric, estimate["mean"])}
    return f"[{', '.join(ends)}]" if is_known else ""
