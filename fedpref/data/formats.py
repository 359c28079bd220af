"""One row of the TRL preference formats becomes three texts: prompt, chosen, rejected.

Four forms are read, row by row: explicit prompt (a ``prompt`` column) or implicit prompt (what
``chosen`` and ``rejected`` begin with alike), each as plain text or as a conversation, a list of
``{"role": …, "content": …}``.

A conversation is written out by one plain template: every turn is ``Role: content``, turns are
separated by an empty line, and an opening turn whose role is understood (the user's in a prompt, the
assistant's in a response) stands bare. So the same question and answer give the same texts, plain or
conversational. A tokenizer's own chat template is a matter of the backbones.

Source: TRL documentation, "Dataset formats and types", preference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

__all__ = ["BadRow", "TextPair", "Turn", "read_row", "render", "shared_prefix_length", "shared_turns"]


class Turn(NamedTuple):
    """One message of a conversation."""

    role: str
    content: str


class TextPair(NamedTuple):
    """A preference as three texts, and the form in which it was found."""

    prompt: str
    chosen: str
    rejected: str
    form: str


class BadRow(ValueError):
    """A row that cannot be used: the reason, a few words that count alike rows, and the mend."""

    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(f"{reason}; {mend}")
        self.reason = reason
        self.mend = mend


_Side: TypeAlias = str | tuple[Turn, ...]

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_TWO_TEXTS = "give two different, non-empty responses"
_A_PROMPT = "add a 'prompt' column, '' where there is no prompt"


def read_row(row: Mapping[str, object]) -> TextPair:
    """The texts of one row.

    A ``prompt`` counts as explicit unless it is plain text beside whole conversations, which repeat it.

    Raises:
        BadRow: a response is missing, empty or no text, both are equal but for white space, or they
            begin differently where the prompt should be.
    """
    chosen, rejected = _side(row, "chosen"), _side(row, "rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise BadRow("one of chosen and rejected is text, the other a conversation", "give both in one form")
    if chosen == rejected:
        raise BadRow("chosen and rejected are equal", _TWO_TEXTS)
    talk = "text" if isinstance(chosen, str) else "conversation"

    if _has_explicit_prompt(row, chosen):
        prompt, form = _side(row, "prompt", may_be_empty=True), f"explicit prompt, {talk}"
    else:
        prompt, chosen, rejected = _extract_prompt(chosen, rejected)
        form = f"implicit prompt, {talk}"

    pair = TextPair(_text(prompt, "user"), _text(chosen, "assistant"), _text(rejected, "assistant"), form)
    if pair.chosen.strip() == pair.rejected.strip():
        raise BadRow("chosen and rejected are equal", _TWO_TEXTS)
    return pair


def render(turns: Sequence[Turn], understood: str) -> str:
    """Turns as text; an opening turn of the role ``understood`` carries no label."""
    labelled = [f"{turn.role.capitalize()}: {turn.content}" for turn in turns]
    if turns and turns[0].role == understood:
        labelled[0] = turns[0].content
    return "\n\n".join(labelled)


def shared_prefix_length(chosen: str, rejected: str) -> int:
    """Length of the longest common prefix that ends with a word in both texts and leaves both a response.

    White space after the prefix goes to the responses, so prefix and response make the text again.

    Returns:
        Number of characters; 0 if there is no such prefix.
    """
    shorter = min(len(chosen), len(rejected))
    shared = next((i for i in range(shorter) if chosen[i] != rejected[i]), shorter)
    for end in range(shared, 0, -1):
        if (
            _word_ends(chosen, end)
            and _word_ends(rejected, end)
            and chosen[end:].strip()
            and rejected[end:].strip()
        ):
            return end
    return 0


def shared_turns(chosen: Sequence[Turn], rejected: Sequence[Turn]) -> int:
    """Number of turns that both conversations begin with, leaving each at least one turn."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    return shared


def _word_ends(text: str, end: int) -> bool:
    return end < len(text) and text[end].isspace() and not text[end - 1].isspace()


def _has_explicit_prompt(row: Mapping[str, object], chosen: _Side) -> bool:
    prompt = row.get("prompt")
    whole_conversation = not isinstance(chosen, str) and chosen[0].role != "assistant"
    return prompt is not None and not (isinstance(prompt, str) and whole_conversation)


def _extract_prompt(chosen: _Side, rejected: _Side) -> tuple[_Side, _Side, _Side]:
    if isinstance(chosen, str) and isinstance(rejected, str):
        end = shared_prefix_length(chosen, rejected)
    elif isinstance(chosen, tuple) and isinstance(rejected, tuple):
        end = shared_turns(chosen, rejected)
    else:
        raise TypeError("both sides must have one form")
    if end == 0:
        raise BadRow("chosen and rejected share no prompt", _A_PROMPT)
    return chosen[:end], chosen[end:], rejected[end:]


def _side(row: Mapping[str, object], name: str, may_be_empty: bool = False) -> _Side:
    value = row.get(name)
    if value is None:
        raise BadRow(f"{name} is missing", _TWO_TEXTS)
    if isinstance(value, str):
        side: _Side = value
    else:
        side = _turns(value, name)
    said = side if isinstance(side, str) else "".join(turn.content for turn in side)
    if not said.strip() and not may_be_empty:
        raise BadRow(f"{name} is empty", _TWO_TEXTS)
    if _LONE_SURROGATE.search(said):
        raise BadRow(f"{name} holds half a character (a lone surrogate)", "write valid Unicode")
    return side


def _turns(value: object, name: str) -> tuple[Turn, ...]:
    turns = []
    for message in value if isinstance(value, Sequence) else [value]:
        role, content = (
            (message.get("role"), message.get("content")) if isinstance(message, Mapping) else (None, None)
        )
        if not isinstance(role, str) or not isinstance(content, str):
            raise BadRow(
                f"{name} is neither text nor a conversation",
                'write a string or a list of {"role": "user", "content": "…"}',
            )
        turns.append(Turn(role, content))
    return tuple(turns)


def _text(side: _Side, understood: str) -> str:
    return side if isinstance(side, str) else render(side, understood)
