"""The phrase banks: eight topics, and the remarks that carry one attribute each.

Every bank has a prime length, so that any stride visits all of its phrases before one repeats. A
remark carries exactly one marker word of its attribute, and the topics' own sentences carry none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

__all__ = ["Phrases", "Topic", "phrases"]


@dataclass(frozen=True)
class Topic:
    """What can be said about one topic: "subject predicate tail." is a sentence.

    Attributes:
        name: label of the topic.
        goals: what a prompt asks for, after "how do I".
        subjects: singular noun phrases in lower case.
        predicates: what such a subject does, third person.
        tails: circumstances that close a sentence.
        technical: whole sentences with one technical term each.
        examples: clauses that follow "for example,".
    """

    name: str
    goals: tuple[str, ...]
    subjects: tuple[str, ...]
    predicates: tuple[str, ...]
    tails: tuple[str, ...]
    technical: tuple[str, ...]
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Phrases:
    """All banks.

    Attributes:
        topics: the topics, in the order of their index.
        frames: prompts with the slots ``{goal}`` and ``{constraint}``.
        constraints: what makes a prompt's goal harder; one is empty.
        formal: connectives of the formal register.
        informal: connectives of the informal register.
        hedges: adverbs that stand before a predicate.
        empathy: whole sentences of sympathy.
        direct: whole sentences of command.
        questions: whole questions to the reader.
        openers: what introduces an example.
        jokes: asides in brackets.
        emoji: single characters.
    """

    topics: tuple[Topic, ...]
    frames: tuple[str, ...]
    constraints: tuple[str, ...]
    formal: tuple[str, ...]
    informal: tuple[str, ...]
    hedges: tuple[str, ...]
    empathy: tuple[str, ...]
    direct: tuple[str, ...]
    questions: tuple[str, ...]
    openers: tuple[str, ...]
    jokes: tuple[str, ...]
    emoji: tuple[str, ...]


@cache
def phrases() -> Phrases:
    """The banks of ``phrases.json``, read once."""
    table = json.loads(resources.files(__package__).joinpath("phrases.json").read_text("utf-8"))
    topics = [{key: _bank(value) for key, value in topic.items()} for topic in table.pop("topics")]
    banks = {key: _bank(value) for key, value in table.items()}
    return Phrases(topics=tuple(Topic(**topic) for topic in topics), **banks)


def _bank(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
