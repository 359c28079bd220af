"""``fedpref adapt RUN [FILE]``: new people get a part of their own on a trained run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpref.errors import ConfigurationError

if TYPE_CHECKING:
    from fedpref.cli.trained import TrainedRun
    from fedpref.data.rows import Rows
    from fedpref.types import HeldOut, Population

__all__ = ["adapt_run", "as_text"]


def adapt_run(
    directory: Path,
    file: Path | None = None,
    words: Sequence[str] = (),
    held_out: float = 0.3,
    resamples: int = 10,
    reference: Path | None = None,
    allow: Sequence[str] = (),
) -> dict[str, Any]:
    """Adapt a run to new people, and ask each about pairs that they did not show.

    The shared weights stay as they are. Rows of a file are split by pair, as the file says or else at random;
    of the pairs that are not held out a person shows more and more, at last all.

    Args:
        directory: the run.
        file: preference rows of people who are no clients of the run; such people are left out. None takes
            the unseen people of the run's own population (``data.unseen``).
        words: ``data.OPTION=VALUE`` words for reading the file.
        held_out: share of the pairs to hold out where the rows carry no split.
        resamples: shuffles of what is shown.
        reference: another run, whose model as it is should be beaten; by default that of ``directory``.
        allow: further packages of classes.

    Returns:
        The curve (``fedpref.evaluation.few_shot``), with the model that is not adapted as its reference.

    Raises:
        CheckpointError: a run has no valid checkpoint.
        ConfigurationError: the run's rule is not personal, it has no text backbone, the file cannot be
            read as preference rows, or there is nobody to adapt to.
    """
    from fedpref.cli.trained import load_run
    from fedpref.evaluation.few_shot import SHOT_COUNTS, few_shot, newcomers
    from fedpref.evaluation.personal import shared_accuracies
    from fedpref.flower.fence import rng_fence
    from fedpref.seeds import number
    from fedpref.types import Personal

    for name, value, is_right, need in (
        ("held-out", held_out, 0.0 < held_out < 1.0, "between 0 and 1"),
        ("resamples", resamples, resamples >= 1, "at least 1"),
    ):
        if not is_right:
            raise ConfigurationError(f"--{name} {value} must be {need}")
    run = load_run(directory, allow, reads_text=file is not None)
    if not isinstance(run.rule, Personal):
        raise ConfigurationError(
            f"{run.path}: its clients ({type(run.rule).__name__}) have no personal part that could adapt; "
            "train a run with a personal client rule (fedpref config ls client), or use fedpref eval"
        )
    if file is None:
        population, notes = _own_newcomers(run, words, allow)
    else:
        population, notes = _newcomers_of(file, words, run, held_out)
    beaten = None
    if reference is not None:
        other = load_run(reference, allow, reads_text=file is not None)
        asked = newcomers(population)
        with rng_fence(number(other.seed, "fence", "reference")):
            beaten = shared_accuracies(other.rule, other.strategy, other.state, population, asked)
        notes = [*notes, f"The model that is not adapted is that of {other.path}, round {other.round}."]
    most = max(len(population.held_out[index].shots or ()) for index in newcomers(population))
    counts = [*(count for count in SHOT_COUNTS if count < most), most]
    model = (run.rule, run.strategy, run.state)
    with rng_fence(number(run.seed, "fence", "few_shot")):
        curve = few_shot(*model, population, run.seed, beaten, counts=counts, resamples=resamples)
    return {
        **curve.as_json(),
        "run": str(run.path),
        "file": None if file is None else str(file),
        "round": run.round,
        "num_people": len(curve.names),
        "num_asked_pairs": sum(len(population.held_out[index].pairs) for index in newcomers(population)),
        "notes": [*notes, *run.warnings],
    }


def as_text(result: Mapping[str, Any]) -> str:
    """The curve as a table."""
    lines = [
        f"{result['file'] or 'unseen people of the run'}: {result['num_people']} people, "
        f"{result['num_asked_pairs']} pairs held out, model of round {result['round']}",
        f"  not adapted: accuracy {result['reference']:.3f}, mean over people",
        "  pairs shown   accuracy     gain   95 % interval",
    ]
    for point in result["points"]:
        interval = f"[{point['gain_low']:+.3f}, {point['gain_high']:+.3f}]" if "gain_low" in point else "-"
        lines.append(
            f"  {point['shots']:>11}   {point['accuracy']:>8.3f}   {point['gain']:>+6.3f}   {interval}"
        )
    k_star = result["k_star"]
    if result["num_people"] > 1:
        lines.append(
            "  no number of pairs is surely better than the model that is not adapted"
            if k_star is None
            else f"  k* = {k_star}: the fewest pairs surely better than the model that is not adapted"
        )
    return "\n".join([*lines, *(f"  note: {note}" for note in result["notes"])])


def _own_newcomers(
    run: TrainedRun, words: Sequence[str], allow: Sequence[str]
) -> tuple[Population, list[str]]:
    """The population that the run trained on; its notes are in the run's report."""
    from fedpref.cli.build import population_from
    from fedpref.evaluation.few_shot import newcomers

    if words:
        raise ConfigurationError(f"'{words[0]}' is about a file of rows, but none is given")
    population = population_from(run.config, allow)
    if not newcomers(population):
        raise ConfigurationError(
            f"{run.path}: its population has no unseen people; give a file of preference rows, or train on "
            "data=synthetic with data.unseen=30"
        )
    return population, []


def _newcomers_of(
    file: Path, words: Sequence[str], run: TrainedRun, held_out: float
) -> tuple[Population, list[str]]:
    """The people of a file who are no clients of the run, and notes."""
    from fedpref.cli.evaluate import file_options
    from fedpref.cli.targets import build
    from fedpref.types import Population

    rows = build(file_options(file, words), "data").rows()
    people, notes = _split(rows, set(run.clients), held_out, run.seed)
    return Population([], people), [*rows.notes, *notes]


def _split(rows: Rows, clients: set[str], held_out: float, seed: int) -> tuple[list[HeldOut], list[str]]:
    """Everybody who is no client, with pairs to ask and pairs to show, and notes about who is left out."""
    from fedpref.data.dealing import by_person
    from fedpref.data.split import PairSplit
    from fedpref.types import HeldOut

    is_asked = PairSplit(held_out).is_held_out(rows, seed)
    people, known, one_sided = [], [], []
    for name, numbers in by_person(rows):
        asked, shown = numbers[is_asked[numbers]], numbers[~is_asked[numbers]]
        if name in clients:
            known.append(name)
        elif not len(asked) or not len(shown):
            one_sided.append(name)
        else:
            people.append(HeldOut(name, None, rows.take(asked).pairs, rows.take(shown).pairs))
    if not people:
        why = "nobody has both pairs to show and pairs held out; give more pairs or another --held-out"
        if known and not one_sided:
            why = "all its people are clients of the run, whom fedpref eval serves"
        raise ConfigurationError(f"{rows.source}: there is nobody to adapt to: {why}")
    notes = []
    if known:
        notes.append(f"Clients of the run, left out: {len(known)} ({', '.join(known[:5])}).")
    if one_sided:
        some = ", ".join(one_sided[:5])
        notes.append(f"Left out, without pairs on both sides of the split: {len(one_sided)} ({some}).")
    return people, notes
