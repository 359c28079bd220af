"""One run of a federation, from its first round or from a checkpoint to its last: the loop of fedpref."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpref.evaluation.asked import held_out_digest
from fedpref.evaluation.evaluate import Evaluation, evaluate, model_agreement
from fedpref.evaluation.few_shot import FewShotCurve, few_shot, newcomers, unadapted
from fedpref.evaluation.groups import Agreement, Grouping
from fedpref.federation import checkpoint
from fedpref.federation.plain import from_plain, state_classes, to_plain
from fedpref.federation.privacy import privacy_card
from fedpref.flower.fence import rng_fence
from fedpref.flower.rounds import FailedRoundError, RoundOutcome, Rounds
from fedpref.flower.timed import below
from fedpref.maths.weights import digest, distance
from fedpref.report.devices import utilisation
from fedpref.report.rundir import RunDirectory
from fedpref.seeds import generator, number
from fedpref.simulation.fleet import Devices, timing
from fedpref.simulation.grid import VirtualGrid
from fedpref.types import Arrival, Personal, Strategy, Weights

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
        few_shot: how well unseen people adapt the finished model, if there are some and clients have
            personal parts.
    """

    summary: Mapping[str, Any]
    models: Mapping[str, Weights]
    evaluation: Evaluation
    history: Sequence[Record]
    agreement: Agreement | None = None
    few_shot: FewShotCurve | None = None


def restored_state(strategy: Strategy[Any], found: checkpoint.Checkpoint) -> Any:
    """The strategy's state in a checkpoint."""
    arrays = below("state/", found.arrays)
    return from_plain(found.tree["state"], arrays, state_classes(strategy))


class Run:
    """One run of a federation: its rounds, the clock on the wall, and where it is written."""

    def __init__(
        self,
        federation: Federation,
        grid: VirtualGrid,
        rounds: Rounds,
        directory: RunDirectory | None,
        on_round: Callable[[Record], None] | None,
    ) -> None:
        self.federation = federation
        self.grid = grid
        self.rounds = rounds
        self.directory = directory
        self.on_round = on_round
        self.history: list[Record] = []
        self.counts: dict[str, float] = {"replies_ok": 0, "replies_failed": 0, "busy_s": 0.0, "energy_j": 0.0}
        self.saved: list[Mapping[str, Any]] = []  # the grid's part of the checkpoints made so far
        self.wall_before_s = 0.0
        self.retries_before = 0
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
                self._write_fleet(self.directory)
            self._log_round(0, 0, {}, self._evaluate())
            self._save()
        evaluation: Evaluation | None = None
        rounds, federation = self.rounds, self.federation
        ok, failed, waited_s, since_s = 0, 0, 0.0, self.grid.clock_s
        while rounds.version < federation.rounds:
            version = rounds.version
            try:
                outcome = rounds.advance()
            except FailedRoundError as error:
                self._log_arrivals(rounds.version + 1, error.arrivals, ())
                raise
            self._log_wait(outcome)
            waited_s += outcome.waited_s
            self._log_arrivals(rounds.version, outcome.arrivals, outcome.fold.rejected)
            ok += sum(arrival.is_ok for arrival in outcome.arrivals)
            failed += sum(not arrival.is_ok for arrival in outcome.arrivals)
            if not outcome.fold.updated:
                continue
            is_last = rounds.version >= federation.rounds
            if (every_s := federation.evaluate_every_s) is not None:
                is_due = _passed(since_s, self.grid.clock_s, every_s)
            else:
                is_due = _passed(version, rounds.version, federation.evaluate_every)
            evaluation = self._evaluate() if is_last or is_due else None
            self._log_round(ok, failed, outcome.fold.metrics, evaluation, waited_s)
            ok, failed, waited_s, since_s = 0, 0, 0.0, self.grid.clock_s
            if is_last or _passed(version, rounds.version, federation.checkpoint_every):
                self._save()
        return self._finish(evaluation or self._evaluate())

    def _evaluate(self) -> Evaluation:
        """Off the clock: it is the observer's work, not the federation's."""
        federation, rounds = self.federation, self.rounds
        rng = generator(federation.seed, "evaluation", rounds.version)
        with rng_fence(number(federation.seed, "fence", "evaluation", rounds.version)):
            return evaluate(
                federation.rule,
                rounds.strategy,
                rounds.state,
                federation.population,
                rng,
                rounds.exchange.kept,
            )

    # ---------------------------------------------------------------------------- logging

    def _log_arrivals(self, round_: int, arrivals: Sequence[Arrival], refused: Sequence[Arrival]) -> None:
        rejected = {arrival.task.number for arrival in refused}
        for arrival in arrivals:
            is_ok = arrival.is_ok and arrival.task.number not in rejected
            self.counts["replies_ok" if is_ok else "replies_failed"] += 1
            device = _device_record(self.grid.devices, arrival)
            self.counts["busy_s"] += arrival.arrived_s - arrival.sent_s
            self.counts["energy_j"] += device.get("energy_j", 0.0)
            if self.directory is None:
                continue
            code = arrival.code if is_ok or not arrival.is_ok else "refused_by_strategy"
            self.directory.clients.append(_client_record(round_, arrival) | device | {"code": code})
            if not is_ok:
                event = {"kind": "reply", "round": round_, "client": arrival.task.client_id}
                self.directory.events.append({**event, "code": code, "detail": arrival.detail})

    def _log_wait(self, outcome: RoundOutcome) -> None:
        """Say that a round waited in virtual time for somebody to come online."""
        if outcome.waited_s > 0 and self.directory is not None:
            event = {"kind": "wait", "round": self.rounds.version, "waited_s": outcome.waited_s}
            self.directory.events.append({**event, "until_s": outcome.waited_until_s})

    def _write_fleet(self, directory: RunDirectory) -> None:
        """Which device classes the clients have."""
        devices = self.grid.devices
        owned = [devices.device(client) for client in range(len(self.federation.population))]
        classes = {device.name: {"kind": device.kind, "power_w": device.power_w} for device in owned}
        directory.write_fleet(classes, [device.name for device in owned])

    def _log_round(
        self,
        ok: int,
        failed: int,
        fold: Mapping[str, float],
        evaluation: Evaluation | None,
        waited_s: float = 0.0,
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
        if waited_s > 0:
            record["waited_s"] = waited_s
        if evaluation is not None:
            record["evaluation"] = dict(evaluation.aggregate)
            if evaluation.groups is not None:
                clients = range(len(self.federation.population))
                record["groups"] = [evaluation.groups.get(client) for client in clients]
            if evaluation.span is not None:
                record["span"] = evaluation.span.as_json()
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
            "retries": self.retries_before + self.grid.retries,
            "counts": self.counts,
            "clients": [shard.name for shard in self.federation.made_shards],
        }
        arrays = {f"state/{name}": array for name, array in state_arrays.items()}
        arrays |= {f"rounds/{name}": array for name, array in round_arrays.items()}
        root = self.directory.path / "checkpoints"
        keep = self.federation.checkpoint_keep
        checkpoint.save(root, self.rounds.version, tree, arrays, keep)
        self.saved.append(rounds["exchange"]["grid"])
        if len(self.saved) > keep:
            self.saved = self.saved[-keep:]
            self.grid.forget_states_before(self.saved[0])

    def _restore(self) -> None:
        assert self.directory is not None, "only a run with a directory can resume"
        found, warnings = checkpoint.latest(self.directory.path / "checkpoints")
        tree = found.tree
        self.rounds.restore(
            restored_state(self.federation.strategy, found), tree["rounds"], below("rounds/", found.arrays)
        )
        self.directory.truncate_to(tree["offsets"])
        self.counts = dict(tree["counts"])
        self.wall_before_s, self.retries_before = float(tree["wall_s"]), int(tree["retries"])
        for warning in warnings:
            self.directory.events.append({"kind": "checkpoint", "detail": warning})

    # ------------------------------------------------------------------------------ result

    def _finish(self, evaluation: Evaluation) -> Result:
        models = self.federation.strategy.models(self.rounds.state)
        agreement, few_shots = self._agreement(models), self._few_shots()
        traffic, num_clients = self.rounds.exchange.traffic, len(self.federation.population)
        summary = {
            **evaluation.aggregate,
            "replies_ok": self.counts["replies_ok"],
            "replies_failed": self.counts["replies_failed"],
            "utilisation": utilisation(self.counts["busy_s"], num_clients, self.grid.clock_s),
            "energy_j": self.counts["energy_j"],
            "retries": self.retries_before + self.grid.retries,
            "rounds": self.rounds.version,
            "num_clients": num_clients,
            "bytes_up": traffic.framed_up_bytes,
            "bytes_down": traffic.framed_down_bytes,
            "raw_bytes_up": traffic.raw_up_bytes,
            "raw_bytes_down": traffic.raw_down_bytes,
            "virtual_s": self.rounds.exchange.clock_s,
            "wall_s": self.wall_s,
            "weights_sha256": digest(models),
            "held_out_sha256": held_out_digest(self.federation.population),
        }
        if few_shots is not None and few_shots.resamples > 0:
            summary["k_star"] = few_shots.k_star
        if self.directory is not None:
            self.directory.write_privacy(privacy_card(self.rounds, self.grid.store))
            if few_shots is not None:
                self.directory.write_few_shot(few_shots.as_json())
            rows = [user.as_row() for user in evaluation.users]
            self.directory.write_result(summary, rows, agreement.as_json() if agreement else None)
        return Result(summary, models, evaluation, tuple(self.history), agreement, few_shots)

    def _few_shots(self) -> FewShotCurve | None:
        """Off the clock, of the last state alone: a run that is resumed makes the same curve."""
        federation = self.federation
        resamples, people = federation.few_shot_resamples, newcomers(federation.population)
        if resamples == 0 or not people:
            return None
        finished = (
            federation.rule,
            federation.strategy,
            self.rounds.state,
            federation.population,
            federation.seed,
        )
        with rng_fence(number(federation.seed, "fence", "few_shot")):
            if isinstance(federation.rule, Personal):
                return few_shot(*finished, resamples=resamples)
            return unadapted(*finished)

    def _agreement(self, models: Mapping[str, Weights]) -> Agreement | None:
        federation = self.federation
        if not isinstance(federation.strategy, Grouping) or len(models) < 2:
            return None
        with rng_fence(number(federation.seed, "fence", "agreement")):
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
        moved = distance(arrival.update.weights, arrival.update.received)
        record |= {"num_pairs": arrival.update.num_pairs, "norm": moved}
        record |= {name: float(value) for name, value in arrival.update.metrics.items()}
    return record


def _device_record(devices: Devices, arrival: Arrival) -> dict[str, Any]:
    """The device of an arrival and, where it was answered, where its time and energy went."""
    device = devices.device(arrival.task.client_id)
    record: dict[str, Any] = {"device": device.name}
    if arrival.update is not None:
        flops = arrival.update.metrics.get("flops", 0.0)
        spent = timing(device, devices.seed, arrival.task.number, flops, arrival.bytes_down, arrival.bytes_up)
        record |= spent._asdict() | {"energy_j": spent.compute_s * device.power_w}
    return record


def _passed(before: float, now: float, every: float) -> bool:
    """True if a multiple of ``every`` lies in (before, now]; one step may pass several."""
    return now // every > before // every
