"""The code blocks of the documents, and what their labels ask for.

A block is fenced and labelled. ``sh`` is typed into a shell, ``python`` runs as a script, and ``text`` right
after one of them is what it prints, where … stands for anything. A block whose text before it ends with
`` `NAME`:`` is that file. ``sh-not-run`` is shown only; the paragraph before it says why, after "Not run by
the tests:".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["LABELS", "PAGES", "ROOT", "Block", "blocks"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LABELS = ("sh", "python", "yaml", "text", "sh-not-run")

_FENCE = re.compile(r"```(\S*)$")
_FILE = re.compile(r"`([\w./-]+)`:$")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        label: after the fence.
        code: the lines within.
        line: number of the fence's line in the document, from 1 on.
        before: the paragraph before it; empty where another block or nothing stands there.
    """

    label: str
    code: str
    line: int
    before: str

    @property
    def file(self) -> str | None:
        """Name of the file that the text says this block is."""
        named = _FILE.search(self.before)
        return named[1] if named else None


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a document, in order.

    Raises:
        ValueError: a fence that is never closed.
    """
    found: list[Block] = []
    paragraph: list[str] = []
    inside: list[str] | None = None
    label, start, is_gap = "", 0, True
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line)
        if fence and inside is None:
            inside, label, start = [], fence[1], number
        elif fence and inside is not None:
            found.append(Block(label, "\n".join(inside) + "\n", start, " ".join(paragraph)))
            inside, paragraph = None, []
        elif inside is not None:
            inside.append(line)
        else:
            if line.strip():
                paragraph = [line.strip()] if is_gap else [*paragraph, line.strip()]
            is_gap = not line.strip()
    if inside is not None:
        raise ValueError(f"line {start}: the fence is never closed")
    return found
