"""The two pieces that all drawings share: a text and the frame around everything."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["drawing", "text"]


def drawing(body: Sequence[str], width: float, height: float, label: str) -> str:
    """An SVG element; ``label`` says what it shows to those who cannot see it."""
    head = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">'
    return f"{head}{''.join(body)}</svg>"


def text(x: float, y: float, words: str, style: str) -> str:
    """Words that begin, end or stand around ``x``, as their class ``style`` says; ``y`` is the base line."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'
