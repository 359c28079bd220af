"""What a table shows, in one sentence, so that nobody has to pick it from a wall of figures."""

from __future__ import annotations

from fedpref.evaluation.compare import Estimate, Table

__all__ = ["reading"]


def reading(table: Table, metric: str) -> list[str]:
    """Who is above the base, who is below, and who cannot be told apart from it; all rows are named.

    Args:
        table: with a row besides the base.
        metric: whose differences have intervals over people.

    Returns:
        The sentence; nothing where no row has such an interval.
    """
    base, *others = table.rows
    found: dict[str, Estimate] = {}
    for row in others:
        difference = row.cells[metric].difference
        if difference is not None and difference.low is not None:
            found[row.name] = difference
    above, below, alike = list[str](), list[str](), list[str]()
    for name, one in sorted(found.items(), key=lambda item: -item[1].mean):
        assert one.low is not None and one.high is not None
        (above if one.low > 0 else below if one.high < 0 else alike).append(name)
    parts = [
        f"{words}: {', '.join(names)}"
        for words, names in (("above it", above), ("not told apart from it", alike), ("below it", below))
        if names
    ]
    return (
        [f"Beside {base.name} (by intervals over people, best first), {'; '.join(parts)}."] if parts else []
    )
