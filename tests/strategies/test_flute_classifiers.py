"""FLUTE with classifiers: what its server does to heads of several rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fedpref.clients.flute_selector import FluteSelector
from fedpref.clients.selector import Selector
from fedpref.data.synthetic import Synthetic
from fedpref.errors import ConfigurationError
from fedpref.federation.federation import Federation
from fedpref.federation.plain import from_plain, state_classes, to_plain
from fedpref.maths.flute import collapse_defect, collapse_gradient
from fedpref.models.given import Given
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedbis import FedBis
from fedpref.strategies.flute import Flute, FluteState
from fedpref.types import (
    Arrival,
    ClientRule,
    ClientState,
    Pairs,
    Reply,
    Shard,
    Strategy,
    Task,
    Update,
    Weights,
)

CLIENTS = 6
ROWS, BIASES = "head.weight", "head.bias"
SHAPES = {"representation.weight": (3, 8), "representation.bias": (3,), ROWS: (2, 3), BIASES: (2,)}


def fresh(*address: int | str) -> Weights:
    rng = generator(0, "fresh", *address)
    return {key: rng.normal(0, 0.5, shape).astype(np.float32) for key, shape in SHAPES.items()}


def started(strategy: Flute, clients: int = CLIENTS) -> FluteState:
    return strategy.init(fresh, range(clients), 10, generator(0, "init"))


def noisy(task: Task, num_pairs: int = 5) -> Arrival:
    rng = generator(1, "answer", task.client_id)
    moved = {
        key: array + rng.normal(size=array.shape).astype(np.float32) for key, array in task.weights.items()
    }
    update = Update(moved, task.weights, num_pairs, {}, task.client_id)
    return Arrival(task, update, "ok", 0, 0.0, 1.0)


def planned(strategy: Flute, state: FluteState, idle: Sequence[int]) -> Sequence[Task]:
    return strategy.plan(state, idle, 0.0, generator(0, "plan"))[1].tasks


def folded(strategy: Flute, state: FluteState, arrivals: Sequence[Arrival]) -> FluteState:
    result: FluteState = strategy.fold(state, arrivals, 1.0, generator(0, "fold")).state
    return result


def test_the_rows_that_came_take_one_step_on_their_mean_defect_and_nothing_else_moves() -> None:
    strategy, plain = Flute(collapse_lr=0.5), Flute(collapse_lr=0.0)
    state = started(strategy)
    arrivals = [noisy(task) for task in planned(strategy, state, [0, 1, 4])]
    edited, sent = folded(strategy, state, arrivals), folded(plain, state, arrivals)
    for client in (0, 1, 4):
        rows = sent.heads[ROWS][client].astype(np.float64)
        expected = rows - 0.5 / 3 * collapse_gradient(rows)
        np.testing.assert_allclose(edited.heads[ROWS][client], expected, atol=1e-7)
        assert not np.array_equal(edited.heads[ROWS][client], sent.heads[ROWS][client])
    for client in (2, 3, 5):
        assert edited.heads[ROWS][client].tobytes() == fresh("global")[ROWS].tobytes()
    assert edited.heads[BIASES].tobytes() == sent.heads[BIASES].tobytes()
    for key, array in sent.shared.weights.items():
        assert edited.shared.weights[key].tobytes() == array.tobytes()


def test_without_the_step_all_but_the_heads_is_fedavgs_and_heads_are_as_sent() -> None:
    strategy, average = Flute(collapse_lr=0.0), FedAvg(share="clients")
    state = started(strategy)
    arrivals = [noisy(task) for task in planned(strategy, state, range(CLIENTS))]
    after = folded(strategy, state, arrivals)
    both = average.init(fresh, range(CLIENTS), 10, generator(0, "init"))
    expected = average.fold(both, arrivals, 1.0, generator(0, "fold")).state.weights
    assert set(after.shared.weights) == {"representation.weight", "representation.bias"}
    for key, array in after.shared.weights.items():
        assert array.tobytes() == expected[key].tobytes()
    for arrival in arrivals:
        assert arrival.update is not None
        own = strategy.serve(after, arrival.task.client_id)[0]
        for key in (ROWS, BIASES):
            assert own[key].tobytes() == arrival.update.weights[key].tobytes()


def test_the_edited_head_travels_down_whole_when_its_client_works_again() -> None:
    strategy = Flute()
    state = started(strategy)
    state = folded(strategy, state, [noisy(task) for task in planned(strategy, state, [0, 1])])
    for task in planned(strategy, state, [0, 1]):
        assert set(task.weights) == set(SHAPES)
        for key in (ROWS, BIASES):
            assert task.weights[key].tobytes() == state.heads[key][task.client_id].tobytes()


def test_heads_of_clients_that_were_lost_or_have_no_pairs_stay_and_count_for_nothing() -> None:
    strategy = Flute()
    state = started(strategy)
    state = folded(strategy, state, [noisy(task) for task in planned(strategy, state, range(4))])
    tasks = planned(strategy, state, [0, 1, 2])
    one = folded(strategy, state, [noisy(tasks[0])])
    lost = Arrival(tasks[1], None, "lost", 0, 0.0, 1.0)
    after = folded(strategy, state, [noisy(tasks[0]), lost, noisy(tasks[2], num_pairs=0)])
    for key in (ROWS, BIASES):
        np.testing.assert_array_equal(after.heads[key], one.heads[key])
        np.testing.assert_array_equal(after.heads[key][1:], state.heads[key][1:])


def test_a_newcomer_gets_the_mean_of_rows_and_biases_of_those_that_trained() -> None:
    strategy = Flute()
    state = started(strategy)
    state = folded(strategy, state, [noisy(task) for task in planned(strategy, state, [1, 4])])
    served = strategy.serve(state, None)[0]
    for key in (ROWS, BIASES):
        np.testing.assert_allclose(served[key], state.heads[key][[1, 4]].mean(axis=0), rtol=1e-6)


def test_the_log_says_how_far_the_heads_that_came_are_from_collapse() -> None:
    defects = []
    for collapse_lr in (0.0, 0.5):
        strategy = Flute(collapse_lr=collapse_lr)
        state = started(strategy)
        arrivals = [noisy(task) for task in planned(strategy, state, [0, 3])]
        fold = strategy.fold(state, arrivals, 1.0, generator(0, "fold"))
        rows = fold.state.heads[ROWS][[0, 3]].astype(np.float64)
        assert fold.metrics["collapse_defect"] == pytest.approx(np.mean([collapse_defect(r) for r in rows]))
        defects.append(fold.metrics["collapse_defect"])
    assert defects[1] < defects[0]


def test_rows_and_biases_survive_a_checkpoint() -> None:
    strategy = Flute()
    state = started(strategy)
    state = folded(strategy, state, [noisy(task) for task in planned(strategy, state, [0, 3])])
    arrays: dict[str, np.ndarray] = {}
    tree = to_plain(state, arrays)
    resumed = from_plain(tree, arrays, state_classes(strategy))
    for client in (None, 0, 1, 3):
        one, other = strategy.serve(state, client)[0], strategy.serve(resumed, client)[0]
        assert {key: array.tobytes() for key, array in one.items()} == {
            key: array.tobytes() for key, array in other.items()
        }


def test_steps_on_linear_heads_are_not_for_classifiers() -> None:
    with pytest.raises(ConfigurationError, match=r"strategy\.server_svd=true: heads of 2 rows"):
        started(Flute(server_svd=True))
    many, few = started(Flute(balance=0.4)), started(Flute(balance=0.0))
    tasks = planned(Flute(), many, [0, 1])
    ends = [
        folded(Flute(balance=balance), state, [noisy(task) for task in tasks])
        for balance, state in ((0.4, many), (0.0, few))
    ]
    np.testing.assert_array_equal(ends[0].heads[ROWS], ends[1].heads[ROWS])


@pytest.mark.parametrize("collapse_lr", [-0.1, float("nan"), float("inf")])
def test_a_step_that_is_no_step_is_refused(collapse_lr: float) -> None:
    with pytest.raises(ConfigurationError, match=r"strategy\.collapse_lr="):
        Flute(collapse_lr=collapse_lr)


# ------------------------------------------------------------------------------------- whole runs


@dataclass(frozen=True)
class HeadAtHome:
    """FedRep's messages: the same training, but the head stays in the client's state."""

    rule: FluteSelector

    def fresh(self, rng: np.random.Generator) -> Weights:
        return self._shared(self.rule.fresh(rng))

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        return self.rule.margins(self._whole(weights, ClientState()), pairs)

    def both_orders(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        return self.rule.both_orders(self._whole(weights, ClientState()), pairs)

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        return self.rule.personalise(self._whole(weights, state), shard, state)

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        whole = replace(task, weights=self._whole(task.weights, state))
        reply, _ = self.rule.answer(whole, shard, ClientState(), rng)
        head = {key: array for key, array in reply.weights.items() if key.startswith("head.")}
        return reply._replace(weights=self._shared(reply.weights)), ClientState(head)

    def _whole(self, weights: Weights, state: ClientState) -> Weights:
        first = {key: self.first_head[key] for key in (ROWS, BIASES)}
        return {**first, **state.arrays, **weights}

    @property
    def first_head(self) -> Weights:
        return self.rule.fresh(generator(0, "fresh", "global"))

    @staticmethod
    def _shared(weights: Weights) -> Weights:
        return {key: array for key, array in weights.items() if not key.startswith("head.")}


def test_without_regularisers_whole_runs_are_those_of_fedrep_with_a_joint_last_epoch() -> None:
    """What FLUTE's server keeps, FedRep's clients keep: the same representation and heads, to the bit."""
    population = Synthetic(preset="tiny", form="attributes").population(0)
    backbone = Given(np.asarray(population.shards[0].pairs.chosen).shape[1])
    rule = FluteSelector(
        backbone, width=3, head_steps=5, joint_steps=3, collapse=0.0, head_decay=0.0, feature_decay=0.0
    )
    runs: list[tuple[ClientRule, Strategy[Any]]] = [
        (rule, Flute(cohort_size=3, collapse_lr=0.0)),
        (HeadAtHome(rule), FedAvg(cohort_size=3, share="clients")),
    ]
    flute, fedrep = (Federation(population, *run, rounds=5, seed=0, evaluate_every=5).run() for run in runs)
    for key, array in fedrep.models["global"].items():
        assert flute.models["global"][key].tobytes() == array.tobytes()
    trained = {int(name.removeprefix("client/")) for name in flute.models if name != "global"}
    scores = [
        [
            (user.name, user.accuracy, user.loss)
            for user in result.evaluation.users
            if user.client_id in trained
        ]
        for result in (flute, fedrep)
    ]
    assert len(scores[0]) >= 3 and scores[0] == scores[1]


def test_people_in_conflict_are_served_better_than_by_one_selector() -> None:
    population = Synthetic(preset="conflict", form="attributes", num_clients=30).population(0)
    backbone = Given(12)
    found = {
        name: Federation(population, rule, strategy, rounds=20, seed=0, evaluate_every=20)
        .run()
        .evaluation.aggregate
        for name, rule, strategy in (
            ("flute", FluteSelector(backbone), Flute(cohort_size=6)),
            ("fedbis", Selector(backbone), FedBis(cohort_size=6)),
        )
    }
    assert found["flute"]["worst_group"] > found["fedbis"]["worst_group"] + 0.15
    assert found["flute"]["user_accuracy"] > found["fedbis"]["user_accuracy"] + 0.03
