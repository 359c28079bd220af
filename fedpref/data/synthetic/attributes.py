"""The twelve attributes of a response, measured on its text by fixed patterns.

Whatever wrote a text, its attributes are what these patterns find, never what was planned; so the
oracle stays exact. Source: the project's own definition.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

__all__ = ["ATTRIBUTES", "MARKERS", "measure", "measure_all"]

ATTRIBUTES = (
    "length",
    "formality",
    "hedging",
    "humour",
    "citations",
    "bullets",
    "emoji",
    "directness",
    "technical",
    "empathy",
    "examples",
    "questions",
)
"""Names, in the order of every attribute vector."""

MARKERS = {
    "formal": "moreover furthermore consequently accordingly therefore additionally nevertheless",
    "informal": "anyway basically okay yeah plus honestly alright",
    "hedging": "perhaps probably possibly arguably presumably seemingly maybe",
    "humour": "haha pun joking kidding joke lol giggle",
    "directness": "must never always definitely absolutely certainly undoubtedly",
    "technical": (
        "hydration maillard emulsion collagen gluten acidity nitrogen mycorrhizal photoperiod salinity "
        "lactate cadence aerobic glycogen pronation yield layover validity surcharge codeshare "
        "annuity nominal amortisation index liquidity latency hash compiler mutex "
        "subjunctive repetition phoneme clitic aspect torque amperes joists epoxy thermal"
    ),
    "empathy": "understand sorry frustrating stressful overwhelming discouraging exhausting",
    "examples": "example instance",
}
"""Words that count towards an attribute, wherever they stand."""

_MARKER_OF = {word: kind for kind, words in MARKERS.items() for word in words.split()}
_WORD = re.compile(r"[a-z]+(?:['’-][a-z]+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?!\w)")
_CITATION = re.compile(r"\[\d+\]")
_BULLET = re.compile(r"^- ", re.MULTILINE)
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")


def measure(text: str) -> list[float]:
    """Raw attributes of one text, in the order of ``ATTRIBUTES``.

    Length is the logarithm of the word count, formality the balance
    (formal - informal) / (formal + informal + 2); all others are counts per sentence.
    """
    words = _WORD.findall(text.lower())
    marks = Counter(map(_MARKER_OF.get, words))
    sentences = max(1, len(_SENTENCE_END.findall(text)))
    formal, informal = marks["formal"], marks["informal"]
    return [
        math.log(max(1, len(words))),
        (formal - informal) / (formal + informal + 2),
        marks["hedging"] / sentences,
        marks["humour"] / sentences,
        len(_CITATION.findall(text)) / sentences,
        len(_BULLET.findall(text)) / sentences,
        len(_EMOJI.findall(text)) / sentences,
        marks["directness"] / sentences,
        marks["technical"] / sentences,
        marks["empathy"] / sentences,
        marks["examples"] / sentences,
        text.count("?") / sentences,
    ]


def measure_all(texts: Sequence[str]) -> np.ndarray:
    """Raw attributes of many texts, shape (len(texts), 12), float64."""
    return np.array([measure(text) for text in texts], dtype=np.float64).reshape(len(texts), len(ATTRIBUTES))
