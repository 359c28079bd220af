"""An asynchronous strategy, clients with a memory, and clients that fail, through the whole engine."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fedpref.clients.linear_reward import LinearReward
from fedpref.data.synthetic import Synthetic
from fedpref.errors import FederationError
from fedpref.federation.federation import Federation
from fedpref.models.given import Given
from fedpref.report.rundir import RunDirectory
from fedpref.simulation.device_classes import DeviceClass, Mix
from fedpref.simulation.ray import RayPool
from fedpref.strategies.fedavg import FedAvg
from fedpref.types import Population

DIM = 6
LOGS = ("metrics.jsonl", "clients.jsonl", "events.jsonl")
# So slow that the sizes of the shards part the clients' arrivals.
SLOW = Mix({"device": DeviceClass(flops_per_s=1e3)})


@pytest.fixture(scope="module")
def population() -> Population:
    return Synthetic(preset="tiny", form="attributes", num_attributes=DIM, test_pairs=10).population(seed=5)


def federation_of(population: Population, toys: ModuleType, **rule: Any) -> Federation:
    momentum = toys.Momentum(LinearReward(Given(DIM), local_steps=4, batch_pairs=8, init_std=0.5), **rule)
    strategy = toys.Buffered()
    return Federation(population, momentum, strategy, rounds=8, seed=3, fleet=SLOW, checkpoint_every=1)


def run_directory(path: Path) -> RunDirectory:
    return RunDirectory.create(
        path, "test", config="{}", overrides="[]", config_hash="0" * 64, seed=0, command=["test"]
    )


def timeless(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "wall_s"}


def lines(folder: Path, log: str) -> list[dict[str, Any]]:
    return [timeless(json.loads(line)) for line in (folder / log).read_text().splitlines()]


@pytest.mark.parametrize(
    "case",
    ["buffered", "buffered with expiry", "buffered with faults", "synchronous"],
)
def test_a_killed_run_with_work_in_flight_goes_on_to_the_same_bits(
    population: Population, toys: ModuleType, tmp_path: Path, case: str
) -> None:
    faults = {1: "nan", 4: "raise", 7: "claim", 9: "norm"} if "faults" in case else {}
    federation = federation_of(population, toys, faults=faults, fails_in=(0, 1))
    if "expiry" in case:
        federation = dataclasses.replace(federation, strategy=toys.Buffered(expires_after_s=1.5))
    if case == "synchronous":
        federation = dataclasses.replace(federation, strategy=FedAvg(cohort_size=6))
    with run_directory(tmp_path / "whole") as directory:
        undisturbed = federation.run(directory)
        whole = directory.path
    arrived = lines(whole, "clients.jsonl")
    codes = {line["code"] for line in arrived}
    assert max(line.get("answers", 0) for line in arrived) >= 2  # a state that was kept has been used
    if case != "synchronous":
        assert max(line["staleness"] for line in arrived) >= 1
    assert codes >= ({"expired"} if "expiry" in case else {"ok"})
    assert not faults or codes == {"ok", "non_finite", "client_failed", "weight_claim", "norm"}

    class Killed(Exception):
        pass

    for last_round in (1, 4, 7):

        def kill(record: Mapping[str, Any], last_round: int = last_round) -> None:
            if record["round"] == last_round:
                raise Killed

        with run_directory(tmp_path / str(last_round)) as directory:
            with pytest.raises(Killed):
                federation.run(directory, kill)
            path = directory.path
        with RunDirectory.reopen(path) as directory:
            resumed = federation.run(directory, resume=True)
        assert timeless(resumed.summary) == timeless(undisturbed.summary)
        for log in LOGS:
            assert lines(path, log) == lines(whole, log)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray leaves pipes open
def test_ray_gives_the_bytes_of_inline_with_states_failures_and_work_in_flight(
    population: Population, toys: ModuleType
) -> None:
    from ray import cloudpickle

    inline = federation_of(population, toys, faults={1: "nan", 4: "raise", 6: "exit"}, fails_in=(0, 1))
    cloudpickle.register_pickle_by_value(toys)
    try:
        runs = [
            dataclasses.replace(inline, executor=executor).run()
            for executor in (inline.executor, RayPool(num_workers=2))
        ]
    finally:
        cloudpickle.unregister_pickle_by_value(toys)
    assert runs[0].summary["replies_failed"] > 0
    assert [timeless(r) for r in runs[0].history] == [timeless(r) for r in runs[1].history]
    assert timeless(runs[0].summary) == timeless(runs[1].summary)


@pytest.mark.parametrize("fault", ["raise", "exit", "nan", "shape", "norm", "claim", "flops"])
def test_a_bad_client_leaves_the_model_as_if_it_had_never_been_asked(
    population: Population, toys: ModuleType, fault: str
) -> None:
    bad = dataclasses.replace(
        federation_of(population, toys, faults={0: fault}), strategy=FedAvg(share="clients"), rounds=1
    )
    summary = bad.run()
    assert summary.summary["replies_failed"] == 1 and summary.summary["replies_ok"] == 15
    others = []
    with bad.grid() as grid:
        rounds = bad.start(grid)
        before = rounds.state.weights
        others = [arrival.update for arrival in rounds.advance().arrivals if arrival.task.client_id != 0]
    mean = sum(update.delta["score.weight"] for update in others if update is not None) / 15
    expected = before["score.weight"] + mean
    np.testing.assert_allclose(summary.models["global"]["score.weight"], expected, rtol=1e-6)


@pytest.mark.parametrize("fault", ["raise", "exit", "nan", "flops"])
def test_a_run_in_which_every_client_fails_ends_with_exit_code_5_and_no_result(
    population: Population, toys: ModuleType, tmp_path: Path, fault: str
) -> None:
    everybody = dict.fromkeys(range(len(population)), fault)
    for strategy in (toys.Buffered(), FedAvg(cohort_size=6)):
        federation = dataclasses.replace(federation_of(population, toys, faults=everybody), strategy=strategy)
        with (
            run_directory(tmp_path / type(strategy).__name__) as directory,
            pytest.raises(FederationError, match="no client answered") as caught,
        ):
            federation.run(directory)
        assert caught.value.exit_code == 5
        assert not (directory.path / "summary.json").exists()
