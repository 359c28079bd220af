"""Rows of every preference form become three texts."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedpref.data.formats import BadRow, Turn, read_row, render, shared_prefix_length, shared_turns

WORDS = st.lists(st.sampled_from(["blue", "black", "bl", "sky", "är", "天空"]), min_size=1, max_size=4)
TEXTS = st.text(alphabet="ab \n", max_size=12)
TURNS = st.lists(st.builds(Turn, st.sampled_from(["user", "assistant"]), st.sampled_from("xyz")), max_size=5)


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why blue?", "chosen": "Air.", "rejected": "Paint."},
        {
            "prompt": [user("Why blue?")],
            "chosen": [assistant("Air.")],
            "rejected": [assistant("Paint.")],
        },
        {
            "chosen": [user("Why blue?"), assistant("Air.")],
            "rejected": [user("Why blue?"), assistant("Paint.")],
        },
        {"prompt": "Why blue?", "chosen": [assistant("Air.")], "rejected": [assistant("Paint.")]},
        {"prompt": [user("Why blue?")], "chosen": "Air.", "rejected": "Paint."},
        {
            "prompt": "Why blue?",
            "chosen": [user("Why blue?"), assistant("Air.")],
            "rejected": [user("Why blue?"), assistant("Paint.")],
        },
    ],
)
def test_one_question_gives_the_same_texts_in_every_form(row: dict[str, object]) -> None:
    assert read_row(row)[:3] == ("Why blue?", "Air.", "Paint.")


def test_the_form_names_where_the_prompt_was_and_what_the_responses_are() -> None:
    explicit = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    implicit = {"chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")]}

    assert read_row(explicit).form == "explicit prompt, text"
    assert read_row(implicit).form == "implicit prompt, conversation"


def test_an_implicit_prompt_ends_with_a_word() -> None:
    pair = read_row({"chosen": "The sky is blue.", "rejected": "The sky is black."})

    assert pair[:3] == ("The sky is", " blue.", " black.")


def test_later_turns_are_labelled_and_an_understood_opening_turn_is_not() -> None:
    turns = [Turn("user", "Q1"), Turn("assistant", "A1"), Turn("user", "Q2")]

    assert render(turns, "user") == "Q1\n\nAssistant: A1\n\nUser: Q2"
    assert render(turns[1:], "assistant") == "A1\n\nUser: Q2"
    assert render([Turn("system", "Be brief."), *turns[:1]], "user") == "System: Be brief.\n\nUser: Q1"


def test_a_response_may_span_several_turns() -> None:
    first, rest = [user("Q1")], [user("Q2"), assistant("A2")]
    row = {"chosen": [*first, assistant("A1"), *rest], "rejected": [*first, assistant("B1"), *rest]}

    pair = read_row(row)

    assert pair.prompt == "Q1"
    assert pair.chosen == "A1\n\nUser: Q2\n\nAssistant: A2"
    assert pair.rejected == "B1\n\nUser: Q2\n\nAssistant: A2"


def test_an_explicit_empty_prompt_is_no_prompt_and_no_error() -> None:
    assert read_row({"prompt": "", "chosen": "same start A", "rejected": "same start B"}).prompt == ""


@given(TEXTS, TEXTS)
def test_a_shared_prefix_is_shared_whole_words_and_leaves_two_responses(chosen: str, rejected: str) -> None:
    end = shared_prefix_length(chosen, rejected)

    assert chosen[:end] == rejected[:end]
    if end:
        assert chosen[:end].split() == chosen.split()[: len(chosen[:end].split())]
        assert rejected[:end].split() == rejected.split()[: len(rejected[:end].split())]
        assert not chosen[end - 1].isspace()
        assert chosen[end:].strip()
        assert rejected[end:].strip()


@given(WORDS, WORDS, WORDS)
def test_a_prefix_of_words_is_found_whole(prompt: list[str], chosen: list[str], rejected: list[str]) -> None:
    assume(chosen[0] != rejected[0])
    start = " ".join(prompt)

    end = shared_prefix_length(f"{start} {' '.join(chosen)}", f"{start} {' '.join(rejected)}")

    assert end == len(start)


@given(TEXTS, TEXTS)
def test_the_shared_prefix_does_not_depend_on_which_side_is_chosen(chosen: str, rejected: str) -> None:
    assert shared_prefix_length(chosen, rejected) == shared_prefix_length(rejected, chosen)


@given(TURNS, TURNS)
def test_shared_turns_are_the_longest_that_leave_a_turn_on_each_side(
    chosen: list[Turn], rejected: list[Turn]
) -> None:
    shared = shared_turns(chosen, rejected)

    longest = max(n for n in range(6) if chosen[:n] == rejected[:n] and n <= min(len(chosen), len(rejected)))
    assert shared == max(0, min(longest, len(chosen) - 1, len(rejected) - 1))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "Yes.", "rejected": "No."}, "chosen and rejected share no prompt"),
        (
            {"chosen": [user("Q"), assistant("A")], "rejected": [user("R"), assistant("A")]},
            "chosen and rejected share no prompt",
        ),
        ({"prompt": "Q", "chosen": "A", "rejected": "A "}, "chosen and rejected are equal"),
        ({"chosen": "Q A", "rejected": "Q A"}, "chosen and rejected are equal"),
        ({"prompt": "Q", "chosen": " \n", "rejected": "A"}, "chosen is empty"),
        ({"prompt": "Q", "chosen": "A", "rejected": []}, "rejected is empty"),
        (
            {"prompt": "Q", "chosen": "\ud83d", "rejected": "A"},
            "chosen holds half a character (a lone surrogate)",
        ),
        ({"prompt": "Q", "chosen": "A", "rejected": None}, "rejected is missing"),
        ({"prompt": "Q", "chosen": 3, "rejected": "A"}, "chosen is neither text nor a conversation"),
        (
            {"prompt": "Q", "chosen": [{"role": "user", "content": ["image"]}], "rejected": "A"},
            "chosen is neither text nor a conversation",
        ),
        (
            {"prompt": "Q", "chosen": [assistant("A")], "rejected": "B"},
            "one of chosen and rejected is text, the other a conversation",
        ),
        (
            {"prompt": {"role": "user"}, "chosen": "A", "rejected": "B"},
            "prompt is neither text nor a conversation",
        ),
    ],
)
def test_a_row_that_cannot_be_used_says_why(row: dict[str, object], reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        read_row(row)

    assert caught.value.reason == reason
    assert caught.value.mend
