"""The privacy card of a whole run: what left, what stayed, and the same after a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpref.clients.linear_reward import LinearReward
from fedpref.data.synthetic import Synthetic
from fedpref.federation.federation import Federation
from fedpref.models.given import Given
from fedpref.report.html import write_report
from fedpref.report.rundir import RunDirectory
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.ifca import Ifca
from fedpref.strategies.local_only import LocalOnly
from fedpref.types import ClientState, Reply, Shard, Strategy, Task, Weights

DIM = 6


@dataclass(frozen=True)
class OwnMean(LinearReward):
    """Adds the mean of a client's own feature differences, which it keeps as ``own.mean``."""

    scale: float = 0.0

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        reply, _ = super().answer(task, shard, state, rng)
        differences = np.asarray(shard.pairs.chosen) - np.asarray(shard.pairs.rejected)
        return reply, ClientState({"own.mean": differences.mean(axis=0)}, {"tasks": task.number})

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        if "own.mean" not in state.arrays:
            return weights
        return {
            key: (w + self.scale * state.arrays["own.mean"]).astype(w.dtype) for key, w in weights.items()
        }


@pytest.fixture
def federation() -> Federation:
    population = Synthetic(preset="tiny", form="attributes", num_attributes=DIM, test_pairs=30).population(5)
    rule = OwnMean(Given(DIM), local_steps=4, batch_pairs=8, scale=0.5)
    return Federation(population, rule, FedAvg(cohort_size=6), rounds=5, seed=3, checkpoint_every=2)


def run_directory(path: Path) -> RunDirectory:
    return RunDirectory.create(
        path, "test", config="{}", overrides="[]", config_hash="0" * 64, seed=0, command=["test"]
    )


def test_the_card_of_a_run_names_what_left_and_what_stayed(federation: Federation, tmp_path: Path) -> None:
    with run_directory(tmp_path) as directory:
        result = federation.run(directory)
    card = json.loads((directory.path / "privacy.json").read_text())
    sent, kept = card["sent"], card["kept"]
    model = result.models["global"]
    assert {row["name"]: tuple(row["shape"]) for row in sent["tensors"]} == {
        name: array.shape for name, array in model.items()
    }
    assert sent["replies"] == result.summary["replies_ok"] == 5 * 6
    assert sent["tensor_bytes"] == result.summary["raw_bytes_up"]
    assert [(row["name"], row["shape"]) for row in kept["arrays"]] == [("own.mean", [DIM])]
    assert [row["name"] for row in kept["numbers"]] == ["tasks"]
    assert kept["clients"] == kept["arrays"][0]["clients"] == sent["clients"]
    assert "own.mean" in write_report(directory.path).read_text(encoding="utf-8")


def tensors_of(card: Mapping[str, Any], part: str) -> dict[str, int]:
    return {row["name"]: row["clients" if part == "held" else "receivers"] for row in card[part]}


@pytest.mark.parametrize(
    ("strategy", "held", "passed_on"),
    [
        (FedAvg(cohort_size=6), {}, {}),
        (FedAvg(cohort_size=1), {}, {"score.weight": 4}),  # four rounds have another client's model before
        (LocalOnly(), {"score.weight": 16}, {}),
        (Ifca(num_heads=12, restarts=1, cohort_size=12), None, {"score.weight": 16}),
    ],
    ids=["mean", "mean of one", "alone", "groups of one"],
)
def test_the_card_says_what_the_server_holds_of_one_client_and_shows_to_others(
    tmp_path: Path,
    federation: Federation,
    strategy: Strategy[Any],
    held: Mapping[str, int] | None,
    passed_on: Mapping[str, int],
) -> None:
    with run_directory(tmp_path) as directory:
        replace(federation, strategy=strategy).run(directory)
    card = json.loads((directory.path / "privacy.json").read_text())
    assert tensors_of(card, "passed_on") == passed_on
    if held is not None:
        assert tensors_of(card, "held") == held
    else:  # as many heads as clients: some are chosen by one client alone
        assert 0 < tensors_of(card, "held")["score.weight"] <= 12


def test_a_killed_run_ends_with_the_same_card(federation: Federation, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(record: Mapping[str, Any]) -> None:
        if record["round"] == 3:
            raise Killed

    with run_directory(tmp_path / "whole") as directory:
        federation.run(directory)
        expected = (directory.path / "privacy.json").read_text()
    with run_directory(tmp_path / "killed") as directory:
        with pytest.raises(Killed):
            federation.run(directory, kill)
        path = directory.path
    assert not (path / "privacy.json").exists()
    with RunDirectory.reopen(path) as directory:
        federation.run(directory, resume=True)
    assert (path / "privacy.json").read_text() == expected


def test_people_are_compared_with_what_they_would_be_served_without_their_own_part(
    federation: Federation,
) -> None:
    result = federation.run()
    with_part = {user.name: user for user in result.evaluation.users}
    assert all(user.shared_accuracy is not None for user in with_part.values())
    gains = [user.accuracy - (user.shared_accuracy or 0.0) for user in with_part.values()]
    assert any(gain != 0.0 for gain in gains)
    assert result.summary["personal_gain"] == pytest.approx(np.mean(gains))
