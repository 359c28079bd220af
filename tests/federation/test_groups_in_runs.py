"""What a run writes about groups, with a toy strategy that moves its clients about."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fedpref.clients.linear_reward import LinearReward
from fedpref.data.synthetic import Synthetic
from fedpref.federation.federation import Federation
from fedpref.maths.weights import weighted_sum
from fedpref.models.given import Given
from fedpref.report.html import write_report
from fedpref.report.rundir import RunDirectory
from fedpref.strategies.fedavg import FedAvg
from fedpref.types import Arrival, ClientId, Fold, Fresh, Plan, Population, Task, Weights

DIM = 6


@dataclass(frozen=True, eq=False)
class Halves:
    """State: two models and the rounds done."""

    models: tuple[Weights, ...]
    num_clients: int
    round: int


@dataclass(frozen=True)
class TwoHalves:
    """Even clients train the first model, odd ones the second; nobody is in a group before round 2."""

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> Halves:
        return Halves((fresh("half", 0), fresh("half", 1)), len(clients), 0)

    def plan(
        self, state: Halves, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[Halves, Plan]:
        return state, Plan([Task(client, state.models[client % 2]) for client in idle])

    def fold(
        self, state: Halves, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        models = []
        for half in (0, 1):
            mine = [
                a.update.weights for a in arrivals if a.update is not None and a.task.client_id % 2 == half
            ]
            mean = weighted_sum(mine, [1 / len(mine)] * len(mine))
            models.append({key: array.astype(np.float32) for key, array in mean.items()})
        state = dataclasses.replace(state, models=tuple(models), round=state.round + 1)
        return Fold(state, updated=True, metrics={"broadcast_ratio": 0.5})

    def groups(self, state: Halves) -> Mapping[ClientId, int]:
        return {} if state.round < 2 else {client: client % 2 for client in range(state.num_clients)}

    def models(self, state: Halves) -> Mapping[str, Weights]:
        return {"half/0": state.models[0], "half/1": state.models[1]}

    def serve(self, state: Halves, client_id: ClientId | None) -> Sequence[Weights]:
        return list(state.models) if client_id is None else [state.models[client_id % 2]]


@pytest.fixture(scope="module")
def population() -> Population:
    return Synthetic(preset="tiny", form="attributes", num_attributes=DIM, test_pairs=30).population(seed=5)


@pytest.fixture
def federation(population: Population) -> Federation:
    rule = LinearReward(Given(DIM), local_steps=4, batch_pairs=8, init_std=0.5)
    return Federation(population, rule, TwoHalves(), rounds=4, seed=3, evaluate_every=2)


def run_directory(path: Path) -> RunDirectory:
    return RunDirectory.create(
        path, "test", config="{}", overrides="[]", config_hash="0" * 64, seed=0, command=["test"]
    )


def test_rounds_that_are_evaluated_say_who_is_in_which_group(federation: Federation) -> None:
    history = federation.run().history
    num_clients = len(federation.population)
    assert [record.get("groups") for record in history] == [
        [None] * num_clients,
        None,
        [client % 2 for client in range(num_clients)],
        None,
        [client % 2 for client in range(num_clients)],
    ]
    assert "ari" not in history[0]["evaluation"] and -1 <= history[2]["evaluation"]["ari"] <= 1


def test_the_models_of_groups_are_compared_at_the_end(federation: Federation, tmp_path: Path) -> None:
    with run_directory(tmp_path) as directory:
        result = federation.run(directory)
        report = write_report(directory.path)
        written = json.loads((directory.path / "agreement.json").read_text())
        users = json.loads((directory.path / "users.json").read_text())
    assert result.agreement is not None and written == result.agreement.as_json()
    assert written["models"] == ["half/0", "half/1"]
    margins = [
        np.concatenate([federation.rule.margins(m, h.pairs) for h in federation.population.held_out])
        for m in result.models.values()
    ]
    expected = np.mean(np.sign(margins[0]) == np.sign(margins[1]))
    assert written["shares"][0][1] == written["shares"][1][0] == pytest.approx(expected)
    assert {user["served_by"] for user in users} == {0, 1}
    assert {"ari", "nmi"} <= result.summary.keys()
    html = report.read_text(encoding="utf-8")
    assert "<h2>Groups</h2>" in html and "half 1" in html and "models sent" in html


def test_a_strategy_of_one_model_has_no_groups(federation: Federation, tmp_path: Path) -> None:
    with run_directory(tmp_path) as directory:
        result = dataclasses.replace(federation, strategy=FedAvg()).run(directory)
        assert not (directory.path / "agreement.json").exists()
    assert result.agreement is None and "ari" not in result.summary
    assert not any("groups" in record for record in result.history)
