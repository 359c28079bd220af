"""One asynchronous run on every executor: where clients run decides nothing, nor does who dies there."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from fedpref.clients.linear_reward import LinearReward
from fedpref.data.synthetic import Synthetic
from fedpref.federation.federation import Federation
from fedpref.flower.rounds import RoundOutcome, Rounds
from fedpref.models.given import Given
from fedpref.report.rundir import RunDirectory
from fedpref.simulation.device_classes import DeviceClass, Mix
from fedpref.simulation.executor import Executor
from fedpref.simulation.ray import RayPool
from fedpref.simulation.ray_pools import Pool
from fedpref.strategies.fedbuff import FedBuff
from fedpref.types import Arrival, ClientState, Pairs, Reply, Shard, Task, Weights, Workload

DIM, BUSY, BUFFER, VERSIONS = 6, 12, 4, 55
# A task is some thousand operations: seconds on a server, half a minute on a phone.
FLEET = Mix(
    {
        "server": DeviceClass(share=0.4, flops_per_s=2e3, speed_sigma=0.3, jitter=0.2, dropout_rate=0.02),
        "phone": DeviceClass(share=0.6, flops_per_s=3e2, speed_sigma=0.8, jitter=0.5, dropout_rate=0.1),
    }
)
LOGS = ("clients.jsonl", "events.jsonl", "metrics.jsonl")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # Ray leaves pipes open
]


@dataclass(frozen=True)
class Foreseen:
    """A rule with a memory that tells its work beforehand, so that the simulation computes ahead.

    Attributes:
        memory: trains; keeps a velocity between a client's tasks.
        work: tells the work.
        graves: where a process that dies leaves a note, so that it dies once a task; None kills nobody.
        deadly: numbers of the tasks in which a process dies.
    """

    memory: Any
    work: LinearReward
    graves: Path | None = None
    deadly: tuple[int, ...] = ()

    def fresh(self, rng: np.random.Generator) -> Weights:
        weights: Weights = self.memory.fresh(rng)
        return weights

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        return self.work.margins(weights, pairs)

    def workload(self, task: Task, shard: Shard) -> Workload:
        return self.work.workload(task, shard)

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        if self.graves is not None and task.number in self.deadly:
            grave = self.graves / f"{task.number}"
            if not grave.exists():
                grave.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
        answered: tuple[Reply, ClientState] = self.memory.answer(task, shard, state, rng)
        return answered


class Trace(NamedTuple):
    """All of a run that must not depend on its executor, and how often a job was begun again."""

    summary: Mapping[str, Any]
    arrivals: list[tuple[Any, ...]]
    logs: Mapping[str, list[dict[str, Any]]]
    retries: int


def timeless(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "wall_s"}


def bits(arrival: Arrival) -> tuple[Any, ...]:
    """Which task, how and when it ended, and the bytes of its delta."""
    delta = arrival.update.delta if arrival.update else {}
    return (
        arrival.task.number,
        arrival.task.client_id,
        arrival.code,
        arrival.staleness,
        arrival.sent_s,
        arrival.arrived_s,
        {key: (array.dtype, array.shape, array.tobytes()) for key, array in delta.items()},
    )


@pytest.fixture(scope="module")
def federation(toys: ModuleType) -> Iterator[Federation]:
    """The run, inline; its rule can be sent to actors by value."""
    from ray import cloudpickle

    tiny = Synthetic(preset="tiny", form="attributes", num_attributes=DIM, test_pairs=10)
    work = LinearReward(Given(DIM), local_steps=4, batch_pairs=8, init_std=0.5)
    rule = Foreseen(toys.Momentum(work, faults={1: "nan", 4: "raise", 6: "claim"}, fails_in=(0,)), work)
    strategy = FedBuff(buffer_size=BUFFER, concurrency=BUSY)
    modules = (toys, sys.modules[__name__])
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    yield Federation(
        tiny.population(seed=5), rule, strategy, VERSIONS, seed=3, fleet=FLEET, evaluate_every=10
    )
    for module in modules:
        cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Federation], Trace]:
    """Runs a federation as a user would, with its logs on disk, and listens to every round."""

    def _trace(federation: Federation) -> Trace:
        arrivals: list[tuple[Any, ...]] = []
        advance = Rounds.advance

        def listening(rounds: Rounds) -> RoundOutcome:
            outcome = advance(rounds)
            arrivals.extend(bits(arrival) for arrival in outcome.arrivals)
            return outcome

        folder = tmp_path_factory.mktemp("run") / "run"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Rounds, "advance", listening)
            with RunDirectory.create(
                folder, "test", config="{}", overrides="[]", config_hash="0" * 64, seed=0, command=["test"]
            ) as directory:
                summary = timeless(federation.run(directory).summary)
                path = directory.path
        logs = {log: [timeless(json.loads(line)) for line in (path / log).open()] for log in LOGS}
        return Trace(summary, arrivals, logs, summary.pop("retries"))

    return _trace


@pytest.fixture(scope="module")
def inline(federation: Federation, trace: Callable[[Federation], Trace]) -> Trace:
    return trace(federation)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[str]:
    """The address of a cluster of two nodes, one with the resource ``core``, one with ``edge``."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    from ray.cluster_utils import Cluster

    local = {"node_ip_address": "127.0.0.1", "num_cpus": 2}
    head = {**local, "resources": {"core": 1}, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(**local, resources={"edge": 1})
    yield cluster.address
    cluster.shutdown()


def assert_equal(found: Trace, expected: Trace) -> None:
    """Arrival by arrival and line by line, so that a difference is named where it begins."""
    for one, other in zip(found.arrivals, expected.arrivals, strict=False):
        assert one == other
    assert len(found.arrivals) == len(expected.arrivals)
    for log in LOGS:
        assert found.logs[log] == expected.logs[log]
    assert found.summary == expected.summary


def on_both_nodes(address: str) -> RayPool:
    """Servers on the first node, phones on the second."""
    pools = {"phone": Pool(num_workers=1, resources={"edge": 1})}
    return RayPool(address=address, num_workers=1, resources={"core": 1}, pools=pools)


def test_the_run_has_all_that_could_part_executors(inline: Trace) -> None:
    clients, codes = inline.logs["clients.jsonl"], {arrival[2] for arrival in inline.arrivals}
    assert len(inline.arrivals) >= 200
    assert codes >= {"ok", "lost", "non_finite", "weight_claim", "client_failed"}
    assert max(line["staleness"] for line in clients) >= BUSY // BUFFER
    assert max(line.get("answers", 0) for line in clients) >= 5  # states pass from task to task
    assert {line["device"] for line in clients} == set(FLEET.devices)
    assert len(inline.logs["events.jsonl"]) == sum(arrival[2] != "ok" for arrival in inline.arrivals)


@pytest.mark.parametrize(
    "executor",
    [
        RayPool(num_workers=1),
        RayPool(num_workers=2),
        RayPool(num_workers=0, pools={"phone": Pool(num_workers=3), "server": Pool(num_workers=1)}),
    ],
    ids=["1 worker", "2 workers", "4 workers in pools"],
)
def test_an_asynchronous_run_is_the_same_on_ray(
    federation: Federation, trace: Callable[[Federation], Trace], inline: Trace, executor: Executor
) -> None:
    found = trace(replace(federation, executor=executor))
    assert_equal(found, inline)
    assert found.retries == 0


def test_an_asynchronous_run_is_the_same_on_two_nodes(
    federation: Federation, trace: Callable[[Federation], Trace], inline: Trace, two_nodes: str
) -> None:
    assert_equal(trace(replace(federation, executor=on_both_nodes(two_nodes))), inline)


def test_two_killed_actors_change_nothing_but_the_retries(
    federation: Federation,
    trace: Callable[[Federation], Trace],
    inline: Trace,
    two_nodes: str,
    tmp_path: Path,
) -> None:
    assert isinstance(federation.rule, Foreseen)
    first_half = inline.logs["clients.jsonl"][: len(inline.arrivals) // 2]
    last_of_each_pool = {line["device"]: line["task"] for line in first_half}
    rule = replace(federation.rule, graves=tmp_path, deadly=tuple(last_of_each_pool.values()))
    found = trace(replace(federation, rule=rule, executor=on_both_nodes(two_nodes)))
    killed = {int(grave.read_text()) for grave in tmp_path.iterdir()}
    assert len(killed) == 2 and os.getpid() not in killed
    assert_equal(found, inline)
    assert found.retries >= 2
