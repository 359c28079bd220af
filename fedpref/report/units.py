"""Numbers as people read them: bytes, seconds, shares."""

from __future__ import annotations

import math

__all__ = ["human_bytes", "human_seconds", "percent", "percent_tick"]


def human_bytes(num_bytes: float) -> str:
    """Decimal units, three significant digits: ``0 B``, ``999 B``, ``1.50 kB``, ``412 MB``, ``2.10 TB``."""
    if num_bytes < 1000:
        return f"{num_bytes:.0f} B"
    value = num_bytes / 1000
    for unit in ("kB", "MB", "GB", "TB"):
        # 999.5 is where three digits round up to the next unit.
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.{_decimals(value)}f} {unit}"


def human_seconds(seconds: float) -> str:
    """The two largest units: ``0.42 s``, ``17 s``, ``3 min 05 s``, ``1 h 52 min``, ``2 d 03 h``."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller:02d} {name}"
    return f"{whole} s"


def percent(share: float, decimals: int = 1) -> str:
    """A share as ``71.2 %``, with a space that does not break."""
    return f"{100 * share:.{decimals}f}\N{NO-BREAK SPACE}%"


def percent_tick(share: float) -> str:
    """A share for an axis: without decimals where it has none."""
    return percent(share, 0 if math.isclose(100 * share, round(100 * share), abs_tol=1e-6) else 1)


def _decimals(value: float) -> int:
    """Decimals for three significant digits after rounding."""
    return 2 if value < 9.995 else 1 if value < 99.95 else 0
