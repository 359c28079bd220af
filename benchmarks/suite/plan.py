"""Which runs a tier of a suite is: every method on every data set with every seed, options chosen before."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from fedpref.benchmarks.suite.choice import Choices
from fedpref.benchmarks.suite.declared import DataSet, Method, Suite, Tier
from fedpref.benchmarks.suite.job import Job
from fedpref.errors import ConfigurationError

__all__ = ["TRIAL_SEED", "applies", "runs", "trials"]

FindFile = Callable[[str], str]
"""Path of the file of a set of real annotators."""

TRIAL_SEED = 1_000_000
"""Of the trials: no run of a tier has it, so no choice is made on a population that is reported."""


def applies(data: DataSet, method: Method) -> bool:
    """False where a method is to be told groups that nobody knows."""
    return method.told_groups is None or data.file is None


def trials(suite: Suite, tier: Tier, find: FindFile, flags: Sequence[str] = ()) -> list[Job]:
    """A run of every setting of each grid, on training pairs alone; one seed a method and data set.

    Raises:
        ConfigurationError: a file has no split of its own: one that is drawn would be another for every seed,
            so that trials would see pairs that runs of other seeds are tested on.
    """
    for name in tier.data:
        file = suite.data[name].file
        if file is not None:
            _check_split(name, find(file))
    return [
        _job(suite, tier, data, method, setting, TRIAL_SEED, True, find, flags)
        for data, method in _pairs(suite, tier)
        for setting in method.grid
        if len(method.grid) > 1
    ]


def runs(suite: Suite, tier: Tier, choices: Choices, find: FindFile, flags: Sequence[str] = ()) -> list[Job]:
    """Every method with the options that were chosen for it.

    Raises:
        ConfigurationError: nothing was chosen yet for a method with a grid.
    """
    return [
        _job(suite, tier, data, method, choices.setting(suite, data, method), seed, False, find, flags)
        for data, method in _pairs(suite, tier)
        for seed in tier.seeds
    ]


def _pairs(suite: Suite, tier: Tier) -> list[tuple[DataSet, Method]]:
    both = itertools.product(tier.data, tier.methods)
    found = [(suite.data[data], suite.method(method)) for data, method in both]
    return [(data, method) for data, method in found if applies(data, method)]


def _job(
    suite: Suite,
    tier: Tier,
    data: DataSet,
    method: Method,
    setting: Sequence[str],
    seed: int,
    is_trial: bool,
    find: FindFile,
    flags: Sequence[str],
) -> Job:
    path = (f"data.path={find(data.file)}",) if data.file is not None else ()
    # The later word wins: a data set may need fewer rounds than its tier, a method may train nothing.
    words = (*flags, *suite.words, *tier.words, *data.words, *path, *method.words, *setting, f"seed={seed}")
    if method.told_groups is not None:
        groups = _hidden_groups(words)
        words = (*words, f"{method.told_groups}=[{','.join(map(str, groups))}]")
    return Job(suite.name, data.name, method.name, tuple(setting), seed, is_trial, words)


def _check_split(name: str, path: str) -> None:
    from fedpref.data.sources import PreferenceFile

    if not PreferenceFile(path).rows().has_split:
        raise ConfigurationError(f"{name}: {path} has no split; add a column split with train or test")


def _hidden_groups(words: Sequence[str]) -> list[int]:
    """The hidden group of each client of the population that these words describe."""
    from fedpref.cli.build import population_from
    from fedpref.cli.compose import compose, parse_words, plain

    parsed = parse_words(words)
    people = population_from(plain(compose(parsed.all_overrides)), parsed.allow)
    if people.truth is None:
        raise ConfigurationError("groups are to be told, but of these people nobody knows them")
    known = {
        held_out.client_id: int(group)
        for held_out, group in zip(people.held_out, people.truth.groups, strict=True)
    }
    return [known[client] for client in range(len(people))]
