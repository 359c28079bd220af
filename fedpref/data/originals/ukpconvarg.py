"""ukpconvarg: crowd workers chose the more convincing of two arguments for the same stance.

Source: I. Habernal and I. Gurevych 2016, ACL P16-1150; UKPConvArg1-full-XML, one file a debate and stance.
No author of an argument, no stance or reason of a worker is carried over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from fedpref.data.formats import TextPair
from fedpref.data.originals.rows import Judgement, Row, finished, side_of, tidy
from fedpref.data.published import WrongLayout
from fedpref.data.rows import text_pair_id

__all__ = ["DEBATES", "MIN_CHOICES", "ArgumentPair", "argument_pairs", "read", "rows"]

NAME = "ukpconvarg"
MIN_CHOICES = 10
DEBATES = (
    "ban-plastic-water-bottles_no-bad-for-the-economy",
    "ban-plastic-water-bottles_yes-emergencies-only",
    "christianity-or-atheism-_atheism",
    "christianity-or-atheism-_christianity",
    "evolution-vs-creation_creation",
    "evolution-vs-creation_evolution",
    "firefox-vs-internet-explorer_it-has-a-cute-logo-oh-and-extensions-err-add-ons",
    "firefox-vs-internet-explorer_there-s-more-browsers-than-the-ie-firefox-is-an-animal",
    "gay-marriage-right-or-wrong_allowing-gay-marriage-is-right",
    "gay-marriage-right-or-wrong_allowing-gay-marriage-is-wrong",
    "human-growth-and-development-should-parents-use-spanking-as-an-option-to-discipline-_no",
    "human-growth-and-development-should-parents-use-spanking-as-an-option-to-discipline-_yes",
    "if-your-spouse-committed-murder-and-he-or-she-confided-in-you-would-you-turn-them-in-_no",
    "if-your-spouse-committed-murder-and-he-or-she-confided-in-you-would-you-turn-them-in-_yes",
    "india-has-the-potential-to-lead-the-world-_no-against",
    "india-has-the-potential-to-lead-the-world-_yes-for",
    "is-the-school-uniform-a-good-or-bad-idea-_bad",
    "is-the-school-uniform-a-good-or-bad-idea-_good",
    "personal-pursuit-or-advancing-the-common-good-_advancing-the-comnong-good",  # spelt so
    "personal-pursuit-or-advancing-the-common-good-_personal-pursuit",
    "pro-choice-vs-pro-life_pro-choice",
    "pro-choice-vs-pro-life_pro-life",
    "should-physical-education-be-mandatory-in-schools-_no-",
    "should-physical-education-be-mandatory-in-schools-_yes-",
    "tv-is-better-than-books_books",
    "tv-is-better-than-books_tv",
    "william-farquhar-ought-to-be-honoured-as-the-rightful-founder-of-singapore_no-it-is-raffles-",
    "william-farquhar-ought-to-be-honoured-as-the-rightful-founder-of-singapore_yes-of-course-",
)
"""All files but those of the two debates on pornography."""


class ArgumentPair(NamedTuple):
    """Two arguments and what workers said of them: pairs of a worker's id and ``a1``, ``a2`` or ``equal``."""

    id: str
    title: str
    stance: str
    first: str
    second: str
    votes: tuple[tuple[str, str], ...]


def read(folder: Path) -> list[Row]:
    """The rows of the originals in a folder.

    Raises:
        WrongLayout: a file is laid out otherwise.
    """
    return rows({debate: argument_pairs(folder / f"{debate}.xml") for debate in DEBATES})


def argument_pairs(path: Path) -> list[ArgumentPair]:
    """The pairs of one debate and stance.

    Raises:
        WrongLayout: no XML, or an element is missing.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise WrongLayout(f"{path.name}: no XML ({error})") from None
    try:
        return [_argument_pair(pair) for pair in root.iter("annotatedArgumentPair")]
    except WrongLayout as error:
        raise WrongLayout(f"{path.name}: {error}") from None


def rows(debates: Mapping[str, Iterable[ArgumentPair]]) -> list[Row]:
    """Choices of workers with at least ten over all debates.

    Raises:
        WrongLayout: a vote is none of ``a1``, ``a2`` and ``equal``.
    """
    return finished(NAME, _judgements(debates), MIN_CHOICES)


def _judgements(debates: Mapping[str, Iterable[ArgumentPair]]) -> Iterator[Judgement]:
    for debate, pairs in debates.items():
        for pair in pairs:
            prompt = f"Debate: {tidy(pair.title)}\nStance: {tidy(pair.stance)}"
            prompt += "\nGive a convincing argument for this stance."
            texts = {"a1": tidy(pair.first), "a2": tidy(pair.second)}
            split = side_of(NAME, text_pair_id(TextPair(prompt, texts["a1"], texts["a2"], form="")))
            for worker, vote in pair.votes:
                if vote == "equal":
                    continue
                if vote not in texts:
                    raise WrongLayout(f"{debate}.xml, {pair.id}: value is {vote!r:.40}, not a1, a2 or equal")
                other = "a2" if vote == "a1" else "a1"
                source_id = f"ukp:{debate}:{pair.id}"
                yield Judgement(worker, source_id, debate, split, prompt, texts[vote], texts[other])


def _argument_pair(pair: ElementTree.Element) -> ArgumentPair:
    return ArgumentPair(
        id=_text(pair, "id"),
        title=_text(pair, "debateMetaData/title"),
        stance=_text(pair, "arg1/stance"),
        first=_text(pair, "arg1/text"),
        second=_text(pair, "arg2/text"),
        votes=tuple(
            (_text(vote, "turkID"), _text(vote, "value"))
            for vote in pair.iterfind("mTurkAssignments/mTurkAssignment")
        ),
    )


def _text(element: ElementTree.Element, path: str) -> str:
    found = element.findtext(path)
    if found is None:
        raise WrongLayout(f"<{element.tag}> {element.findtext('id') or ''} has no <{path}>")
    return found.strip()
