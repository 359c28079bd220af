"""One run of a federation, from its first round or from a checkpoint to its last: the loop of fedpref."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpref.evaluation.evaluate import Evaluation, evaluate, model_agreement
from fedpref.evaluation.groups import Agreement, Grouping
from fedpref.federation import checkpoint
from fedpref.federation.plain import from_plain, state_classes, to_plain
from fedpref.flower.rounds import FailedRoundError, Rounds
from fedpref.maths.weights import digest, norm
from fedpref.report.rundir import RunDirectory
from fedpref.seeds import generator
from fedpref.types import Arrival, Strategy, Weights

if TYPE_CHECKING:
    from fedpref.federation.federation import Federation

__all__ = ["Record", "Result", "Run", "restored_state"]

Record = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Result:
    """What a federation learned.

    Attributes:
        summary: the final figures, as in ``summary.json``.
        models: the strategy's models, by name.
        evaluation: accuracy of every held-out set.
        history: one record a round, as in ``metrics.jsonl``; rounds before a resume are in the file only.
        agreement: how often the models choose alike, if the strategy keeps several for groups of clients.
    """

    summary: Mapping[str, Any]
    models: Mapping[str, Weights]
    evaluation: Evaluation
    history: Sequence[Record]
    agreement: Agreement | None = None


def restored_state(strategy: Strategy[Any], found: checkpoint.Checkpoint) -> Any:
    """The strategy's state in a checkpoint."""
    arrays = _below("state/", found.arrays)
    return from_plain(found.tree["state"], arrays, state_classes(strategy))


class Run:
    """One run of a federation: its rounds, the clock on the wall, and where it is written."""

    def __init__(
        self,
        federation: Federation,
        rounds: Rounds,
        directory: RunDirectory | None,
        on_round: Callable[[Record], None] | None,
    ) -> None:
        self.federation = federation
        self.rounds = rounds
        self.directory = directory
        self.on_round = on_round
        self.history: list[Record] = []
        self.counts = {"replies_ok": 0, "replies_failed": 0}
        self.wall_before_s = 0.0
        self.started = time.monotonic()

    @property
    def wall_s(self) -> float:
        """Wall seconds of the run, those before a resume included."""
        return self.wall_before_s + time.monotonic() - self.started

    def to_the_end(self, resume: bool) -> Result:
        """Run what is left; see ``Federation.run``."""
        if resume:
            self._restore()
        else:
            if self.directory is not None:
                self.directory.write_notes(self.federation.population.notes)
            self._log_round(0, 0, {}, self._evaluate())
            self._save()
        evaluation: Evaluation | None = None
        rounds, federation = self.rounds, self.federation
        ok = failed = 0
        while rounds.version < federation.rounds:
            try:
                outcome = rounds.advance()
            except FailedRoundError as error:
                self._log_arrivals(rounds.version + 1, error.arrivals, ())
                raise
            self._log_arrivals(rounds.version, outcome.arrivals, outcome.fold.rejected)
            ok += sum(arrival.is_ok for arrival in outcome.arrivals)
            failed += sum(not arrival.is_ok for arrival in outcome.arrivals)
            if not outcome.fold.updated:
                continue
            is_last = rounds.version >= federation.rounds
            evaluation = self._evaluate() if is_last or self._is_due(federation.evaluate_every) else None
            self._log_round(ok, failed, outcome.fold.metrics, evaluation)
            ok = failed = 0
            if is_last or self._is_due(federation.checkpoint_every):
                self._save()
        return self._finish(evaluation or self._evaluate())

    def _is_due(self, every: int) -> bool:
        return self.rounds.version % every == 0

    def _evaluate(self) -> Evaluation:
        """Off the clock: it is the observer's work, not the federation's."""
        federation, rounds = self.federation, self.rounds
        rng = generator(federation.seed, "evaluation", rounds.version)
        return evaluate(federation.rule, rounds.strategy, rounds.state, federation.population, rng)

    # ---------------------------------------------------------------------------- logging

    def _log_arrivals(self, round_: int, arrivals: Sequence[Arrival], refused: Sequence[Arrival]) -> None:
        rejected = {arrival.task.number for arrival in refused}
        for arrival in arrivals:
            is_ok = arrival.is_ok and arrival.task.number not in rejected
            self.counts["replies_ok" if is_ok else "replies_failed"] += 1
            if self.directory is None:
                continue
            self.directory.clients.append(_client_record(round_, arrival))
            if not is_ok:
                code = arrival.code if not arrival.is_ok else "refused_by_strategy"
                event = {"kind": "reply", "round": round_, "client": arrival.task.client_id}
                self.directory.events.append({**event, "code": code, "detail": arrival.detail})

    def _log_round(
        self, ok: int, failed: int, fold: Mapping[str, float], evaluation: Evaluation | None
    ) -> None:
        traffic = self.rounds.exchange.traffic
        record: dict[str, Any] = {
            "round": self.rounds.version,
            "version": self.rounds.version,
            "clock_s": self.rounds.exchange.clock_s,
            "wall_s": self.wall_s,
            "clients_ok": ok,
            "clients_failed": failed,
            "bytes_up": traffic.framed_up_bytes,
            "bytes_down": traffic.framed_down_bytes,
            "fold": {name: float(value) for name, value in fold.items()},
        }
        if evaluation is not None:
            record["evaluation"] = dict(evaluation.aggregate)
            if evaluation.groups is not None:
                clients = range(len(self.federation.population))
                record["groups"] = [evaluation.groups.get(client) for client in clients]
        self.history.append(record)
        if self.directory is not None:
            self.directory.metrics.append(record)
            self.directory.set_status("running", round_number=self.rounds.version)
        if self.on_round is not None:
            self.on_round(record)

    # ------------------------------------------------------------------------- checkpoints

    def _save(self) -> None:
        if self.directory is None:
            return
        state_arrays: dict[str, np.ndarray] = {}
        state = to_plain(self.rounds.state, state_arrays)
        rounds, round_arrays = self.rounds.snapshot()
        tree = {
            "state": state,
            "rounds": rounds,
            "offsets": self.directory.offsets(),
            "wall_s": self.wall_s,
            "counts": self.counts,
            "clients": [shard.name for shard in self.federation.population.shards],
        }
        arrays = {f"state/{name}": array for name, array in state_arrays.items()}
        arrays |= {f"rounds/{name}": array for name, array in round_arrays.items()}
        root = self.directory.path / "checkpoints"
        checkpoint.save(root, self.rounds.version, tree, arrays, self.federation.checkpoint_keep)

    def _restore(self) -> None:
        assert self.directory is not None, "only a run with a directory can resume"
        found, warnings = checkpoint.latest(self.directory.path / "checkpoints")
        tree = found.tree
        self.rounds.restore(
            restored_state(self.federation.strategy, found), tree["rounds"], _below("rounds/", found.arrays)
        )
        self.directory.truncate_to(tree["offsets"])
        self.counts = dict(tree["counts"])
        self.wall_before_s = float(tree["wall_s"])
        for warning in warnings:
            self.directory.events.append({"kind": "checkpoint", "detail": warning})

    # ------------------------------------------------------------------------------ result

    def _finish(self, evaluation: Evaluation) -> Result:
        models = self.federation.strategy.models(self.rounds.state)
        agreement = self._agreement(models)
        traffic = self.rounds.exchange.traffic
        summary = {
            **evaluation.aggregate,
            **self.counts,
            "rounds": self.rounds.version,
            "num_clients": len(self.federation.population),
            "bytes_up": traffic.framed_up_bytes,
            "bytes_down": traffic.framed_down_bytes,
            "raw_bytes_up": traffic.raw_up_bytes,
            "raw_bytes_down": traffic.raw_down_bytes,
            "virtual_s": self.rounds.exchange.clock_s,
            "wall_s": self.wall_s,
            "weights_sha256": digest(models),
        }
        if self.directory is not None:
            rows = [user.as_row() for user in evaluation.users]
            self.directory.write_result(summary, rows, agreement.as_json() if agreement else None)
        return Result(summary, models, evaluation, tuple(self.history), agreement)

    def _agreement(self, models: Mapping[str, Weights]) -> Agreement | None:
        federation = self.federation
        if not isinstance(federation.strategy, Grouping) or len(models) < 2:
            return None
        return model_agreement(federation.rule, models, federation.population)


def _client_record(round_: int, arrival: Arrival) -> dict[str, Any]:
    record: dict[str, Any] = {
        "round": round_,
        "client": arrival.task.client_id,
        "task": arrival.task.number,
        "code": arrival.code,
        "bytes_down": arrival.bytes_down,
        "bytes_up": arrival.bytes_up,
        "sent_s": arrival.sent_s,
        "arrived_s": arrival.arrived_s,
        "staleness": arrival.staleness,
    }
    if arrival.update is not None:
        record |= {"num_pairs": arrival.update.num_pairs, "norm": norm(arrival.update.delta)}
        record |= {name: float(value) for name, value in arrival.update.metrics.items()}
    return record


def _below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays whose name begins with ``prefix``, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
