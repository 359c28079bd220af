"""llmfao: crowd workers chose between answers of 59 language models to a dozen prompts.

Source: D. Ustalov 2023, LLMFAO; ``pairs-crowd.jsonl`` (the texts) and ``crowd-comparisons.csv`` (the votes).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fedpref.data.formats import TextPair
from fedpref.data.originals.rows import Judgement, Row, finished, side_of, tidy
from fedpref.data.published import WrongLayout, entry
from fedpref.data.rows import text_pair_id
from fedpref.data.sources import PreferenceFile

__all__ = ["MIN_CHOICES", "read", "rows"]

NAME = "llmfao"
MIN_CHOICES = 3
WORKER_COLUMNS = ("worker", "worker_id", "annotator")
"""Names under which the votes may say who judged; the first that is there counts."""


def read(folder: Path) -> list[Row]:
    """The rows of the originals in a folder.

    Raises:
        WrongLayout: a file is laid out otherwise.
    """
    pairs = PreferenceFile(str(folder / "pairs-crowd.jsonl")).records()
    with (folder / "crowd-comparisons.csv").open(encoding="utf-8", newline="") as file:
        return rows(pairs, csv.DictReader(file))


def rows(pairs: Iterable[Mapping[str, Any]], votes: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Choices of workers with at least three.

    Args:
        pairs: ``id``, ``slug`` (the domain), ``text`` (the prompt), ``result_x``, ``result_y``.
        votes: ``id`` of the pair, ``left`` and ``right`` (models, in the order x, y), ``winner``, worker.

    Raises:
        WrongLayout: a column is missing, a winner is unknown, or a vote is about no pair.
    """
    return finished(NAME, _judgements({str(entry(pair, "id")): pair for pair in pairs}, votes), MIN_CHOICES)


def _judgements(
    pairs: Mapping[str, Mapping[str, Any]], votes: Iterable[Mapping[str, Any]]
) -> Iterator[Judgement]:
    for vote in votes:
        winner, number = entry(vote, "winner"), str(entry(vote, "id"))
        if winner == "tie":
            continue
        if winner not in ("left", "right"):
            raise WrongLayout(f"crowd-comparisons.csv: winner is {winner!r:.40}, not left, right or tie")
        if number not in pairs:
            raise WrongLayout(f"crowd-comparisons.csv: no pair {number} in pairs-crowd.jsonl")
        pair = pairs[number]
        texts = {
            side: tidy(entry(pair, f"result_{xy}") or "") for side, xy in (("left", "x"), ("right", "y"))
        }
        loser = "right" if winner == "left" else "left"
        prompt = tidy(entry(pair, "text"))
        yield Judgement(
            person=_worker(vote),
            pair=f"{NAME}:{number}",
            domain=entry(pair, "slug"),
            split=side_of(NAME, text_pair_id(TextPair(prompt, texts["left"], texts["right"], form=""))),
            prompt=prompt,
            chosen=texts[winner],
            rejected=texts[loser],
            labels={"chosen_model": entry(vote, winner), "rejected_model": entry(vote, loser)},
        )


def _worker(vote: Mapping[str, Any]) -> str:
    for name in WORKER_COLUMNS:
        if name in vote:
            return str(vote[name])
    raise WrongLayout(f"crowd-comparisons.csv: none of {', '.join(WORKER_COLUMNS)} among {', '.join(vote)}")
