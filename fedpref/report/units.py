"""Numbers as people read them: bytes, seconds, shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = [
    "human_bytes",
    "human_joules",
    "human_seconds",
    "largest_unit",
    "percent",
    "percent_tick",
    "time_unit",
]

_TIME_UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "s"))


def human_bytes(num_bytes: float) -> str:
    """Decimal units, three significant digits: ``0 B``, ``999 B``, ``1.50 kB``, ``412 MB``, ``2.10 TB``."""
    return f"{num_bytes:.0f} B" if num_bytes < 1000 else _thousands(num_bytes, "B")


def human_joules(energy_j: float) -> str:
    """Three digits: ``0.250 J``, ``12.0 J``, ``1.50 kJ``, ``412 MJ``."""
    if energy_j < 999.5:
        return f"{energy_j:.{3 if energy_j < 0.9995 else _decimals(energy_j)}f} J"
    return _thousands(energy_j, "J")


def human_seconds(seconds: float) -> str:
    """The two largest units: ``0.42 s``, ``17 s``, ``3 min 05 s``, ``1 h 52 min``, ``2 d 03 h``."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller:02d} {name}"
    return f"{whole} s"


def time_unit(longest_s: float) -> tuple[float, str]:
    """Seconds and name of the unit in which an axis up to ``longest_s`` reads well."""
    return largest_unit(longest_s, _TIME_UNITS)


def largest_unit(largest: float, units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The first of ``units`` (falling) in which ``largest`` is at least 2; else the smallest."""
    return next((unit for unit in units if largest >= 2 * unit[0]), units[-1])


def percent(share: float, decimals: int = 1) -> str:
    """A share as ``71.2 %``, with a space that does not break."""
    return f"{100 * share:.{decimals}f}\N{NO-BREAK SPACE}%"


def percent_tick(share: float) -> str:
    """A share for an axis: without decimals where it has none."""
    return percent(share, 0 if math.isclose(100 * share, round(100 * share), abs_tol=1e-6) else 1)


def _decimals(value: float) -> int:
    """Decimals for three significant digits after rounding."""
    return 2 if value < 9.995 else 1 if value < 99.95 else 0


def _thousands(value: float, unit: str) -> str:
    value /= 1000
    for prefix in ("k", "M", "G", "T"):
        # 999.5 is where three digits round up to the next unit.
        if value < 999.5 or prefix == "T":
            break
        value /= 1000
    return f"{value:.{_decimals(value)}f} {prefix}{unit}"
