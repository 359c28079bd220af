"""``fedpref tune``: which options serve people best on training pairs held out; test pairs are never seen.

Trials run one after another, each proposed by all before it (``propose``), each a run with some options more.
So a search that was killed goes on to the very trials of one that was not.
"""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpref.cli.propose import Tried, propose, require_optuna
from fedpref.cli.space import Dimension, Point, check_keys, overrides, read_space, split_words
from fedpref.cli.trials import Trial, opened, read_trial, write_trial
from fedpref.errors import ConfigurationError, FederationError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from fedpref.federation.federation import Federation
    from fedpref.types import Population

__all__ = ["as_text", "tune_words"]

_UNIMPORTANT = ("name", "out", "checkpoint")  # trials write no run directory


def tune_words(
    words: Sequence[str],
    storage: Path,
    num_trials: int = 30,
    space_file: Path | None = None,
    allow: Sequence[str] = (),
    config_dirs: Sequence[str] = (),
) -> dict[str, Any]:
    """Search, or go on with a search; print a line for each trial.

    Args:
        words: those of ``fedpref run``, and options to search (``space``).
        storage: folder of the search, which remembers every trial that has ended.
        num_trials: trials in all, those of before with them; fewer where a finite space has fewer points.
        space_file: YAML with further options to search.
        allow: further packages of classes.
        config_dirs: folders with further groups.

    Returns:
        All trials, the best, and the command that runs its options: as in ``tune.json``.

    Raises:
        ConfigurationError: a word is wrong, Optuna is not installed, or the folder holds another search.
        FederationError: every trial failed.
        StorageError: the folder is in use, damaged or not writable.
    """
    from fedpref.cli.targets import working_folder_importable
    from fedpref.report.storage import write_json

    if num_trials < 1:
        raise ConfigurationError(f"--trials {num_trials} must be at least 1")
    space, rest = split_words(words)
    space += read_space(space_file) if space_file is not None else []
    check_keys(space, rest)
    require_optuna()
    flags = [word for package in allow for word in ("--allow", package)]
    flags += [word for folder in config_dirs for word in ("--config-dir", folder)]
    with working_folder_importable(allow):
        search = _search_of(space, [*flags, *rest], allow)
        with opened(storage, _study(search)):
            trials = _trials(search, storage, num_trials)
            result = _result(search, trials)
            write_json(storage / "tune.json", result)
    return result


def as_text(result: Mapping[str, Any]) -> str:
    """The trials as a table, the best first, and what to type next."""
    keys = list(result["best"]["point"])
    table = [["trial", "user accuracy", "95 % interval", *keys]]
    for row in sorted(result["trials"], key=_rank):
        accuracy, interval = "failed", ""
        if row["user_accuracy"] is not None:
            accuracy = f"{row['user_accuracy']:.4f}"
        if "low" in row:
            interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        table.append([str(row["trial"]), accuracy, interval, *(str(row["point"][key]) for key in keys)])
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
    best, asked = result["best"], result["validation"]
    return "\n".join(
        [
            *lines,
            *(f"note  trial {row['trial']}: {row['error']}" for row in result["trials"] if row["error"]),
            f"best  trial {best['trial']}: user accuracy {best['user_accuracy']:.4f} on {asked['pairs']} "
            f"validation pairs of {asked['people']} people",
            "note  the best of many is a little lucky; test pairs, which no trial has seen, judge the run",
            f"run   {result['command']}",
        ]
    )


@dataclass(frozen=True, eq=False)
class _Search:
    """What is searched.

    Attributes:
        space: options and the values that they may take.
        words: of every trial, flags included.
        allow: further packages of classes.
        population: the same of every trial; the features of its pairs are computed once.
        config: that of the first point.
    """

    space: Sequence[Dimension]
    words: tuple[str, ...]
    allow: tuple[str, ...]
    population: Population
    config: DictConfig

    def command(self, point: Point) -> str:
        """What runs a point, on all training pairs and judged by the test pairs."""
        return shlex.join(["fedpref", "run", *self.words, *overrides(point)])


def _composed(words: Sequence[str]) -> DictConfig:
    from fedpref.cli.build import check_config
    from fedpref.cli.compose import compose, parse_words, plain

    parsed = parse_words(words)
    config = compose(parsed.all_overrides)
    check_config(plain(config), parsed.allow)
    return config


def _search_of(space: Sequence[Dimension], words: Sequence[str], allow: Sequence[str]) -> _Search:
    """The search, after a rehearsal of all values: a wrong one is named before hours are spent on others."""
    from fedpref.cli.choice import population_for_choice
    from fedpref.cli.compose import plain

    config = _composed([*words, *overrides(next(_sampled(space)))])
    population = population_for_choice(plain(config), allow)
    search = _Search(space, tuple(words), tuple(allow), population, config)
    for point in _sampled(space):
        _rehearsed(search, point)
    return search


def _sampled(space: Sequence[Dimension]) -> Iterator[Point]:
    """Points with each sample of each option at least once."""
    first = {dimension.key: dimension.samples[0] for dimension in space}
    for dimension in space:
        for value in dimension.samples if dimension is space[0] else dimension.samples[1:]:
            yield {**first, dimension.key: value}


def _rehearsed(search: _Search, point: Point) -> Federation:
    """The federation of a point, whose parts have not refused each other."""
    from fedpref.cli.build import federation_from
    from fedpref.cli.compose import plain

    words = overrides(point)
    try:
        config = plain(_composed([*search.words, *words]))
        federation = federation_from(config, search.allow, search.population)
        federation.rehearse()
    except ConfigurationError as error:
        raise ConfigurationError(f"{' '.join(words)}: {error}") from error
    return federation


def _study(search: _Search) -> dict[str, Any]:
    """What decides the numbers of a search."""
    from omegaconf import OmegaConf

    from fedpref.cli.identity import source_sha256
    from fedpref.report.provenance import versions

    # Interpolations stay as they are written, so that no value of the environment reaches a file.
    written = OmegaConf.to_container(search.config, resolve=False)
    assert isinstance(written, dict)
    people = search.population
    return {
        "command": ["fedpref", "tune", *search.words, *map(str, search.space)],
        "space": [str(dimension) for dimension in search.space],
        "config": {name: value for name, value in written.items() if name not in _UNIMPORTANT},
        "inputs": _inputs(search),
        "source_sha256": source_sha256(),
        "clients": len(people),
        "training_pairs": sum(len(shard.pairs) for shard in people.shards),
        "validation_pairs": sum(len(asked.pairs) for asked in people.held_out),
        "versions": {**versions(), "optuna": str(require_optuna().__version__)},
    }


def _inputs(search: _Search) -> dict[str, str]:
    """Digests of what the first point names outside itself, and of what others name instead of it."""
    from fedpref.cli.compose import plain
    from fedpref.cli.identity import inputs_sha256

    found: dict[str, str] = {}
    for point in _sampled(search.space):
        config = plain(_composed([*search.words, *overrides(point)]))
        parts = {name: value for name, value in config.items() if name not in _UNIMPORTANT}
        for key, sha256 in inputs_sha256(parts).items():
            if found.setdefault(key, sha256) != sha256:
                found[f"{' '.join(overrides(point))}: {key}"] = sha256
    return found


def _trials(search: _Search, storage: Path, num_trials: int) -> list[Trial]:
    """All trials in order: those that are kept, and those that are missing."""
    keys = [dimension.key for dimension in search.space]
    trials: list[Trial] = []
    while len(trials) < num_trials:
        number = len(trials) + 1
        trial = read_trial(storage, number, keys)
        if trial is None:
            tried = [Tried(trial.point, trial.user_accuracy) for trial in trials]
            point = propose(search.space, tried, int(search.config.seed))
            if point is None:
                print(f"all {len(trials)} points were tried")
                break
            try:
                trial = _tried(search, number, point)
            except KeyboardInterrupt:
                print("fedpref: interrupted; go on with the same command", file=sys.stderr)
                raise
            write_trial(storage, trial)
        trials.append(trial)
        print(_line(trial, num_trials), flush=True)
    return trials


def _tried(search: _Search, number: int, point: Point) -> Trial:
    """Run a point; a federation that breaks down, as with too large steps, is a result too."""
    began_s = time.monotonic()
    federation = _rehearsed(search, point)
    try:
        result = federation.run()
    except FederationError as error:
        return Trial(number=number, point=point, wall_s=time.monotonic() - began_s, error=str(error))
    figures = dict(result.evaluation.aggregate)
    return Trial(
        number=number,
        point=point,
        user_accuracy=figures["user_accuracy"],
        figures=figures,
        curve=tuple(
            (record["round"], record["evaluation"]["user_accuracy"])
            for record in result.history
            if "evaluation" in record
        ),
        wall_s=time.monotonic() - began_s,
    )


def _line(trial: Trial, num_trials: int) -> str:
    outcome = "failed" if trial.user_accuracy is None else f"user accuracy {trial.user_accuracy:.4f}"
    return f"trial {trial.number:>3}/{num_trials}  {outcome}  {' '.join(overrides(trial.point))}"


def _result(search: _Search, trials: Sequence[Trial]) -> dict[str, Any]:
    """What came of a search; nothing in it depends on when or how often it was interrupted."""
    finished = [trial for trial in trials if trial.user_accuracy is not None]
    if not finished:
        raise FederationError(f"all {len(trials)} trials failed; the first: {trials[0].error}")
    best = min(finished, key=lambda trial: _rank(_row(trial)))
    return {
        "trials": [_row(trial) for trial in trials],
        "best": _row(best),
        "command": search.command(best.point),
        "validation": {
            "people": len(search.population.held_out),
            "pairs": sum(len(asked.pairs) for asked in search.population.held_out),
        },
    }


def _rank(row: Mapping[str, Any]) -> tuple[float, int]:
    """The best first, the failed last, of equals the earliest."""
    accuracy = row["user_accuracy"]
    return math.inf if accuracy is None else -accuracy, row["trial"]


def _row(trial: Trial) -> dict[str, Any]:
    row = {
        "trial": trial.number,
        "point": dict(trial.point),
        "user_accuracy": trial.user_accuracy,
        "error": trial.error,
    }
    for end in ("low", "high"):
        if (value := trial.figures.get(f"user_accuracy_{end}")) is not None:
            row[end] = value
    return row
