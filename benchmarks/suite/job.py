"""One run of a suite: its words, its identity, and the run directory that it leaves.

A job is known by its configuration, the files and plug-ins that this names, the source code that ran it and
the versions of its packages, so that no number outlives a change of any. Its directory is one of ``fedpref
run``, and holds ``job.json`` besides.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpref.cli.identity import inputs_sha256, source_sha256
from fedpref.errors import CheckpointError, FedprefError, StorageError
from fedpref.report.provenance import versions

if TYPE_CHECKING:
    from fedpref.cli.compose import Words
    from fedpref.federation.federation import Federation

__all__ = ["Job", "describe", "finish"]

_UNIMPORTANT = ("name", "out")  # where a run is kept changes nothing in it


@dataclass(frozen=True)
class Job:
    """A run to be made.

    Attributes:
        suite: name of the suite.
        data: name of the data set.
        method: name of the method.
        setting: which of the method's grid; the words are among ``words``.
        seed: of the run.
        is_trial: True to choose options: part of the training pairs is asked, and no test pair is seen.
        words: as after ``fedpref run``, seed and flags such as ``--allow`` with them.
    """

    suite: str
    data: str
    method: str
    setting: tuple[str, ...]
    seed: int
    is_trial: bool
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the folder of its run directories."""
        kind = f"-trial-{_short_hash(self.setting)}" if self.is_trial else ""
        return "".join(c if c.isalnum() or c in "._-" else "_" for c in f"{self.data}-{self.method}{kind}")

    @property
    def command(self) -> str:
        """What a reader types to make this run; of a trial, the run whose training pairs it divides."""
        return shlex.join(["fedpref", "run", *self.words])


def describe(job: Job) -> tuple[dict[str, Any], str]:
    """The job as plain data with its ``key``, and the text of its configuration.

    Raises:
        ConfigurationError: its words do not describe a run.
    """
    from omegaconf import OmegaConf

    from fedpref.cli.build import check_config
    from fedpref.cli.compose import compose, parse_words, plain
    from fedpref.cli.targets import working_folder_importable

    words = parse_words(job.words)
    with working_folder_importable(words.allow):
        composed = compose(words.all_overrides)
        config = plain(composed)
        check_config(config, words.allow)
        parts = {name: value for name, value in config.items() if name not in _UNIMPORTANT}
        inputs = inputs_sha256(parts)
    known_by = [parts, job.is_trial, inputs, source_sha256(), versions()]
    key = hashlib.sha256(json.dumps(known_by, sort_keys=True).encode()).hexdigest()
    description = dataclasses.asdict(job) | {"key": key, "source_sha256": source_sha256()}
    return description, OmegaConf.to_yaml(composed, resolve=False)


def finish(job: Job, out: Path, unfinished: Path | None = None) -> Path:
    """Make the run, or go on with it; a failure is noted in its directory, which is returned all the same.

    Args:
        job: to do.
        out: folder of the run directories.
        unfinished: directory of the same job that was interrupted.

    Raises:
        ConfigurationError: the words do not describe a run.
        StorageError: the disk is full or not writable.
    """
    from fedpref.cli.compose import parse_words
    from fedpref.cli.targets import working_folder_importable
    from fedpref.report.rundir import RunDirectory
    from fedpref.report.storage import write_json

    description, text = describe(job)
    words = parse_words(job.words)
    with working_folder_importable(words.allow):
        federation = _federation(job, words)
        federation.rehearse()
        if unfinished is not None:
            with RunDirectory.reopen(unfinished) as directory:
                try:
                    return _run(federation, directory, resume=True)
                except CheckpointError:  # it was interrupted before its first one: begin anew
                    (directory.path / "job.json").unlink()  # so it is no run of the suite any more
        with RunDirectory.create(
            out,
            job.name,
            config=text,
            overrides=json.dumps(list(job.words)),
            config_hash=hashlib.sha256(text.encode()).hexdigest(),
            seed=job.seed,
            command=["fedpref", "run", *job.words],
        ) as directory:
            write_json(directory.path / "job.json", description)
            return _run(federation, directory, resume=False)


def _run(federation: Federation, directory: Any, resume: bool) -> Path:
    path: Path = directory.path
    reached = 0

    def note(record: Mapping[str, Any]) -> None:
        nonlocal reached
        reached = min(int(record["round"]), federation.rounds)

    try:
        federation.run(directory, note, resume)
        directory.set_status("finished", round_number=federation.rounds, exit_code=0)
        directory.sign()
    except KeyboardInterrupt:
        directory.set_status("interrupted", round_number=reached, exit_code=130)
        raise
    except (CheckpointError, StorageError):
        raise
    except FedprefError as error:  # a method that fails is a result; a bug is not, and ends the suite
        directory.set_status("failed", round_number=reached, exit_code=error.exit_code, error=str(error))
    return path


def _federation(job: Job, words: Words) -> Federation:
    from fedpref.cli.build import federation_from
    from fedpref.cli.choice import population_for_choice
    from fedpref.cli.compose import compose, plain

    config = plain(compose(words.all_overrides))
    population = population_for_choice(config, words.allow) if job.is_trial else None
    return federation_from(config, words.allow, population)


def _short_hash(words: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()[:8]
