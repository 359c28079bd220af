"""Read run directories back: one as a whole, or a list of all below a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpref.errors import StorageError
from fedpref.report.jsonl import read_jsonl
from fedpref.report.lock import is_in_use
from fedpref.report.storage import read_json

__all__ = ["Run", "best_round", "list_runs", "read_run", "status_of"]


@dataclass(frozen=True, eq=False)
class Run:
    """All that a run directory says. What the run has not written yet is empty.

    Attributes:
        path: the directory.
        manifest: what ran.
        status: where it stands; ``state`` is "killed" for a run whose process died without a word.
        config: the configuration, YAML.
        notes: about the data, one sentence each.
        metrics: one record a round.
        clients: one record a reply.
        events: one record an event.
        users: one row a held-out set.
        agreement: names of the ``models`` and the ``shares`` on which they choose alike.
        summary: the final figures.
        privacy: what the clients ``sent`` and what they ``kept``.
        few_shot: how well unseen people adapt the finished model, as ``FewShotCurve.as_json``.
        fleet: ``classes`` of devices by name, ``clients`` of each, ``devices``, the class of every client.
    """

    path: Path
    manifest: Mapping[str, Any]
    status: Mapping[str, Any]
    config: str
    notes: Sequence[str]
    metrics: Sequence[Mapping[str, Any]]
    clients: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    users: Sequence[Mapping[str, Any]]
    agreement: Mapping[str, Any]
    summary: Mapping[str, Any]
    fleet: Mapping[str, Any]
    privacy: Mapping[str, Any]
    few_shot: Mapping[str, Any]

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """The records of the rounds that were evaluated."""
        return [record for record in self.metrics if record.get("evaluation")]

    def as_row(self) -> dict[str, Any]:
        """One line about the run, for a table or for JSON."""
        last = self.evaluations[-1]["evaluation"] if self.evaluations else {}
        return {
            "run": f"{self.path.parent.name}/{self.path.name}",
            "state": self.status.get("state"),
            "round": self.status.get("round"),
            "pair_accuracy": self.summary.get("pair_accuracy", last.get("pair_accuracy")),
            "virtual_s": self.metrics[-1].get("clock_s") if self.metrics else None,
            "devices": self._devices(),
            "started": self.manifest.get("started"),
            "path": str(self.path),
        }

    def _devices(self) -> str | None:
        """``80 phone, 40 server``; None if nobody noted the fleet."""
        return ", ".join(f"{count} {name}" for name, count in self.fleet.get("clients", {}).items()) or None


def read_run(path: Path) -> Run:
    """Read a run directory, finished or not.

    Raises:
        StorageError: it is no run directory, or a file in it is damaged.
    """
    if not (path / "manifest.json").is_file():
        raise StorageError(f"{path} is not a run directory: it has no manifest.json")
    config = path / "config.yaml"
    return Run(
        path=path,
        manifest=read_json(path / "manifest.json"),
        status=status_of(path),
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
        notes=_read_or(path / "notes.json", []),
        metrics=read_jsonl(path / "metrics.jsonl"),
        clients=read_jsonl(path / "clients.jsonl"),
        events=read_jsonl(path / "events.jsonl"),
        users=_read_or(path / "users.json", []),
        agreement=_read_or(path / "agreement.json", {}),
        summary=_read_or(path / "summary.json", {}),
        fleet=_read_or(path / "fleet.json", {}),
        privacy=_read_or(path / "privacy.json", {}),
        few_shot=_read_or(path / "few_shot.json", {}),
    )


def list_runs(out: Path) -> list[Run]:
    """All runs below ``out``, oldest first.

    Raises:
        StorageError: a file of a run is damaged.
    """
    folders = [manifest.parent for manifest in out.glob("*/*/manifest.json")]
    # The link to the latest run is no second run.
    runs = [read_run(folder) for folder in folders if not folder.parent.is_symlink()]
    return sorted(runs, key=lambda run: (str(run.manifest.get("started", "")), str(run.path)))


def best_round(metrics: Sequence[Mapping[str, Any]]) -> tuple[int, float] | None:
    """Round and pair accuracy of the best evaluation, the earliest of equals; None without any."""
    scores = [
        (int(record["round"]), float(record["evaluation"]["pair_accuracy"]))
        for record in metrics
        if record.get("evaluation")
    ]
    return max(scores, key=lambda score: (score[1], -score[0]), default=None)


def status_of(path: Path) -> dict[str, Any]:
    """Where the run in a directory stands, without reading what it logged; see ``Run.status``.

    Raises:
        StorageError: the file is damaged.
    """
    status: dict[str, Any] = _read_or(path / "status.json", {})
    if status.get("state") == "running" and not is_in_use(path):
        return status | {"state": "killed"}
    return status


def _read_or(path: Path, absent: Any) -> Any:
    return read_json(path) if path.is_file() else absent
