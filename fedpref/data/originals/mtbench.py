"""mtbench: experts chose between answers of six language models to MT-Bench's eighty questions of two turns.

Source: L. Zheng et al. 2023, arXiv:2306.05685; hub set ``lmsys/mt_bench_human_judgments``, split "human".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpref.data.originals.rows import Judgement, Row, finished, side_of, tidy
from fedpref.data.published import WrongLayout, entry
from fedpref.data.sources import PreferenceFile

__all__ = ["FILE", "MIN_CHOICES", "VOTES_SHA256", "read", "rows", "votes_sha256"]

NAME = "mtbench"
FILE = "human-00000-of-00001-25f4910818759289.parquet"
MIN_CHOICES = 5
VOTES_SHA256 = "7ae1ff9ad4a01c30936342dd5494493da9a7fe6538265df1f4c04d44e76fa5f3"
"""Of the votes without texts, as published in github.com/aliabbas-muhammadi/judgelab at afdf0eaa."""

CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
"""Ten questions each, from number 81 on."""

_VOTE = ("question_id", "model_a", "model_b", "winner", "judge", "turn")
_ORDER = ("question_id", "turn", "model_a", "model_b", "judge")


def read(folder: Path) -> list[Row]:
    """The rows of the original in a folder.

    Raises:
        WrongLayout: the file is laid out otherwise, or its votes are not those that are known.
    """
    records = PreferenceFile(str(folder / FILE)).records()
    found = votes_sha256(records)
    if found != VOTES_SHA256:
        raise WrongLayout(f"{FILE}: the votes have SHA-256 {found}, not {VOTES_SHA256}")
    return rows(records)


def votes_sha256(records: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of the votes alone, as sorted JSON lines with sorted keys.

    Raises:
        WrongLayout: a column is missing.
    """
    votes = [{name: entry(record, name) for name in _VOTE} for record in records]
    votes.sort(key=lambda vote: tuple(vote[name] for name in _ORDER))
    lines = (json.dumps(vote, sort_keys=True, separators=(",", ":")) + "\n" for vote in votes)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def rows(records: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Choices of judges with at least five; a question is on one side of the split with both its turns.

    Raises:
        WrongLayout: a column or a turn is missing, or a question or a winner is unknown.
    """
    return finished(NAME, _judgements(records), MIN_CHOICES)


def _judgements(records: Iterable[Mapping[str, Any]]) -> Iterator[Judgement]:
    for record in records:
        question, turn, winner = (entry(record, name) for name in ("question_id", "turn", "winner"))
        where = f"question {question}, turn {turn}"
        decade = (question - 81) // 10
        if winner.startswith("tie"):
            continue
        if winner not in ("model_a", "model_b") or turn not in (1, 2) or decade not in range(len(CATEGORIES)):
            raise WrongLayout(f"{where}: winner {winner!r:.40}; unknown question, turn or winner")
        models = {side: entry(record, f"model_{side}") for side in "ab"}
        texts = {side: _response(entry(record, f"conversation_{side}"), turn, where) for side in "ab"}
        won = winner.removeprefix("model_")
        lost = "b" if won == "a" else "a"
        yield Judgement(
            person=entry(record, "judge"),
            pair=f"{NAME}:{question}:{turn}:{'|'.join(sorted(models.values()))}",
            domain=CATEGORIES[decade],
            split=side_of(NAME, str(question)),
            prompt=tidy(record["conversation_a"][0]["content"]),
            chosen=texts[won],
            rejected=texts[lost],
            labels={"turn": turn, "chosen_model": models[won], "rejected_model": models[lost]},
        )


def _response(conversation: Sequence[Mapping[str, str]], turn: int, where: str) -> str:
    """The answer to the first question; in turn 2 with the rest of the conversation."""
    if [message["role"] for message in conversation[: 2 * turn]] != ["user", "assistant"] * turn:
        raise WrongLayout(f"{where}: no conversation of {turn} turns of user and assistant")
    contents = [tidy(message["content"]) for message in conversation]
    if turn == 1:
        return contents[1]
    return f"{contents[1]}\n\nUser: {contents[2]}\n\nAssistant: {contents[3]}"
