"""The text form: phrases, extractors, realisation and the data card."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from fedpref.data.synthetic.attributes import ATTRIBUTES, MARKERS, measure, measure_all
from fedpref.data.synthetic.calibration import calibrate, calibration
from fedpref.data.synthetic.candidates import draw_candidates
from fedpref.data.synthetic.grammar import draw_plans, write_responses
from fedpref.data.synthetic.pairing import MODES
from fedpref.data.synthetic.phrases import phrases
from fedpref.seeds import generator

BANKS = phrases()
LEXICAL = [ATTRIBUTES.index(name) for name in ATTRIBUTES if name not in ("length", "bullets")]


def raw(text: str) -> dict[str, float]:
    return dict(zip(ATTRIBUTES, measure(text), strict=True))


def marked(text: str) -> set[str]:
    """Attributes other than length and bullets that a text shows."""
    values = measure(text)
    return {ATTRIBUTES[column] for column in LEXICAL if values[column] != 0.0}


def test_each_extractor_counts_what_its_name_says() -> None:
    text = (
        "Moreover, it works [7]. Perhaps not (haha)! Really? 🙂\n- You must try.\n- For example, this [12]."
    )
    found = raw(text)
    sentences = 5
    assert found["length"] == math.log(13)
    assert found["formality"] == 1 / 3
    assert found["citations"] == 2 / sentences
    assert found["bullets"] == 2 / sentences
    for once in ("hedging", "humour", "questions", "emoji", "directness", "examples"):
        assert found[once] == 1 / sentences, once
    assert found["technical"] == found["empathy"] == 0.0


def test_formality_is_the_balance_of_both_registers() -> None:
    assert raw("Moreover, yes. Therefore, no. Anyway, well.")["formality"] == (2 - 1) / (2 + 1 + 2)


def test_markers_count_as_whole_words_in_any_case() -> None:
    assert raw("MAYBE so.")["hedging"] == 1.0
    assert raw("A puny mustard tablecloth.")["humour"] == raw("A mustard.")["directness"] == 0.0


def test_an_empty_text_has_finite_attributes() -> None:
    assert measure("") == [0.0] * len(ATTRIBUTES)


def test_decimals_do_not_end_sentences() -> None:
    assert raw("Use 2.5 litres, perhaps.")["hedging"] == 1.0


def test_markers_belong_to_one_attribute_each() -> None:
    words = " ".join(MARKERS.values()).split()
    assert len(words) == len(set(words))


def test_sentences_about_a_topic_carry_no_attribute() -> None:
    for topic in BANKS.topics:
        for phrase in (*topic.subjects, *topic.predicates, *topic.tails):
            assert marked(f"{phrase}.") == set(), phrase


def test_every_remark_carries_exactly_its_own_attribute() -> None:
    banks = {
        "technical": [line for topic in BANKS.topics for line in topic.technical],
        "examples": [
            f"{opener}, {line}."
            for topic in BANKS.topics
            for line in topic.examples
            for opener in BANKS.openers
        ],
        "empathy": BANKS.empathy,
        "directness": BANKS.direct,
        "questions": BANKS.questions,
        "humour": [f"So it goes {joke}." for joke in BANKS.jokes],
        "emoji": [f"So it goes. {sign}" for sign in BANKS.emoji],
        "hedging": [f"It {hedge} works." for hedge in BANKS.hedges],
        "formality": [f"{word}, it works." for word in (*BANKS.formal, *BANKS.informal)],
    }
    for name, lines in banks.items():
        for line in lines:
            assert marked(line) == {name}, line
            assert abs(raw(line)[name]) == (1 / 3 if name == "formality" else 1.0), line


def test_banks_have_prime_lengths_so_that_strides_visit_every_phrase() -> None:
    banks = [BANKS.formal, BANKS.informal, BANKS.hedges, BANKS.empathy, BANKS.direct, BANKS.questions]
    banks += [BANKS.jokes, BANKS.emoji]
    banks += [
        bank
        for topic in BANKS.topics
        for bank in (topic.subjects, topic.predicates, topic.tails, topic.technical, topic.examples)
    ]
    for bank in banks:
        assert len(set(bank)) == len(bank)
        assert len(bank) in (3, 5, 7, 11, 13)


def test_no_sentence_about_the_topic_repeats_within_a_response() -> None:
    # Subjects and predicates have different prime lengths, so their combinations repeat after 143 lines.
    assert all(len(topic.subjects) != len(topic.predicates) for topic in BANKS.topics)


def test_responses_are_well_formed_prose() -> None:
    rng = generator(0, "test")
    plans = 1.5 * draw_plans(200, rng)
    for text in write_responses(plans, [row % 8 for row in range(200)], rng):
        assert "  " not in text and "{" not in text and "\0" not in text
        for line in filter(None, text.split("\n")):
            assert re.match(r"(- )?[A-Z]", line), line
        assert not re.search(r"[a-z] [.,?]|\.\.", text)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_higher_plan_raises_its_attribute(name: str) -> None:
    means = []
    for level in (-2.0, 2.0):
        plans = np.zeros((40, len(ATTRIBUTES)))
        plans[:, ATTRIBUTES.index(name)] = level
        texts = write_responses(plans, [row % 8 for row in range(40)], generator(0, "test", name))
        means.append(measure_all(texts)[:, ATTRIBUTES.index(name)].mean())
    assert means[1] > means[0]


@pytest.mark.parametrize("mode", MODES)
def test_psi_is_what_the_extractors_find_in_the_text(mode: str) -> None:
    candidates = draw_candidates("text", np.arange(8), mode, 12, 0, generator(0, "test"))
    card = calibration()
    for texts, psi in ((candidates.first, candidates.psi_first), (candidates.second, candidates.psi_second)):
        expected = (np.array([measure(text) for text in texts]) - card.mean) / np.array(card.sd)
        np.testing.assert_array_equal(psi, np.clip(expected, -4.0, 4.0))


@pytest.mark.slow
def test_the_data_card_is_what_calibration_finds() -> None:
    stored, fresh = calibration(), calibrate()
    np.testing.assert_allclose(stored.mean, fresh.mean, rtol=1e-9)
    np.testing.assert_allclose(stored.sd, fresh.sd, rtol=1e-9)
    for mode in MODES:
        np.testing.assert_allclose(stored.delta_covariance[mode], fresh.delta_covariance[mode], rtol=1e-7)


@pytest.mark.slow
def test_measured_attributes_follow_the_plan_and_are_nearly_uncorrelated() -> None:
    rng = generator(1, "test")
    plans = draw_plans(6000, rng)
    texts = write_responses(plans, rng.integers(8, size=6000).tolist(), rng)
    psi = calibration().standardise(measure_all(texts))
    follows = [np.corrcoef(np.clip(plans[:, k], -2.5, 2.5), psi[:, k])[0, 1] for k in range(12)]
    assert min(follows) > 0.57 and max(follows) < 0.95
    correlation = np.corrcoef(psi, rowvar=False)
    assert np.abs(correlation - np.eye(12)).max() < 0.26
    assert np.linalg.cond(correlation) < 9.0
    words = np.array([len(text.split()) for text in texts])
    assert 140 < np.median(words) < 190
    assert len(set(texts)) == len(texts)
