"""What the converters of published sets share: from judgements to rows in our format.

A converter says who preferred which text to which; the rest is the same for all sets: contradictions are
dropped, people with few choices are left out, names become pseudonyms, rows get an order and a side.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from fedpref.data.rows import TEST, TRAIN

__all__ = ["Figures", "Judgement", "Row", "as_file", "as_lines", "finished", "pseudonym", "side_of", "tidy"]

Row: TypeAlias = dict[str, str | int]
"""One judgement as it is written to the file."""

TEST_SHARE = 0.25


@dataclass(frozen=True)
class Judgement:
    """One person prefers one text to another.

    Attributes:
        person: the source's own id of who judged; becomes a pseudonym.
        pair: identity of the unordered pair.
        domain: what it is about.
        split: ``train`` or ``test``.
        prompt: tidy text.
        chosen: tidy text.
        rejected: tidy text.
        labels: further columns.
    """

    person: str
    pair: str
    domain: str
    split: str
    prompt: str
    chosen: str
    rejected: str
    labels: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """Counts of a set: rows, people, distinct pairs, domains."""

    rows: int
    annotators: int
    text_pairs: int
    domains: int

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Figures:
        """Count them."""
        distinct = (len({row[name] for row in rows}) for name in ("annotator", "source_id", "domain"))
        return cls(len(rows), *distinct)


def tidy(text: str) -> str:
    """The text without end-of-sequence marks, runs of blanks, blanks at line ends and rows of empty lines."""
    lines = text.replace("</s>", "").replace("\r\n", "\n").replace("\r", "\n")
    blanks = re.sub(r" ?\n", "\n", re.sub(r"[^\S\n]+", " ", lines))
    return re.sub(r"\n{3,}", "\n\n", blanks).strip()


def pseudonym(name: str, person: str) -> str:
    """``NAME-`` and 40 bits of SHA-256 of set and id: no link between sets, but no anonymity either."""
    return f"{name}-{hashlib.sha256(f'{name}:{person}'.encode()).hexdigest()[:10]}"


def side_of(name: str, unit: str) -> str:
    """The side of the split, by a hash of what must not be parted; a quarter of the units is held out."""
    share = int(hashlib.sha256(f"{name}:{unit}".encode()).hexdigest()[:8], 16) / 2**32
    return TEST if share < TEST_SHARE else TRAIN


def finished(name: str, judgements: Iterable[Judgement], min_choices: int) -> list[Row]:
    """Rows sorted by domain, pair and annotator, whatever the order of the judgements.

    Empty and equal texts are dropped. Who judged a pair twice alike counts once; who contradicts himself on
    a pair has no say on it.

    Args:
        name: of the set.
        judgements: without ties.
        min_choices: people with fewer are left out.
    """
    opinions: dict[tuple[str, str], dict[str, Judgement]] = defaultdict(dict)
    for one in judgements:
        if one.chosen and one.rejected and one.chosen != one.rejected:
            opinions[one.person, one.pair][one.chosen] = one
    settled = [one for by_choice in opinions.values() if len(by_choice) == 1 for one in by_choice.values()]
    choices = Counter(one.person for one in settled)
    rows = [_row(name, one) for one in settled if choices[one.person] >= min_choices]
    return sorted(rows, key=lambda row: (row["domain"], row["source_id"], row["annotator"]))


def as_lines(rows: Sequence[Row]) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows).encode()


def as_file(rows: Sequence[Row]) -> bytes:
    """Gzipped JSON lines; equal rows give equal bytes under one version of zlib."""
    return gzip.compress(as_lines(rows), mtime=0)


def _row(name: str, one: Judgement) -> Row:
    return {
        "prompt": one.prompt,
        "chosen": one.chosen,
        "rejected": one.rejected,
        "annotator": pseudonym(name, one.person),
        "domain": one.domain,
        "split": one.split,
        "source_id": one.pair,
        **one.labels,
    }
