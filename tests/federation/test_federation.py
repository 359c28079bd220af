"""The whole engine on a population of feature vectors, small enough to run many times."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAdam, FedAvgM

from fedpref.clients.linear_reward import LinearReward
from fedpref.data.assembly import pool
from fedpref.data.synthetic import Synthetic
from fedpref.errors import ConfigurationError
from fedpref.federation.federation import Federation
from fedpref.flower.native import FlowerStrategy
from fedpref.models.given import Given
from fedpref.report.rundir import RunDirectory
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedprox import FedProx
from fedpref.strategies.local_only import LocalOnly
from fedpref.strategies.tail_average import TailAverage
from fedpref.types import Population, Shard

DIM = 6
RULE = LinearReward(Given(DIM), local_steps=4, batch_pairs=8, lr=0.3, init_std=0.5)


@pytest.fixture(scope="module")
def population() -> Population:
    return Synthetic(preset="tiny", form="attributes", num_attributes=DIM, test_pairs=30).population(seed=5)


@pytest.fixture
def federation(population: Population) -> Federation:
    return Federation(population, RULE, FedAvg(cohort_size=6), rounds=4, seed=3)


def run_directory(path: Path) -> RunDirectory:
    return RunDirectory.create(
        path, "test", config="{}", overrides="[]", config_hash="0" * 64, seed=0, command=["test"]
    )


def timeless(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "wall_s"}


def test_full_participation_with_one_full_batch_step_is_one_centralised_step(population: Population) -> None:
    one_step = LinearReward(Given(DIM), local_steps=1, batch_pairs=None, lr=0.5, init_std=1.0)
    federated = Federation(population, one_step, FedAvg(), rounds=5, seed=1).run()
    central = Federation(pool(population), one_step, FedAvg(), rounds=5, seed=1).run()
    # and by hand: w <- w + lr * mean over all pairs of sigmoid(-w.z) z
    pairs = pool(population).shards[0].pairs
    z = np.asarray(pairs.chosen, np.float64) - np.asarray(pairs.rejected, np.float64)
    start = Federation(population, one_step, FedAvg(), rounds=1, seed=1)
    with start.grid() as grid:
        w = start.start(grid).state.weights["score.weight"][0].astype(np.float64)
    assert np.linalg.norm(w) > 1
    for _ in range(5):
        w = w + 0.5 * np.mean(z / (1 + np.exp(z @ w))[:, None], axis=0)
    np.testing.assert_allclose(federated.models["global"]["score.weight"][0], w, atol=1e-6)
    np.testing.assert_allclose(central.models["global"]["score.weight"][0], w, atol=1e-6)


def test_fedprox_without_its_term_is_fedavg_to_the_bit(federation: Federation) -> None:
    fedprox = dataclasses.replace(federation, strategy=FedProx(mu=0.0, cohort_size=6))
    pulled = dataclasses.replace(federation, strategy=FedProx(mu=1.0, cohort_size=6))
    plain_sha = federation.run().summary["weights_sha256"]
    assert fedprox.run().summary["weights_sha256"] == plain_sha
    assert pulled.run().summary["weights_sha256"] != plain_sha


def test_one_seed_gives_one_run_and_two_seeds_two(federation: Federation) -> None:
    first, again = federation.run(), federation.run()
    assert [timeless(r) for r in first.history] == [timeless(r) for r in again.history]
    assert timeless(first.summary) == timeless(again.summary)
    other = dataclasses.replace(federation, seed=4).run()
    assert other.summary["weights_sha256"] != first.summary["weights_sha256"]


def test_clients_are_permuted_without_changing_anything_but_rounding(population: Population) -> None:
    order = list(reversed(range(len(population))))
    turned = Population(
        [Shard(i, population.shards[j].name, population.shards[j].pairs) for i, j in enumerate(order)],
        [
            dataclasses.replace(held_out, client_id=order.index(held_out.client_id))
            for held_out in population.held_out
            if held_out.client_id is not None
        ],
        population.truth,
    )
    rule = dataclasses.replace(RULE, batch_pairs=None)
    models = [
        Federation(p, rule, FedAvg(), rounds=3, seed=0).run().models["global"]["score.weight"]
        for p in (population, turned)
    ]
    np.testing.assert_allclose(models[0], models[1], atol=1e-6)


def test_a_federation_of_one_client_is_that_client_alone(population: Population) -> None:
    alone = Population(population.shards[:1], population.held_out[:1])
    federated = Federation(alone, RULE, FedAvg(), rounds=3).run()
    local = Federation(alone, RULE, LocalOnly(), rounds=3).run()
    np.testing.assert_array_equal(
        federated.models["global"]["score.weight"], local.models["client/0"]["score.weight"]
    )


def test_learning_beats_the_start_and_stays_below_the_oracle(federation: Federation) -> None:
    rule = dataclasses.replace(RULE, init_std=0.0, local_steps=10)
    result = dataclasses.replace(federation, rule=rule, rounds=20).run()
    first = result.history[0]["evaluation"]
    assert first["pair_accuracy"] == 0.5  # a zero head ties everywhere
    assert first["loss"] == pytest.approx(np.log(2))
    assert result.summary["user_accuracy"] > 0.6
    assert result.summary["user_accuracy"] < result.summary["oracle"]
    assert result.summary["regret"] == pytest.approx(
        result.summary["oracle"] - result.summary["user_accuracy"]
    )


def test_bytes_add_up_to_the_weights_that_travelled(federation: Federation) -> None:
    summary = federation.run().summary
    assert summary["raw_bytes_down"] == summary["raw_bytes_up"] == 4 * 6 * DIM * 4  # rounds, clients, floats
    assert summary["bytes_down"] > summary["raw_bytes_down"]
    assert summary["replies_ok"] == 24 and summary["replies_failed"] == 0


RESUMABLE = {
    "fedavg": FedAvg(cohort_size=6),
    "fedprox": FedProx(mu=0.1, straggler_fraction=0.5, local_steps=4, cohort_size=6),
    "local_only": LocalOnly(cohort_size=6),
    "tail_average": TailAverage(FedAvg(cohort_size=6), fraction=0.5),
    "fedadam of Flower": FlowerStrategy(FedAdam(), 6),
    "fedavgm of Flower": FlowerStrategy(FedAvgM(server_momentum=0.9), 6),
}


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_killed_run_goes_on_to_the_same_bits_and_lines(
    federation: Federation, tmp_path: Path, name: str
) -> None:
    federation = dataclasses.replace(
        federation, rounds=6, checkpoint_every=2, evaluate_every=2, strategy=RESUMABLE[name]
    )
    with run_directory(tmp_path / "whole") as directory:
        undisturbed = federation.run(directory)
        whole = directory.path

    class Killed(Exception):
        pass

    for last_round in (1, 2, 3, 5):

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
        for log in ("metrics.jsonl", "clients.jsonl", "events.jsonl"):
            lines = [
                [timeless(json.loads(line)) for line in (folder / log).read_text().splitlines()]
                for folder in (whole, path)
            ]
            assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "rounds=0"),
        ({"evaluate_every": 0}, r"evaluation\.every=0"),
        ({"checkpoint_every": -1}, r"checkpoint\.every=-1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    federation: Federation, change: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        dataclasses.replace(federation, **change)  # type: ignore[arg-type]


def test_a_client_without_pairs_is_named(population: Population) -> None:
    shards = list(population.shards)
    shards[2] = Shard(2, "mute", shards[2].pairs.take([]))
    with pytest.raises(ConfigurationError, match=r"client 2 \(mute\) has no training pairs"):
        Federation(Population(shards, population.held_out), RULE, FedAvg(), rounds=1)


def test_a_cohort_larger_than_the_population_is_refused(federation: Federation) -> None:
    with pytest.raises(ConfigurationError, match="cohort_size=17 is larger than the population of 16"):
        dataclasses.replace(federation, strategy=FedAvg(cohort_size=17)).run()
