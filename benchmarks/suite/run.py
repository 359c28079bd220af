"""A suite from its name to its tables: choose options if asked to, make the missing runs, read them all."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedpref.benchmarks.suite import plan
from fedpref.benchmarks.suite.choice import METRIC, Choices, read_choices
from fedpref.benchmarks.suite.declared import Suite, Tier
from fedpref.benchmarks.suite.job import Job
from fedpref.benchmarks.suite.metrics import EXTRA, HIDDEN, METRICS
from fedpref.benchmarks.suite.reading import reading
from fedpref.benchmarks.suite.results import Failure, records_of, score
from fedpref.benchmarks.suite.schedule import make
from fedpref.cli.compare import others_asked_noted
from fedpref.errors import ConfigurationError
from fedpref.evaluation.compare import Table, tables
from fedpref.evaluation.records import Record
from fedpref.report.lock import RunLock
from fedpref.report.storage import storage_errors

__all__ = ["Outcome", "Setting", "run_suite"]

_PART = "-part"


@dataclass(frozen=True)
class Setting:
    """How a suite is run.

    Attributes:
        out: folder of everything that is written.
        workers: runs at a time.
        find: path of the file of a set of real annotators; raises ConfigurationError where there is none.
        say: told what happens, a line at a time.
        flags: words of every run, such as ``--allow`` and ``--config-dir``.
        tune: choose the options anew.
        address: of a Ray cluster that runs them; None runs them here.
        has_folder: True if the files are looked for in a folder that was named with ``--data``.
    """

    out: Path
    workers: int
    find: Callable[[str], str]
    say: Callable[[str], None]
    flags: Sequence[str] = ()
    tune: bool = False
    address: str | None = None
    has_folder: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a suite gave.

    Attributes:
        suite: what was run.
        tier: of it, with the data sets that were there. Of a part, which has other methods or seeds than the
            suite's tier, the name ends in ``-part``, so that it takes no place of the whole.
        choices: options of the methods.
        tables: one a data set.
        records: of all runs that finished.
        failures: the others.
        jobs: all runs.
        paths: their directories, in this order.
        notes: what to know of all tables, a sentence each: which part of the tier they are of, what was left
            out, where options were chosen, how k* is counted.
        flags: last words of the command.
    """

    suite: Suite
    tier: Tier
    choices: Choices
    tables: Sequence[Table]
    records: Sequence[Record]
    failures: Sequence[Failure]
    jobs: Sequence[Job]
    paths: Sequence[Path]
    notes: Sequence[str]
    flags: Sequence[str] = ()

    @property
    def command(self) -> list[str]:
        """What made these runs, and makes those of other data sets that are there.

        A folder of files is FOLDER: where it is says nothing to others.
        """
        suite, tier = self.suite, self.tier
        usual = suite.tiers.get(tier.name) or suite.tiers[tier.name.removesuffix(_PART)]
        words = ["fedpref", "bench", str(suite.path or suite.name), "--tier", usual.name]
        words += ["--strategies", ",".join(tier.methods)] if tier.methods != usual.methods else []
        words += ["--seeds", ",".join(map(str, tier.seeds))] if tier.seeds != usual.seeds else []
        return [*words, *self.flags]


def run_suite(suite: Suite, tier: Tier, setting: Setting) -> Outcome:
    """Make the runs of a tier that are missing, and compare.

    Raises:
        ConfigurationError: something in the suite is wrong, or no data set is there.
        StorageError: the disk is full or not writable, or another process runs this suite in this folder.
    """
    tier, notes = _there(suite, tier, setting)
    out = setting.out / suite.name
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    lock = RunLock(out)
    try:
        return _run(suite, tier, setting, notes, out)
    finally:
        lock.release()


def _run(suite: Suite, tier: Tier, setting: Setting, notes: list[str], out: Path) -> Outcome:
    choices = read_choices(suite, out / "chosen.json")
    if setting.tune:
        choices = _chosen(suite, tier, setting, choices, out)
    jobs = plan.runs(suite, tier, choices, setting.find, setting.flags)
    paths = make(jobs, out, setting.workers, _telling(setting.say), setting.address)
    records, failures = records_of(suite, jobs, paths)
    runs = Counter((record.data, record.name) for record in records)
    whole = [record for record in records if runs[record.data, record.name] == len(tier.seeds)]
    metrics = [
        metric
        for metric in (*METRICS, *EXTRA, *HIDDEN)
        if metric in METRICS or any(metric in record.numbers for record in whole)
    ]
    notes = [*_part_noted(suite, tier), *notes, *_noted(suite, tier, choices, whole)]
    base = suite.base if any(record.name == suite.base for record in whole) else None  # it may have failed
    compared = [
        replace(table, notes=(*table.notes, *_table_noted(suite, tier, table, whole)))
        for table in (tables(whole, metrics, base) if whole else ())
    ]
    of_files = setting.has_folder and any(suite.data[name].file is not None for name in tier.data)
    flags = (*setting.flags, *(("--data", "FOLDER") if of_files else ()))
    shown = replace(tier, name=tier.name + _PART) if _is_part(suite, tier) else tier
    return Outcome(suite, shown, choices, compared, records, failures, jobs, paths, notes, flags)


def _is_part(suite: Suite, tier: Tier) -> bool:
    usual = suite.tiers[tier.name]
    return set(tier.methods) != set(usual.methods) or set(tier.seeds) != set(usual.seeds)


def _part_noted(suite: Suite, tier: Tier) -> Iterator[str]:
    if _is_part(suite, tier):
        methods, seeds = ", ".join(tier.methods), ", ".join(map(str, tier.seeds))
        yield f"A part of the tier {tier.name}: strategies {methods}; seeds {seeds}."


def _table_noted(suite: Suite, tier: Tier, table: Table, records: Sequence[Record]) -> Iterator[str]:
    own = [record for record in records if record.data == table.data]
    if not any(record.name == suite.base for record in records):  # else the table says so itself
        yield f"There is no run of {suite.base}: differences are to {table.rows[0].name}."
    for note in others_asked_noted(own):
        counts = [len(record.people) for record in own]
        least, most = min(counts), max(counts)
        yield f"{note} {least if least == most else f'{least} to {most}'} people a seed."
    if table.data in tier.data:
        yield from reading(table, METRIC)


def _noted(suite: Suite, tier: Tier, choices: Choices, records: Sequence[Record]) -> Iterator[str]:
    for data, method in itertools.product(tier.data, tier.methods):
        if not plan.applies(suite.data[data], suite.method(method)):
            yield f"{method} is not on {data}: nobody knows the groups that it is to be told."
    for data in tier.data:
        for other in choices.tiers(suite.data[data]):
            if other != tier.name:
                yield f"{data}: options were chosen by trials of the tier {other}."
    if any("k_star" in record.numbers for record in records):
        yield (
            f"k* is the fewest pairs with which newcomers are surely better off than with what {suite.base} "
            "serves them: by half a point or more, and by an interval above 0. A dash: not so in some seed."
        )


def _chosen(suite: Suite, tier: Tier, setting: Setting, choices: Choices, out: Path) -> Choices:
    """The choices with those of this tier made anew, and kept."""
    jobs = plan.trials(suite, tier, setting.find, setting.flags)
    paths = make(jobs, out, setting.workers, _telling(setting.say), setting.address)
    scores = {
        (job.data, job.method, job.setting): score(path, METRIC)
        for job, path in zip(jobs, paths, strict=True)
    }
    for data, name in dict.fromkeys((job.data, job.method) for job in jobs):
        method = suite.method(name)
        own = [scores[data, name, setting] for setting in method.grid]
        choices = choices.with_(suite, tier, suite.data[data], method, own)
    choices.write(out / "chosen.json")
    return choices


def _there(suite: Suite, tier: Tier, setting: Setting) -> tuple[Tier, list[str]]:
    """The tier without data sets whose file is not there, and what to say of them."""
    kept, notes = [], []
    for name in tier.data:
        file = suite.data[name].file
        try:
            if file is not None:
                setting.find(file)
            kept.append(name)
        except ConfigurationError as error:
            setting.say(f"{name} is left out: {error}")
            # Without the path, which is of this machine: notes go into files that others read.
            notes.append(
                f"{name} is left out: its file is not there; `fedpref data get {file}`, or --data FOLDER."
            )
    if not kept:
        raise ConfigurationError(f"suite {suite.name}, tier {tier.name}: no data set is there")
    return replace(tier, data=tuple(kept)), notes


def _telling(say: Callable[[str], None]) -> Callable[[Job, Path, int, int], None]:
    def told(job: Job, path: Path, done: int, total: int) -> None:
        found = score(path, METRIC)
        figure = "failed" if found is None else f"{found:.4f}"
        kind = f"trial {' '.join(job.setting)}" if job.is_trial else f"seed {job.seed}"
        say(f"{done:4}/{total}  {job.data:12} {job.method:24} {kind:28} {figure}")

    return told
