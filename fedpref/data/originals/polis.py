"""polis: people agreed and disagreed with opinions in eleven public consultations in English.

No direct comparisons: a person's agreed and disagreed opinions are matched at random, each vote used at
most once. The prompt is a short question after the conversation's own topic.

Source: github.com/compdemocracy/openData, ``comments.csv`` and ``participants-votes.csv`` of each folder.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpref.data.originals.rows import Judgement, Row, finished, side_of, tidy
from fedpref.data.published import WrongLayout, entry
from fedpref.data.rows import TEST, TRAIN
from fedpref.seeds import generator

__all__ = ["CONVERSATIONS", "MAX_PAIRS", "MIN_PAIRS", "Conversation", "opinions", "read", "rows"]

NAME = "polis"
MIN_PAIRS = 6
MAX_PAIRS = {TRAIN: 16, TEST: 6}
"""Of one person, by side of the split."""

MIN_CHARS, MAX_CHARS = 20, 500
_AGREE, _DISAGREE = "1", "-1"
_REACHABLE = re.compile(r"https?:|www\.|\w@\w|\d{3}[-. ]?\d{3}[-. ]?\d{4}")  # web, mail, phone


@dataclass(frozen=True)
class Conversation:
    """A consultation: its folder in the repository, our name of it, and what it asks."""

    folder: str
    domain: str
    question: str


CONVERSATIONS = (
    Conversation(
        "15-per-hour-seattle",
        "15-per-hour-seattle",
        "How will the $15/hour minimum wage law affect Seattle?",
    ),
    Conversation(
        "american-assembly.bowling-green",
        "american-assembly.bowling-green",
        "What should change in Bowling Green/Warren County to make it a better place to live, "
        "work and spend time?",
    ),
    Conversation(
        "bg2050-volunteers",
        "bg2050-volunteers",
        "What should Bowling Green, Kentucky be like in 2050?",
    ),
    Conversation("brexit-consensus", "brexit-consensus", "Can there be consensus on Brexit?"),
    Conversation(
        "canadian-electoral-reform",
        "canadian-electoral-reform",
        "How should Canada reform its electoral system?",
    ),
    Conversation(
        "scoop-hivemind.affordable-housing",
        "scoop-hivemind.affordable-housing",
        "How can housing in New Zealand be made affordable?",
    ),
    Conversation(
        "scoop-hivemind.biodiversity",
        "scoop-hivemind.biodiversity",
        "How should New Zealand protect and restore its biodiversity?",
    ),
    Conversation(
        "scoop-hivemind.freshwater",
        "scoop-hivemind.freshwater",
        "How should New Zealand improve its freshwater quality?",
    ),
    Conversation(
        "scoop-hivemind.taxes",
        "scoop-hivemind.taxes",
        "How should New Zealand change its tax system?",
    ),
    Conversation(
        "scoop-hivemind.ubi",
        "scoop-hivemind.ubi",
        "Should Aotearoa New Zealand have a universal basic income?",
    ),
    Conversation(
        "ssis.land-bank-farmland.2rumnecbeh.2021-08-01",
        "ssis.land-bank-farmland",
        "How should the Land Bank handle land use and conservation in the San Juan Islands?",
    ),
)


def read(folder: Path) -> list[Row]:
    """The rows of the originals in a folder.

    Raises:
        WrongLayout: a file is laid out otherwise.
    """
    judgements: list[Judgement] = []
    for conversation in CONVERSATIONS:
        tables = []
        for name in ("comments.csv", "participants-votes.csv"):
            with (folder / conversation.folder / name).open(encoding="utf-8", newline="") as file:
                tables.append(list(csv.DictReader(file)))
        try:
            judgements += _judgements(conversation, *tables)
        except WrongLayout as error:
            raise WrongLayout(f"{conversation.folder}: {error}") from None
    return finished(NAME, judgements, MIN_PAIRS)


def rows(
    conversation: Conversation, comments: Iterable[Mapping[str, Any]], people: Iterable[Mapping[str, Any]]
) -> list[Row]:
    """Pairs of the people of one conversation who have at least six.

    Args:
        conversation: which.
        comments: ``comment-id``, ``moderated``, ``comment-body``.
        people: ``participant``, ``n-agree``, ``n-disagree``, and a column a comment: 1 agree, -1 disagree,
            0 pass, or empty.

    Raises:
        WrongLayout: a column is missing, or 1 does not mean agree.
    """
    return finished(NAME, _judgements(conversation, comments, people), MIN_PAIRS)


def opinions(comments: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Texts by id: let pass by the moderators, neither short nor long, with no address or phone number.

    Raises:
        WrongLayout: a column is missing.
    """
    texts = {
        entry(comment, "comment-id"): tidy(entry(comment, "comment-body"))
        for comment in comments
        if entry(comment, "moderated") == "1"
    }
    return {
        number: text
        for number, text in texts.items()
        if MIN_CHARS <= len(text) <= MAX_CHARS and not _REACHABLE.search(text)
    }


def _judgements(
    conversation: Conversation, comments: Iterable[Mapping[str, Any]], people: Iterable[Mapping[str, Any]]
) -> Iterator[Judgement]:
    texts = opinions(comments)
    # By text, so that opinions with the same words lie on the same side, in all conversations.
    sides = {number: side_of(NAME, text) for number, text in texts.items()}
    prompt = f"Public consultation: {conversation.question}\nState an opinion."
    table = list(people)
    _check_signs(table)
    for person in table:
        participant = str(entry(person, "participant"))
        for side, most in MAX_PAIRS.items():
            rng = generator(0, NAME, conversation.domain, participant, side)
            votes = {number: person.get(number) for number in texts if sides[number] == side}
            agreed, disagreed = (
                rng.permutation(sorted((n for n, vote in votes.items() if vote == wanted), key=int)).tolist()
                for wanted in (_AGREE, _DISAGREE)
            )
            for yes, no in list(zip(agreed, disagreed, strict=False))[:most]:
                low, high = sorted((yes, no), key=int)
                yield Judgement(
                    person=f"{conversation.domain}:{participant}",
                    pair=f"{NAME}:{conversation.domain}:{low}-{high}",
                    domain=conversation.domain,
                    split=side,
                    prompt=prompt,
                    chosen=texts[yes],
                    rejected=texts[no],
                )


def _check_signs(people: Iterable[Mapping[str, Any]]) -> None:
    """Exports of Polis have had both signs; the counts beside the votes tell which."""
    ones = agreed = disagreed = 0
    for person in people:
        ones += sum(vote == _AGREE for name, vote in person.items() if str(name).isdecimal())
        agreed += int(entry(person, "n-agree"))
        disagreed += int(entry(person, "n-disagree"))
    if abs(ones - agreed) > abs(ones - disagreed):
        raise WrongLayout(f"{ones} votes are 1, but n-agree adds up to {agreed}: 1 does not mean agree here")
