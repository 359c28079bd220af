"""Plans become prose: a vector of intended attributes is realised as an English response.

A response is a few paragraphs about its topic, some lines as bullets, with remarks put in between
and asides hung on. Realisation is random: the plan shifts rates, and the attributes that count are
measured afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np

from fedpref.data.synthetic.attributes import ATTRIBUTES
from fedpref.data.synthetic.pairing import second_plan
from fedpref.data.synthetic.phrases import Topic, phrases
from fedpref.seeds import generator

__all__ = ["draw_plans", "write_pairs", "write_prompts", "write_responses"]

_NUM_STYLES = 6
_STYLE_SD = 0.6
_PLAN_SD = 0.8
_PLAN_CORRELATION = 0.2
_PLAN_LIMIT = 2.5
_STYLE_SEED = 7768  # among many tried, one that leaves little correlation between measured attributes
_CONNECTIVE_RATE = 0.7
_TAIL_RATE = 0.6
_REMARKS = ("technical", "empathy", "examples", "directness", "questions")
_ASIDES = ("humour", "citations", "emoji")
_REFERENCES = range(1, 30)

T = TypeVar("T")

_AT = {name: column for column, name in enumerate(ATTRIBUTES)}
_COUNTED = [_AT[name] for name in _REMARKS + _ASIDES]


class _Outline(NamedTuple):
    """How one response is to be: three rates a line, and counts of remarks and asides in their order."""

    num_lines: int
    formal: float
    hedged: float
    bulleted: float
    counts: list[int]


Draw = Callable[[], float]
"""The next uniform number in [0, 1)."""


@cache
def _style_means() -> np.ndarray:
    """Mean plan of each style policy, shape (6, 12); each attribute has mean 0 and sd 0.6 over policies."""
    rng = generator(_STYLE_SEED, "synthetic", "styles")
    means = rng.standard_normal((_NUM_STYLES, len(ATTRIBUTES)))
    standard: np.ndarray = (means - means.mean(axis=0)) / means.std(axis=0)
    return _STYLE_SD * standard


def draw_plans(num_plans: int, rng: np.random.Generator) -> np.ndarray:
    """Intended attributes, shape (num_plans, 12), roughly standard normal each, not yet clipped."""
    styles = rng.integers(_NUM_STYLES, size=num_plans)
    own = rng.standard_normal((num_plans, len(ATTRIBUTES)))
    shared = rng.standard_normal((num_plans, 1))
    noise = math.sqrt(1.0 - _PLAN_CORRELATION) * own + math.sqrt(_PLAN_CORRELATION) * shared
    plans: np.ndarray = _style_means()[styles] + _PLAN_SD * noise
    return plans


def write_pairs(
    topics: Sequence[int], mode: str, rng: np.random.Generator
) -> tuple[list[str], list[str], list[str]]:
    """A prompt and two responses for each topic index, paired by ``mode``."""
    num_pairs = len(topics)
    first = draw_plans(num_pairs, rng)
    second = second_plan(first, draw_plans(num_pairs, rng), mode)
    responses = [write_responses(plans, topics, rng) for plans in (first, second)]
    return write_prompts(topics, rng), responses[0], responses[1]


def write_prompts(topics: Sequence[int], rng: np.random.Generator) -> list[str]:
    """One prompt for each topic index."""
    banks = phrases()
    prompts = []
    for topic, draws in zip(topics, rng.random((len(topics), 3)).tolist(), strict=True):
        slots = (banks.topics[topic].goals, banks.constraints, banks.frames)
        goal, constraint, frame = (bank[int(u * len(bank))] for bank, u in zip(slots, draws, strict=True))
        prompts.append(frame.format(goal=goal, constraint=constraint))
    return prompts


def write_responses(plans: np.ndarray, topics: Sequence[int], rng: np.random.Generator) -> list[str]:
    """One response for each plan.

    Args:
        plans: intended attributes, shape (num_texts, 12); clipped to ±2.5 here.
        topics: topic index of each text.
        rng: the draws of all these texts.
    """
    plans = np.clip(plans, -_PLAN_LIMIT, _PLAN_LIMIT)
    lines = np.maximum(3, np.round(8.0 * np.exp(0.45 * plans[:, _AT["length"]]))).astype(int)
    counts = rng.poisson(lines[:, None] * np.maximum(0.0, 0.2 + 0.18 * plans[:, _COUNTED]))
    formal = 1.0 / (1.0 + np.exp(-1.6 * plans[:, _AT["formality"]]))
    hedged = np.clip(0.3 + 0.25 * plans[:, _AT["hedging"]], 0.0, 0.9)
    bulleted = np.clip(0.3 + 0.25 * plans[:, _AT["bullets"]], 0.0, 0.95)
    columns = [column.tolist() for column in (lines, formal, hedged, bulleted, counts)]
    draw = _uniforms(rng).__next__
    topic_of = phrases().topics
    return [
        _write(topic_of[topic], _Outline(*row), draw)
        for topic, row in zip(topics, zip(*columns, strict=True), strict=True)
    ]


def _write(topic: Topic, outline: _Outline, draw: Draw) -> str:
    banks = phrases()
    prose, bullets = _topic_lines(topic, outline, draw)
    remarks = (topic.technical, banks.empathy, _example_lines(topic, draw), banks.direct, banks.questions)
    for bank, count in zip(remarks, outline.counts[: len(remarks)], strict=True):
        for remark in _walk(bank, count, draw):
            prose.insert(int(draw() * (len(prose) + 1)), remark)
    jokes, citations, emoji = outline.counts[len(remarks) :]
    lines = prose + bullets
    references = [f"[{number}]" for number in _walk(_REFERENCES, citations, draw)]
    for aside in (*_walk(banks.jokes, jokes, draw), *references):
        at = int(draw() * len(lines))
        lines[at] = f"{lines[at][:-1]} {aside}{lines[at][-1]}"
    for sign in _walk(banks.emoji, emoji, draw):
        lines[int(draw() * len(lines))] += f" {sign}"
    return _lay_out(lines[: len(prose)], lines[len(prose) :])


def _topic_lines(topic: Topic, outline: _Outline, draw: Draw) -> tuple[list[str], list[str]]:
    """Sentences about the topic: those of the paragraphs, with connectives, and those of the list."""
    banks = phrases()
    prose: list[str] = []
    bullets: list[str] = []
    hedges = _walk(banks.hedges, outline.num_lines, draw)
    informal, formal = (_walk(bank, outline.num_lines, draw) for bank in (banks.informal, banks.formal))
    slots = (_walk(bank, outline.num_lines, draw) for bank in (topic.subjects, topic.predicates, topic.tails))
    for subject, predicate, tail in zip(*slots, strict=True):
        hedge = f"{next(hedges)} " if draw() < outline.hedged else ""
        circumstance = f" {tail}" if draw() < _TAIL_RATE else ""
        sentence = f"{subject} {hedge}{predicate}{circumstance}."
        if draw() < outline.bulleted:
            bullets.append(_capital(sentence))
        elif prose and draw() < _CONNECTIVE_RATE:
            connective = next(formal if draw() < outline.formal else informal)
            prose.append(_capital(f"{connective}, {sentence}"))
        else:
            prose.append(_capital(sentence))
    return prose, bullets


def _example_lines(topic: Topic, draw: Draw) -> list[str]:
    opener = phrases().openers[int(draw() * 2)]
    return [f"{opener}, {example}." for example in topic.examples]


def _lay_out(prose: list[str], bullets: list[str]) -> str:
    """Two paragraphs with the list between them; one if there is no list."""
    if not bullets:
        return " ".join(prose)
    half = (len(prose) + 1) // 2
    blocks = (" ".join(prose[:half]), "\n".join(f"- {line}" for line in bullets), " ".join(prose[half:]))
    return "\n\n".join(block for block in blocks if block)


def _walk(bank: Sequence[T], count: int, draw: Draw) -> Iterator[T]:
    """The first ``count`` phrases of a random stride through a bank of prime length."""
    size = len(bank)
    at = int(draw() * size)
    step = 1 + int(draw() * (size - 1))
    for _ in range(count):
        yield bank[at]
        at = (at + step) % size


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _uniforms(rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield from rng.random(4096).tolist()
