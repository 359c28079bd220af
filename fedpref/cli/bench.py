"""``fedpref bench``: run suites and show, keep or check what comes out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedpref.errors import ConfigurationError, FederationError

if TYPE_CHECKING:
    from fedpref.benchmarks.suite.declared import Tier
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
        expect: keep the figures, for this reason; empty keeps nothing.
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
    expect: str = ""
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
        FederationError: with ``check``, figures differ from those that are kept, or a run failed.
    """
    from fedpref.benchmarks.suite import expected
    from fedpref.benchmarks.suite.declared import read_suite, suite_names
    from fedpref.benchmarks.suite.page import keep as keep_outcome
    from fedpref.benchmarks.suite.run import Setting, run_suite
    from fedpref.benchmarks.suite.show import put_section_of, text

    if asked.jobs < 0:
        raise ConfigurationError(f"--jobs {asked.jobs} must be 0, which is one a core, or more")
    suites = [read_suite(name) for name in asked.suites or suite_names()]
    tiers = [suite.tier(asked.tier, asked.strategies, asked.seeds) for suite in suites]
    if (asked.check or asked.expect) and (asked.strategies or asked.seeds):
        raise ConfigurationError(
            "--check and --expect are for whole tiers; leave --strategies and --seeds out"
        )
    paths = [expected.expected_path(suite, tier) for suite, tier in zip(suites, tiers, strict=True)]
    for path in paths if asked.check and not asked.expect else ():
        expected.require(path)
    workers = asked.jobs or len(os.sched_getaffinity(0))
    setting = Setting(asked.out, workers, _finder(asked), print, asked.flags, asked.tune, asked.address)
    wrong: list[str] = []
    for suite, tier, path in zip(suites, tiers, paths, strict=True):
        print(f"{suite.title}: {_size(tier)}, {tier.cost}", flush=True)
        outcome = run_suite(suite, tier, setting)
        keep_outcome(outcome, asked.out / suite.name)
        print(f"\n{text(outcome)}\n", flush=True)
        if asked.markdown is not None:
            put_section_of(asked.markdown, outcome)
        if asked.expect and outcome.failures:
            wrong += [f"{suite.name}: {one}; nothing is kept" for one in _failed(outcome)]
        elif asked.expect:
            expected.keep(path, suite, outcome.tier, outcome.tables, asked.expect)
            print(f"kept  {path}")
        if asked.check:
            found = [*_failed(outcome), *expected.deviations(path, outcome.tables)]
            wrong += [f"{suite.name}: {one}" for one in found]
    if wrong:
        raise FederationError("; ".join(wrong))
    return 0


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
