"""``fedpref eval RUN FILE``: a trained run on other preference rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpref.errors import ConfigurationError, did_you_mean

__all__ = ["as_text", "evaluate_run", "file_options"]


def evaluate_run(
    directory: Path, file: Path, words: Sequence[str] = (), allow: Sequence[str] = ()
) -> dict[str, Any]:
    """Accuracy of a run on the rows of a file.

    People of the run, known by name, are served their own models; others are newcomers. Where the rule is
    personal known people get their own part too, from what they trained on and what they kept.

    Args:
        directory: the run.
        file: preference rows.
        words: ``data.OPTION=VALUE`` words for reading the file.
        allow: further packages of classes.

    Raises:
        CheckpointError: the run has no valid checkpoint.
        ConfigurationError: the file cannot be read as preference rows, the run has no text backbone, or its
            rule is personal and what it trained on has changed.
        StorageError: what the clients kept cannot be read.
    """
    from fedpref.cli.targets import build
    from fedpref.cli.trained import clients_states, load_run, training_shards
    from fedpref.data.assembly import held_out_people
    from fedpref.evaluation.evaluate import evaluate
    from fedpref.flower.fence import rng_fence
    from fedpref.seeds import generator, number
    from fedpref.types import Personal, Population, Shard

    run = load_run(directory, allow)
    rows = build(file_options(file, words), "data").rows()
    people = held_out_people(rows, {name: client_id for client_id, name in enumerate(run.clients)})
    nothing = people[0].pairs.take([])
    shards: Sequence[Shard] = [Shard(i, name, nothing) for i, name in enumerate(run.clients)]
    if isinstance(run.rule, Personal):
        shards = training_shards(run, allow)
    population, rng = Population(shards, people), generator(run.seed, "eval")
    with clients_states(run) as kept, rng_fence(number(run.seed, "fence", "eval")):
        result = evaluate(run.rule, run.strategy, run.state, population, rng, kept)
    strangers = sum(user.client_id is None for user in result.users)
    notes = list(rows.notes)
    if strangers and isinstance(run.rule, Personal):
        notes.append(
            f"Newcomers, {strangers}, have shown no pairs: they get what the population's prior gives; "
            "fedpref adapt fits them a part of their own."
        )
    return {
        **result.aggregate,
        "run": str(run.path),
        "file": str(file),
        "round": run.round,
        "num_pairs": sum(user.num_pairs for user in result.users),
        "known_clients": sum(user.client_id is not None for user in result.users),
        "newcomers": strangers,
        "users": [user.as_row() for user in result.users],
        "notes": [*notes, *run.warnings],
    }


def as_text(result: Mapping[str, Any]) -> str:
    """Key numbers as lines."""
    interval = ""
    if "pair_accuracy_low" in result:
        interval = f" [{result['pair_accuracy_low']:.3f}, {result['pair_accuracy_high']:.3f}]"
    lines = [
        f"{result['file']}: {result['num_pairs']} pairs of {result['known_clients']} known clients "
        f"and {result['newcomers']} newcomers, model of round {result['round']}",
        f"  pair accuracy {result['pair_accuracy']:.3f}{interval}",
        f"  user accuracy {result['user_accuracy']:.3f}   worst decile {result['worst_decile']:.3f}   "
        f"loss {result['loss']:.3f} nats",
    ]
    if "personal_gain" in result:
        lines.append(
            f"  known clients gain {result['personal_gain']:+.3f} by their own part over "
            f"{result['shared_accuracy']:.3f}; harmed {result['harmed']:.0%}"
        )
    return "\n".join([*lines, *(f"  note: {note}" for note in result["notes"])])


def file_options(file: Path, words: Sequence[str]) -> dict[str, Any]:
    """The source of a file of preference rows, with ``data.client_column=x`` as {"client_column": "x"}.

    Raises:
        ConfigurationError: a word is of another form.
    """
    from omegaconf import OmegaConf

    for word in words:
        if not word.startswith("data.") or "=" not in word:
            mend = did_you_mean(f"data.{word.partition('=')[0]}", ["data.client_column", "data.bad_rows"])
            raise ConfigurationError(f"'{word}' is not of the form data.OPTION=VALUE.{mend}")
    container = OmegaConf.to_container(OmegaConf.from_dotlist(list(words)))
    assert isinstance(container, dict)
    return {"_target_": "fedpref.data.sources.PreferenceFile", "path": str(file), **container.get("data", {})}
