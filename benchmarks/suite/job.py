"""One run of a suite: its words, its identity, and the run directory that it leaves.

A job is known by its configuration, its data file and the source code that ran it, so that no number outlives
a change of any. Its directory is one of ``fedpref run``, and holds ``job.json`` besides.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fedpref
from fedpref.errors import CheckpointError, FedprefError
from fedpref.report.storage import sha256_of

if TYPE_CHECKING:
    from fedpref.federation.federation import Federation

__all__ = ["Job", "describe", "finish", "source_sha256"]

_UNIMPORTANT = ("name", "out")  # where a run is kept changes nothing in it
_WITHOUT_INFLUENCE = ("benchmarks", "cli", "report")  # they compose, which the configuration shows, and show


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
        inputs = _inputs(config)
    parts = {name: value for name, value in config.items() if name not in _UNIMPORTANT}
    identity = json.dumps([parts, job.is_trial, source_sha256(), inputs], sort_keys=True)
    key = hashlib.sha256(identity.encode()).hexdigest()
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
    with working_folder_importable(parse_words(job.words).allow):
        federation = _federation(job)
        federation.rehearse()
        if unfinished is not None:
            with RunDirectory.reopen(unfinished) as directory:
                try:
                    return _run(federation, directory, resume=True)
                except CheckpointError:  # it was interrupted before its first one: begin anew
                    directory.set_status("failed", round_number=0, exit_code=3, error="no checkpoint")
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
    try:
        federation.run(directory, resume=resume)
        directory.set_status("finished", round_number=federation.rounds, exit_code=0)
        directory.sign()
    except CheckpointError:
        raise
    except FedprefError as error:  # a method that fails is a result; a bug is not, and ends the suite
        directory.set_status("failed", round_number=0, exit_code=error.exit_code, error=str(error))
    return path


def _federation(job: Job) -> Federation:
    from fedpref.cli.build import federation_from
    from fedpref.cli.choice import population_for_choice
    from fedpref.cli.compose import compose, parse_words, plain

    words = parse_words(job.words)
    config = plain(compose(words.all_overrides))
    federation = federation_from(config, words.allow)
    if not job.is_trial:
        return federation
    return dataclasses.replace(federation, population=population_for_choice(config, words.allow))


def _inputs(config: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the data file and of the modules of plug-ins, by path and name."""
    found = {}
    path = config["data"].get("path")
    if isinstance(path, str) and Path(path).is_file():
        found[path] = _sha256(path, Path(path).stat().st_mtime_ns)
    for target in _targets(config):
        module = target.rpartition(".")[0]
        if module.partition(".")[0] not in ("fedpref", "flwr"):
            file = getattr(importlib.import_module(module), "__file__", None)
            if file is not None:
                found[module] = sha256_of(Path(file))
    return found


@cache
def _sha256(path: str, changed_ns: int) -> str:
    """As ``sha256_of``, once for all jobs on a file."""
    return sha256_of(Path(path))


def _targets(node: Any) -> Iterator[str]:
    """All classes that a configuration names."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


@cache
def source_sha256() -> str:
    """SHA-256 of fedpref's own source code, as far as it can change a result, in the order of file names."""
    root = Path(fedpref.__file__).parent
    files = []
    for folder, below, names in os.walk(root, followlinks=True):  # clients and strategies are links
        if Path(folder) == root:
            below[:] = [name for name in below if name not in _WITHOUT_INFLUENCE]
        files += [Path(folder) / name for name in names if name.endswith(".py")]
    sha = hashlib.sha256()
    for path in sorted(files):
        sha.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()


def _short_hash(words: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()[:8]
