"""Clients that come and go, drop out and dawdle, through the whole engine: stopped and resumed, or alone."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fedpref.clients.linear_reward import LinearReward
from fedpref.data.synthetic import Synthetic
from fedpref.errors import FederationError
from fedpref.federation.federation import Federation
from fedpref.models.given import Given
from fedpref.report.rundir import RunDirectory
from fedpref.simulation.availability import Daily, Markov
from fedpref.simulation.device_classes import DeviceClass, Mix
from fedpref.simulation.traces import Traces
from fedpref.strategies.afa_cs import AfaCs
from fedpref.strategies.fedasmu import FedASMU
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedbuff import FedBuff
from fedpref.strategies.fedcompass import FedCompass
from fedpref.strategies.fedfix import FedFix
from fedpref.strategies.fedprox import FedProx
from fedpref.types import Population, Strategy

DIM, LOGS = 6, ("metrics.jsonl", "clients.jsonl", "events.jsonl")
# A task takes seconds; all are seldom there, so that now and then nobody is.
RARE = Mix(
    {
        "often": DeviceClass(
            share=0.6,
            flops_per_s=1e3,
            speed_sigma=0.5,
            jitter=0.4,
            dropout_rate=0.1,
            availability=Markov(mean_online_s=6.0, mean_offline_s=60.0),
        ),
        "daily": DeviceClass(share=0.4, flops_per_s=2e3, availability=Daily(8.0, 100.0, 20.0)),
    }
)


@pytest.fixture(scope="module")
def population() -> Population:
    return Synthetic(preset="tiny", form="attributes", num_attributes=DIM, test_pairs=10).population(seed=5)


STRATEGIES: list[Strategy[Any]] = [
    FedAvg(cohort_size=4, over_selection=1.5, deadline_s=6.0),
    FedProx(mu=0.1, cohort_size=4, deadline_s=4.0),
    FedBuff(buffer_size=3, concurrency=5),
    FedFix(window_s=7.0, concurrency=5),
    FedCompass(min_steps=1, max_steps=4, concurrency=5),
    FedASMU(concurrency=4),
    AfaCs(buffer_size=2, concurrency=5),
]


def federation_of(population: Population, toys: ModuleType, strategy: Strategy[Any]) -> Federation:
    """Of clients with a memory, whose work nobody knows beforehand, or of such that can tell it."""
    linear = LinearReward(Given(DIM), local_steps=4, batch_pairs=8, init_std=0.5)
    rule = linear if isinstance(strategy, (FedASMU, FedProx)) else toys.Momentum(linear)
    return Federation(population, rule, strategy, rounds=12, seed=3, fleet=RARE, checkpoint_every=1)


def run_directory(path: Path) -> RunDirectory:
    return RunDirectory.create(
        path, "test", config="{}", overrides="[]", config_hash="0" * 64, seed=0, command=["test"]
    )


def timeless(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "wall_s"}


def lines(folder: Path, log: str) -> list[dict[str, Any]]:
    return [timeless(json.loads(line)) for line in (folder / log).read_text().splitlines()]


class Killed(Exception):
    """Thrown from outside at a round."""


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_a_run_stopped_at_any_round_goes_on_to_the_same_bits(
    population: Population, toys: ModuleType, tmp_path: Path, strategy: Strategy[Any]
) -> None:
    """Checkpoints every third round, so that what is lost is done again; and one run without a directory."""
    federation = dataclasses.replace(federation_of(population, toys, strategy), checkpoint_every=3)
    with run_directory(tmp_path / "whole") as directory:
        undisturbed = federation.run(directory)
        whole = directory.path
    assert any(event["kind"] == "wait" for event in lines(whole, "events.jsonl"))
    assert {"ok", "lost"} <= {line["code"] for line in lines(whole, "clients.jsonl")}
    assert timeless(federation.run().summary) == timeless(undisturbed.summary)  # without one checkpoint

    with run_directory(tmp_path / "stopped") as directory:
        path = directory.path

        def kill_at(last_round: int) -> Any:
            def kill(record: Mapping[str, Any]) -> None:
                if record["round"] >= last_round:
                    raise Killed

            return kill

        with pytest.raises(Killed):
            federation.run(directory, kill_at(1))
    for last_round in range(2, 13):
        with RunDirectory.reopen(path) as directory, pytest.raises(Killed):
            federation.run(directory, kill_at(last_round), resume=True)
    with RunDirectory.reopen(path) as directory:
        resumed = federation.run(directory, resume=True)
    assert timeless(resumed.summary) == timeless(undisturbed.summary)
    for log in LOGS:
        assert lines(path, log) == lines(whole, log)


def test_a_resumed_run_ends_at_the_limit_of_the_whole_one(
    population: Population, toys: ModuleType, tmp_path: Path
) -> None:
    federation = federation_of(population, toys, FedAvg(cohort_size=4))
    with run_directory(tmp_path / "whole") as directory:
        federation.run(directory)
        waits = [e["waited_s"] for e in lines(directory.path, "events.jsonl") if e["kind"] == "wait"]
    short = dataclasses.replace(federation, max_wait_s=max(waits) - 1e-6)
    with run_directory(tmp_path / "short") as directory:
        with pytest.raises(FederationError, match="max_wait_s") as whole:
            short.run(directory)
        path = directory.path
    with RunDirectory.reopen(path) as directory, pytest.raises(FederationError) as resumed:
        short.run(directory, resume=True)
    assert str(resumed.value) == str(whole.value) and resumed.value.exit_code == 5
    with RunDirectory.reopen(path) as directory:
        dataclasses.replace(federation, max_wait_s=max(waits)).run(directory, resume=True)


def test_without_a_limit_the_run_ends_where_nobody_will_ever_come(
    population: Population, toys: ModuleType, tmp_path: Path
) -> None:
    devices, windows = tmp_path / "devices.csv", tmp_path / "windows.csv"
    columns = "device,kind,flops_per_s,memory_bytes,down_bytes_per_s,up_bytes_per_s,latency_s"
    devices.write_text(f"{columns}\np,cpu,1e9,1e9,1e6,1e6,0.1\n")
    rows = [f"{client},0,20" for client in range(len(population))]
    windows.write_text("\n".join(["client,online_s,offline_s", *rows]))
    fleet = Traces(str(devices), str(windows))
    for strategy in (FedAvg(), FedFix(window_s=7.0)):
        federation = dataclasses.replace(
            federation_of(population, toys, strategy), rounds=500, fleet=fleet, max_wait_s=math.inf
        )
        with pytest.raises(FederationError, match="max_wait_s=inf") as caught:
            federation.run()
        assert caught.value.exit_code == 5
