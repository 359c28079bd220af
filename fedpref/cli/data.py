"""``fedpref data``: what a model will see of the data before it is trained, and sets published by others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["as_text", "get_set", "inspect_words"]

SHOWN_CLIENTS = 10
SHOWN_CHARS = 400


def inspect_words(words: Sequence[str]) -> dict[str, Any]:
    """Figures of the rows, and of the clients that partition and split make of them.

    Args:
        words: a file first, if it does not contain ``=``; then ``key=value`` words as for ``run``.

    Raises:
        ConfigurationError: a word or the data is wrong.
    """
    from fedpref.cli.build import check_config, population_from
    from fedpref.cli.compose import compose, parse_words, plain
    from fedpref.cli.targets import ALLOWED, build, working_folder_importable
    from fedpref.data.inspection import inspect
    from fedpref.data.synthetic import Synthetic

    if words and "=" not in words[0] and not words[0].startswith("-"):
        path = words[0].replace("'", r"\'")
        words = ["data=jsonl", f"data.path='{path}'", *words[1:]]
    parsed = parse_words(words)
    config = plain(compose(parsed.all_overrides))
    with working_folder_importable(parsed.allow):
        check_config(config, parsed.allow)
        source = build(config["data"], "data", (*ALLOWED, *parsed.allow))
        population = population_from(config, parsed.allow)
    figures: dict[str, Any] = {}
    if not isinstance(source, Synthetic):
        figures = dataclasses.asdict(inspect(source.rows()))
    sizes = {shard.name: len(shard.pairs) for shard in population.shards}
    first = [shard.pairs.take([0]) for shard in population.shards[:3]]
    if "examples" not in figures and first[0].is_text:
        figures["examples"] = [
            {
                "client": shard.name,
                "topic": pairs.topics[0],
                "prompt": pairs.prompts[0],
                "chosen": pairs.chosen[0],
                "rejected": pairs.rejected[0],
            }
            for shard, pairs in zip(population.shards, first, strict=False)
        ]
    figures["training"] = {"num_clients": len(sizes), "num_pairs": sum(sizes.values()), "pairs": sizes}
    asked = {held_out.name: len(held_out.pairs) for held_out in population.held_out}
    figures["held_out"] = {"num_people": len(asked), "num_pairs": sum(asked.values()), "pairs": asked}
    figures["notes"] = list(population.notes)
    return figures


def get_set(name: str, to: Path | None, accept: str | None) -> None:
    """Fetch and convert a published set; what happens is printed, a line each.

    Raises:
        ConfigurationError: no such set, or its originals cannot be trusted.
        StorageError: they cannot be fetched or written.
    """
    from fedpref.data.originals import get

    path = get(name, to, accept)
    print(f"next  fedpref data inspect {path}")


def as_text(figures: Mapping[str, Any]) -> str:
    """The figures as a page of text."""
    lines = []
    if "source" in figures:
        formats = ", ".join(f"{name} ({count})" for name, count in figures["formats"].items())
        lines += [
            f"{figures['source']}",
            f"  {figures['num_rows']} rows, {figures['num_pairs']} distinct pairs, "
            f"{figures['num_texts']} distinct responses; format: {formats}",
            f"  rows a client, quantiles 0/10/25/50/75/90/100 %: {_numbers(figures['rows_per_client'])}",
            f"  characters a response, same quantiles: {_numbers(figures['response_chars'])}",
            f"  chosen is the longer response: {figures['chosen_is_longer']:.1%}",
            f"  dropped: {_counts(figures['dropped']) or 'nothing'}",
        ]
    for side, who in (("training", "clients"), ("held_out", "people")):
        part = figures[side]
        biggest = sorted(part["pairs"].items(), key=lambda item: (-item[1], item[0]))
        more = f", … {len(biggest) - SHOWN_CLIENTS} more" if len(biggest) > SHOWN_CLIENTS else ""
        lines.append(f"{side.replace('_', '-')}: {part['num_pairs']} pairs of {part[f'num_{who}']} {who}")
        lines.append("  " + ", ".join(f"{name} {count}" for name, count in biggest[:SHOWN_CLIENTS]) + more)
    lines += [f"note: {note}" for note in figures["notes"]]
    for number, example in enumerate(figures.get("examples", []), 1):
        lines.append(f"--- pair {number}, judged by {example['client']}" + _topic(example["topic"]))
        lines += [f"{part:>8} | {_shortened(example[part])}" for part in ("prompt", "chosen", "rejected")]
    return "\n".join(lines)


def _topic(topic: str) -> str:
    return f", topic {topic}" if topic else ""


def _shortened(text: str) -> str:
    cut = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]} … ({len(text)} characters)"
    return cut.replace("\n", "\n         | ")


def _numbers(values: Sequence[float]) -> str:
    return " / ".join(f"{value:g}" for value in values)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
