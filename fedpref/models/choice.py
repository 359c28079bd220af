"""How a language model is asked to choose: a template with both responses, and two tokens as answers.

Nothing here knows a task: template and choices come from the configuration. What is asked always ends with
the template's cue, and each choice is exactly one token there, whatever the tokenizer.

Source: Wu et al. 2024, arXiv:2407.03038 (both responses in one prompt, the logits of two choice tokens).
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from fedpref.errors import ConfigurationError, did_you_mean
from fedpref.models.transformer import Checkpoint, load_tokenizer

__all__ = ["GENERIC", "SLOTS", "both_texts", "check_choices", "check_template", "choice_tokens", "fill"]

SLOTS = ("prompt", "response_a", "response_b")

GENERIC = """\
Here are two responses to the same input. Decide which one is better.

Input: {prompt}

Response A: {response_a}

Response B: {response_b}

Better response:"""


def check_template(template: str) -> None:
    """Check that a template has its three slots, no others, and a cue after the last.

    Raises:
        ConfigurationError: it has not; the message names the slot.
    """
    try:
        fields = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(
            f"client.template: {error}; a brace that is no slot is written twice"
        ) from error
    found = [
        name + (f"!{how}" if how else "") + (f":{spec}" if spec else "")
        for _, name, spec, how in fields
        if name is not None
    ]
    wanted = ", ".join(f"{{{slot}}}" for slot in SLOTS)
    for slot in SLOTS:
        if slot not in found:
            raise ConfigurationError(f"client.template: the slot {{{slot}}} is missing; it needs {wanted}")
    for name in found:
        if name not in SLOTS:
            raise ConfigurationError(
                f"client.template: {{{name}}} is no slot; it needs {wanted}.{did_you_mean(name, SLOTS)}"
            )
    if fields[-1][1] is not None:
        raise ConfigurationError(
            f"client.template: it ends with {{{fields[-1][1]}}}; end it with a cue for the answer, such as "
            "'Better response:'"
        )


def check_choices(choices: Sequence[str]) -> None:
    """Check that there are two choices that differ.

    Raises:
        ConfigurationError: there are not.
    """
    if len(choices) != 2 or choices[0] == choices[1] or not all(choice.strip() for choice in choices):
        raise ConfigurationError(
            f"client.choices: {list(choices)} must be two different words, such as [' A', ' B']"
        )


def fill(template: str, prompt: str, response_a: str, response_b: str) -> str:
    """The template with its slots filled."""
    return template.format(prompt=prompt, response_a=response_a, response_b=response_b)


def choice_tokens(checkpoint: Checkpoint, template: str, choices: Sequence[str]) -> tuple[int, int]:
    """Token ids of the two choices right after the template's cue.

    A choice is the literal text that follows, its leading space included: the ids of cue and choice
    together must be those of the cue and one more.

    Raises:
        ConfigurationError: a choice is not one known token there, both are the same one, or not even the
            empty template fits into ``max_tokens``.
    """
    tokenizer = load_tokenizer(checkpoint)
    asked, _ = both_texts(checkpoint, template, "", "", "")
    before = tokenizer(asked)["input_ids"]
    if tokenizer.eos_token_id is not None and before[-1:] == [tokenizer.eos_token_id]:
        raise ConfigurationError(
            f"backbone.model: the tokenizer of '{checkpoint.model}' ends every text with "
            f"'{tokenizer.eos_token}', so no answer can follow; use a model whose tokenizer does not"
        )
    first, second = (_one_token(tokenizer, checkpoint.model, asked, before, choice) for choice in choices)
    if first == second:
        raise ConfigurationError(
            f"client.choices: {choices[0]!r} and {choices[1]!r} coincide for '{checkpoint.model}': both are "
            f"token {tokenizer.convert_ids_to_tokens(first)!r} ({first}); choose others"
        )
    return first, second


def _one_token(tokenizer: Any, model: str, asked: str, before: list[int], choice: str) -> int:
    ids = tokenizer(asked + choice)["input_ids"]
    if ids[:-1] == before and ids[-1] != tokenizer.unk_token_id:
        return int(ids[-1])
    same = takewhile(lambda pair: pair[0] == pair[1], zip(before, ids, strict=False))
    tokens = tokenizer.convert_ids_to_tokens(ids[len(list(same)) :])
    raise ConfigurationError(
        f"client.choices: {choice!r} must be one known token of '{model}' after {asked[-20:]!r}, but it is "
        f"{tokens}; choose another, with or without a leading space"
    )


def both_texts(
    checkpoint: Checkpoint, template: str, prompt: str, first: str, second: str
) -> tuple[str, str]:
    """What the model reads: the template with ``first`` in slot A, and with ``second`` in slot A.

    Where either is longer than ``max_tokens``, prompt and responses keep at most their first c characters
    each, in both orders, with the largest c that fits: the longest of the three is cut first, the template
    and its cue never.

    Raises:
        ConfigurationError: not even the empty template fits.
    """
    parts = (prompt, first, second)
    tokenizer = load_tokenizer(checkpoint)

    def texts(limit: int) -> tuple[str, str]:
        x, a, b = (part[:limit] for part in parts)
        return fill(template, x, a, b), fill(template, x, b, a)

    def fits(limit: int) -> bool:
        batch = tokenizer(list(texts(limit)), truncation=True, max_length=checkpoint.max_tokens + 1)
        return max(map(len, batch["input_ids"])) <= checkpoint.max_tokens

    too_long = max(map(len, parts))
    if fits(too_long):
        return texts(too_long)
    limit = 0
    if not fits(limit):
        raise ConfigurationError(
            f"backbone.max_tokens: {checkpoint.max_tokens} is too few for client.template alone; raise it"
        )
    while too_long - limit > 1:
        middle = (limit + too_long) // 2
        limit, too_long = (middle, too_long) if fits(middle) else (limit, middle)
    return texts(limit)
