"""``fedpref bench``: run suites and show, keep or check what comes out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedpref.errors import ConfigurationError, FederationError, did_you_mean

if TYPE_CHECKING:
    from fedpref.benchmarks.suite.declared import Suite, Tier
    from fedpref.benchmarks.suite.run import Outcome

__all__ = ["Asked", "bench", "numbers", "words"]


@dataclass(frozen=True)
class Asked:
    """What the command line says.

    Attributes:
        suites: names, or paths of YAML files; none means all that have the tier.
        tier: how much of them.
        strategies: methods, or names of strategies; none means those of the tier.
        seeds: none means those of the tier.
        jobs: runs at a time; 0 is one a core.
        address: of a Ray cluster that runs them instead; None runs them here.
        out: folder of everything that is written.
        data: folder of files of real annotators; None looks where ``fedpref data get`` puts them.
        flags: words of every run, such as ``--allow`` and ``--config-dir``.
        tune: choose the options anew.
        check: compare with the figures that are kept.
        expect: keep the figures, for this reason; None keeps nothing.
        markdown: file that gets the tables as sections; None writes none.
    """

    suites: Sequence[str] = ()
    tier: str = "smoke"
    strategies: Sequence[str] = ()
    seeds: Sequence[int] = ()
    jobs: int = 0
    address: str | None = None
    out: Path = Path("bench")
    data: Path | None = None
    flags: Sequence[str] = ()
    tune: bool = False
    check: bool = False
    expect: str | None = None
    markdown: Path | None = None


def words(listed: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(word.strip() for word in listed.split(",") if word.strip())


def numbers(listed: str) -> tuple[int, ...]:
    """Seeds between commas.

    Raises:
        ConfigurationError: one is no integer.
    """
    try:
        return tuple(int(word) for word in words(listed))
    except ValueError as error:
        raise ConfigurationError(f"--seeds {listed} must be integers, such as 0,1,2") from error


def bench(asked: Asked) -> int:
    """Run, and print the tables.

    Raises:
        ConfigurationError: a suite, tier or method does not exist, or nothing can be run.
        FederationError: with ``check``, something differs from what is kept, or a run failed.
    """
    from fedpref.benchmarks.suite import expected
    from fedpref.benchmarks.suite.declared import suite_names

    _check(asked)
    suites = [_suite(name) for name in asked.suites or suite_names()]
    for suite in suites:
        _check_strategies(asked, suite)
    tiers = [suite.tier(asked.tier, asked.strategies, asked.seeds) for suite in suites]
    if asked.check:
        for suite, tier in zip(suites, tiers, strict=True):
            expected.require(expected.expected_path(suite, tier))
    find = _finder(asked)
    if asked.expect is not None:
        for suite, tier in zip(suites, tiers, strict=True):
            _check_files(suite, tier, find)
    wrong: list[str] = []
    try:
        for suite, tier in zip(suites, tiers, strict=True):
            wrong += [f"{suite.name}: {one}" for one in _of_suite(asked, suite, tier, find)]
    except KeyboardInterrupt:
        print("fedpref: interrupted; go on with the same command", file=sys.stderr)
        raise
    if wrong:
        raise FederationError("\n".join(wrong))
    return 0


def _of_suite(asked: Asked, suite: Suite, tier: Tier, find: Callable[[str], str]) -> list[str]:
    """Run a suite and show, keep or check what comes out; what is wrong with it, a sentence each."""
    from fedpref.benchmarks.sections import granted_cores
    from fedpref.benchmarks.suite import expected
    from fedpref.benchmarks.suite.page import keep as keep_outcome
    from fedpref.benchmarks.suite.run import Setting, run_suite
    from fedpref.benchmarks.suite.show import put_section_of, text

    print(f"{suite.title}: {_size(tier)}, {tier.cost}", flush=True)
    workers, has_folder = asked.jobs or granted_cores(), asked.data is not None
    setting = Setting(
        asked.out, workers, find, print, asked.flags, asked.tune, asked.address, has_folder=has_folder
    )
    with _address_as_typed():
        outcome = run_suite(suite, tier, setting)
    keep_outcome(outcome, asked.out / suite.name)
    print(f"\n{text(outcome)}\n", flush=True)
    if asked.markdown is not None:
        put_section_of(asked.markdown, outcome)
    path, failed = expected.expected_path(suite, tier), _failed(outcome)
    if asked.check:
        return [*failed, *expected.deviations(path, outcome)]
    if asked.expect is not None and failed:
        return [f"{one}; nothing is kept" for one in failed]
    if asked.expect is not None:
        expected.keep(path, outcome, asked.expect)
        print(f"kept  {path}")
    return []


def _check(asked: Asked) -> None:
    """Refuse words that do not go together."""
    from fedpref.benchmarks.suite.expected import check_reason

    if asked.jobs < 0:
        raise ConfigurationError(f"--jobs {asked.jobs} must be 0, which is one a core, or more")
    if asked.check and asked.expect is not None:
        raise ConfigurationError("--check compares with what is kept and --expect replaces it; leave one out")
    if (asked.check or asked.expect is not None) and (asked.strategies or asked.seeds):
        raise ConfigurationError(
            "--check and --expect are for whole tiers; leave --strategies and --seeds out"
        )
    if asked.expect is not None:
        check_reason(asked.expect)


def _suite(name: str) -> Suite:
    """A suite by its name or file; a file may not have the name of a suite that fedpref brings."""
    from fedpref.benchmarks.suite import declared

    file = Path(name)
    if file.suffix in (".yaml", ".yml") and not file.is_file():
        raise ConfigurationError(f"there is no file {name}; name one of a suite of your own, or a suite")
    suite = declared.read_suite(name)
    if suite.path is None or suite.name not in declared.suite_names():
        return suite
    brought = Path(declared.__file__).parent.parent / "suites" / file.name
    if brought.is_file() and brought.samefile(file):
        return replace(suite, path=None)
    raise ConfigurationError(
        f"{name} has the name of a suite that fedpref brings, whose runs and choices would lie in the same "
        "folder; rename the file"
    )


def _check_strategies(asked: Asked, suite: Suite) -> None:
    from fedpref.cli.compose import check_directories, options_of, parse_words

    folders = parse_words(asked.flags).config_dirs
    check_directories(folders)
    strategies = options_of("strategy", folders)
    for name in asked.strategies:
        if name not in suite.methods and name not in strategies:
            mend = did_you_mean(name, suite.methods) or did_you_mean(name, strategies)
            raise ConfigurationError(
                f"--strategies {name}: no method of suite {suite.name} and no strategy.{mend} "
                f"Its methods are {', '.join(suite.methods)}; fedpref config ls strategy lists the others"
            )


def _check_files(suite: Suite, tier: Tier, find: Callable[[str], str]) -> None:
    """Refuse to keep figures of a tier of which data sets would be left out."""
    absent = []
    for name in tier.data:
        file = suite.data[name].file
        try:
            if file is not None:
                find(file)
        except ConfigurationError:
            absent.append(name)
    if absent:
        raise ConfigurationError(
            f"--expect keeps a whole tier, but of suite {suite.name} the files of {', '.join(absent)} are "
            "not there; fetch them with fedpref data get, or name --data FOLDER"
        )


@contextmanager
def _address_as_typed() -> Iterator[None]:
    """Errors of an address name the option of this command, not the key of a run's executor."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(str(error).replace("executor.address=", "--address ")) from error


def _failed(outcome: Outcome) -> list[str]:
    return [f"{run.data}, {run.method}, seed {run.seed} failed: {run.error}" for run in outcome.failures]


def _size(tier: Tier) -> str:
    counts = {"data set": len(tier.data), "method": len(tier.methods), "seed": len(tier.seeds)}
    return ", ".join(f"{count} {word}{'s' if count != 1 else ''}" for word, count in counts.items())


def _finder(asked: Asked) -> Callable[[str], str]:
    from fedpref.data.originals import set_path

    if asked.data is not None and not asked.data.is_dir():
        raise ConfigurationError(f"--data {asked.data} is no folder; give the one that holds NAME.jsonl.gz")
    return lambda name: str(set_path(name, asked.data).resolve())
