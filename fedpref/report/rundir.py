"""A run directory and its one writer.

```
out/latest -> name/…
out/name/20261121T101500-3f9a1c2e-s0/
  manifest.json   what ran: versions, commit, machine, seeds, command, SHA-256 of every artefact
  status.json     where it stands: state, round, exit code, error
  config.yaml  overrides.yaml  notes.json
  fleet.json                                     the device classes, and which client has which
  metrics.jsonl  clients.jsonl  events.jsonl     one record a round, a reply, an event
  users.json  summary.json                       the result: per held-out set, and in total
  privacy.json                                   what left the clients, what they keep
  agreement.json                                 where groups have models of their own: how alike they choose
  few_shot.json                                  where people are unseen: how they adapt the finished model
```
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from fedpref.errors import ConfigurationError, StorageError
from fedpref.report.jsonl import JsonLines
from fedpref.report.lock import RunLock
from fedpref.report.provenance import machine, source_commit, versions
from fedpref.report.storage import read_json, sha256_of, storage_errors, to_json, write_json, write_text

__all__ = ["RunDirectory", "State"]

State = Literal["running", "finished", "failed", "interrupted"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LATEST = "latest"
_LOGS = ("metrics", "clients", "events")
# They change after the manifest is signed, or are not results.
_UNSIGNED = ("manifest.json", "status.json")
_log = logging.getLogger(__name__)


class RunDirectory:
    """The files of one run, locked against a second writer; a context manager.

    Use ``create`` or ``reopen``.

    Attributes:
        path: the directory.
        metrics: one record a round.
        clients: one record a reply, failed ones included.
        events: rejections, retries, faults.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = RunLock(path)
        try:
            self.metrics, self.clients, self.events = (JsonLines(path / f"{log}.jsonl") for log in _LOGS)
            self._note_takeover()
        except BaseException:
            self._lock.release()
            raise

    @classmethod
    def create(
        cls,
        out: Path,
        name: str,
        *,
        config: str,
        overrides: str,
        config_hash: str,
        seed: int,
        command: Sequence[str],
        now: datetime | None = None,
    ) -> Self:
        """A new directory below ``out/name``, with its manifest and configuration written.

        Args:
            out: folder of all runs; created if absent.
            name: letters, digits, ``.``, ``_`` and ``-``, at most 64.
            config: the resolved configuration, YAML.
            overrides: what the user changed, a YAML list of ``key=value``.
            config_hash: SHA-256 of the configuration; its first 8 characters name the directory.
            seed: the run's seed.
            command: the exact command line.
            now: start time; the current one if None.

        Raises:
            ConfigurationError: the name is not allowed or leads out of ``out``; nothing was created.
            StorageError: the disk is full or not writable.
        """
        started = now or datetime.now()
        parent = _confined(Path(out), name)
        path = _make_directory(parent, f"{started:%Y%m%dT%H%M%S}-{config_hash[:8]}-s{seed}")
        run = cls(path)
        try:
            write_text(path / "config.yaml", config)
            write_text(path / "overrides.yaml", overrides)
            manifest = {
                "name": name,
                "started": started.astimezone().isoformat(timespec="microseconds"),
                "config_hash": config_hash,
                "seed": seed,
                "command": list(command),
                "versions": versions(),
                "source": source_commit(),
                "machine": machine(),
                "sha256": {},
            }
            write_json(path / "manifest.json", manifest)
            run.set_status("running", round_number=0)
        except BaseException:
            run.close()
            raise
        _link_latest(parent.parent, path)
        return run

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """An existing directory, to resume its run.

        Raises:
            StorageError: it is no run directory, or in use by a living process.
        """
        if not (path / "manifest.json").is_file():
            raise StorageError(f"{path} is not a run directory: it has no manifest.json")
        return cls(path)

    def offsets(self) -> dict[str, int]:
        """Length of each log in bytes, after everything has reached the disk; for a checkpoint.

        Raises:
            StorageError: the disk does not take it.
        """
        logs = self._logs()
        for log in logs.values():
            log.sync()
        return {name: log.offset for name, log in logs.items()}

    def truncate_to(self, offsets: Mapping[str, int]) -> None:
        """Forget what was logged after the checkpoint that holds ``offsets``.

        Raises:
            StorageError: a log is not the one that was checkpointed.
        """
        for name, log in self._logs().items():
            log.truncate_to(offsets[name])
        self._note_takeover()

    def set_status(
        self, state: State, *, round_number: int, exit_code: int | None = None, error: str | None = None
    ) -> None:
        """Say where the run stands; readers see the old status or the new one.

        Raises:
            StorageError: the disk is full or not writable.
        """
        updated = datetime.now().astimezone().isoformat(timespec="seconds")
        status = {"state": state, "round": round_number, "exit_code": exit_code, "error": error}
        write_json(self.path / "status.json", status | {"updated": updated})

    def write_notes(self, notes: Sequence[str]) -> None:
        """Keep what was loaded and dropped and why, for the report.

        Raises:
            StorageError: the disk is full or not writable.
        """
        write_json(self.path / "notes.json", list(notes))

    def write_fleet(self, classes: Mapping[str, Mapping[str, Any]], devices: Sequence[str]) -> None:
        """Keep what the clients run on, for the report.

        Args:
            classes: what is known of each device class, ``kind`` and ``power_w`` at least.
            devices: device class of every client, in the order of the client ids.

        Raises:
            StorageError: the disk is full or not writable.
        """
        clients = {name: 0 for name in classes} | Counter(devices)
        fleet = {"classes": classes, "clients": clients, "devices": devices}
        write_text(self.path / "fleet.json", to_json(fleet) + "\n")

    def write_privacy(self, card: Mapping[str, Any]) -> None:
        """Keep what left the clients (``sent``) and what they keep (``kept``), for the report.

        Raises:
            StorageError: the disk is full or not writable.
        """
        write_json(self.path / "privacy.json", card)

    def write_few_shot(self, curve: Mapping[str, Any]) -> None:
        """Keep how well unseen people adapt the finished model, for the report.

        Raises:
            StorageError: the disk is full or not writable.
        """
        write_json(self.path / "few_shot.json", curve)

    def write_result(
        self,
        summary: Mapping[str, Any],
        users: Sequence[Mapping[str, Any]],
        agreement: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep the final figures: in total, one row a held-out set and, if given, between the models.

        Raises:
            StorageError: the disk is full or not writable.
        """
        write_json(self.path / "users.json", list(users))
        if agreement is not None:
            write_json(self.path / "agreement.json", agreement)
        write_json(self.path / "summary.json", summary)

    def sign(self) -> None:
        """Write the SHA-256 of every artefact into the manifest; the last thing that a run does.

        Raises:
            StorageError: a file is not readable, or the disk is full.
        """
        artefacts = [path for path in sorted(self.path.rglob("*")) if self._is_artefact(path)]
        hashes = {path.relative_to(self.path).as_posix(): sha256_of(path) for path in artefacts}
        manifest = read_json(self.path / "manifest.json")
        write_json(self.path / "manifest.json", manifest | {"sha256": hashes})

    def close(self) -> None:
        """Close the logs and let others write."""
        for log in self._logs().values():
            log.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _note_takeover(self) -> None:
        if self._lock.took_over:
            self.events.append({"kind": "lock", "detail": "the lock of a dead process was taken over"})

    def _logs(self) -> dict[str, JsonLines]:
        return {"metrics": self.metrics, "clients": self.clients, "events": self.events}

    def _is_artefact(self, path: Path) -> bool:
        inside = path.relative_to(self.path).parts
        hidden = any(part.startswith(".") for part in inside)
        return path.is_file() and not path.is_symlink() and not hidden and inside[-1] not in _UNSIGNED


def _confined(out: Path, name: str) -> Path:
    """``out/name``, if it is a good name that stays below ``out``."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"name={name!r}: a run name must match {_NAME.pattern}; use letters, digits, '.', '_' and '-'"
        )
    if name == _LATEST:
        raise ConfigurationError(f"name={name!r} is the link to the latest run; choose another name")
    root = out.resolve()
    if not (root / name).resolve().is_relative_to(root):
        raise ConfigurationError(
            f"name={name!r} is a link that leads out of {root}; remove it or choose another"
        )
    return root / name


def _make_directory(parent: Path, stem: str) -> Path:
    """A directory of one's own: ``stem``, or ``stem-2``, ``stem-3``, … where others were faster."""
    with storage_errors(parent / stem):
        parent.mkdir(parents=True, exist_ok=True)
        count = 1
        while True:
            path = parent / (stem if count == 1 else f"{stem}-{count}")
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
                return path
            count += 1


def _link_latest(out: Path, path: Path) -> None:
    """Point ``out/latest`` at ``path``. A convenience: where links are impossible, the log says so."""
    temporary = out / f".{_LATEST}.{os.getpid()}"
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(path.relative_to(out), target_is_directory=True)
        os.replace(temporary, out / _LATEST)
    except OSError as error:
        _log.warning("no link %s: %s", out / _LATEST, error)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
