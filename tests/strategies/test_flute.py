from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedpref.clients.fedrep import FedRep
from fedpref.clients.flute import Flute as FluteRule
from fedpref.data.synthetic import Synthetic
from fedpref.errors import ConfigurationError
from fedpref.federation.federation import Federation
from fedpref.maths.flute import balance_defect
from fedpref.models.given import Given
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.flute import Flute, FluteState
from fedpref.types import Arrival, ClientRule, Strategy, Task, Update, Weights

DIM, RANK, CLIENTS = 8, 2, 6
B, HEAD = "representation.weight", "head.weight"


def fresh(*address: int | str) -> Weights:
    rng = generator(0, "fresh", *address)
    shapes = {B: (DIM, RANK), HEAD: (1, RANK)}
    return {key: rng.normal(0, 0.3, shape).astype(np.float32) for key, shape in shapes.items()}


def started(strategy: Flute, clients: int = CLIENTS) -> FluteState:
    return strategy.init(fresh, range(clients), 10, generator(0, "init"))


def arrived(task: Task, weights: Weights, num_pairs: int = 5) -> Arrival:
    return Arrival(task, Update(weights, task.weights, num_pairs, {}, task.client_id), "ok", 0, 0.0, 1.0)


def noisy(task: Task) -> Arrival:
    rng = generator(1, "answer", task.client_id)
    moved = {
        key: array + rng.normal(size=array.shape).astype(np.float32) for key, array in task.weights.items()
    }
    return arrived(task, moved)


def lost(task: Task) -> Arrival:
    return Arrival(task, None, "lost", 0, 0.0, 1.0)


def planned(strategy: Flute, state: FluteState, idle: Sequence[int]) -> Sequence[Task]:
    return strategy.plan(state, idle, 0.0, generator(0, "plan"))[1].tasks


def folded(strategy: Flute, state: FluteState, arrivals: Sequence[Arrival]) -> FluteState:
    result: FluteState = strategy.fold(state, arrivals, 1.0, generator(0, "fold")).state
    return result


def test_with_whole_vectors_and_squared_losses_it_finds_the_best_models_of_its_rank() -> None:
    """X = I, from a random start, over the weights as they travel: float32."""
    strategy = Flute(balance=0.1)
    state = started(strategy)
    rng = generator(3, "wanted")
    bases = [np.linalg.qr(rng.standard_normal((side, CLIENTS)))[0] for side in (DIM, CLIENTS)]
    wanted = bases[0] * [4.0, 3.0, 1.5, 1.0, 0.5, 0.2] @ bases[1]

    def answer(task: Task) -> Arrival:
        b, w = task.weights[B].astype(np.float64), task.weights[HEAD][0].astype(np.float64)
        residual = b @ w - wanted[:, task.client_id]
        stepped = {B: b - 0.3 * np.outer(residual, w), HEAD: (w - 0.3 * b.T @ residual)[None]}
        return arrived(task, {key: array.astype(np.float32) for key, array in stepped.items()})

    for _ in range(1500):
        state = folded(strategy, state, [answer(task) for task in planned(strategy, state, range(CLIENTS))])
    served = [strategy.serve(state, client)[0] for client in range(CLIENTS)]
    models = np.stack([weights[B] @ weights[HEAD][0] for weights in served], axis=1)
    left, sizes, right = np.linalg.svd(wanted)
    np.testing.assert_allclose(models, left[:, :RANK] * sizes[:RANK] @ right[:RANK], atol=1e-6 * sizes[0])
    defect = balance_defect(state.shared.weights[B], state.heads[HEAD][:, 0])
    assert np.abs(defect).max() < 1e-6 * sizes[0]


def test_without_server_steps_the_representation_is_fedavgs_and_heads_are_as_sent() -> None:
    strategy, average = Flute(balance=0.0), FedAvg(share="clients")
    state = started(strategy)
    arrivals = [noisy(task) for task in planned(strategy, state, range(CLIENTS))]
    after = folded(strategy, state, arrivals)

    both = average.init(fresh, range(CLIENTS), 10, generator(0, "init"))
    expected = average.fold(both, arrivals, 1.0, generator(0, "fold")).state.weights[B]
    assert after.shared.weights[B].tobytes() == expected.tobytes()
    for arrival in arrivals:
        assert arrival.update is not None
        own = strategy.serve(after, arrival.task.client_id)[0][HEAD]
        assert own.tobytes() == arrival.update.weights[HEAD].tobytes()


def test_a_client_gets_its_own_head_as_the_server_has_edited_it() -> None:
    strategy = Flute(balance=0.1)
    state = started(strategy)
    first = planned(strategy, state, [0, 1, 2])
    state = folded(strategy, state, [noisy(task) for task in first])
    for task in planned(strategy, state, [0, 1, 2]):
        assert task.weights[HEAD].tobytes() == state.heads[HEAD][task.client_id].tobytes()
        sent = noisy(first[task.client_id]).update
        assert sent is not None and not np.array_equal(task.weights[HEAD], sent.weights[HEAD])


def test_clients_that_were_lost_or_have_no_pairs_keep_their_heads() -> None:
    strategy = Flute(balance=0.0)
    state = folded(
        strategy, started(strategy), [noisy(task) for task in planned(strategy, started(strategy), [0, 1])]
    )
    tasks = planned(strategy, state, [0, 1, 2])
    empty = arrived(tasks[1], tasks[1].weights, num_pairs=0)
    after = folded(strategy, state, [noisy(tasks[0]), empty, lost(tasks[2])])
    np.testing.assert_array_equal(after.heads[HEAD][1:], state.heads[HEAD][1:])
    assert after.has_trained.tolist() == [True, True, False, False, False, False]


def test_heads_that_nobody_trained_take_no_part_in_the_balance() -> None:
    few, many = Flute(), Flute()
    states = [started(few, clients=2), started(many, clients=50)]
    ends = [
        folded(s, state, [noisy(task) for task in planned(s, state, [0, 1])])
        for s, state in zip((few, many), states, strict=True)
    ]
    assert ends[0].shared.weights[B].tobytes() == ends[1].shared.weights[B].tobytes()
    np.testing.assert_array_equal(ends[1].heads[HEAD][2:], states[1].heads[HEAD][2:])


def test_a_newcomer_gets_the_mean_of_the_trained_heads() -> None:
    strategy = Flute()
    state = started(strategy)
    assert strategy.serve(state, None)[0][HEAD].tobytes() == fresh("global")[HEAD].tobytes()
    state = folded(strategy, state, [noisy(task) for task in planned(strategy, state, [1, 4])])
    mean = state.heads[HEAD][[1, 4]].mean(axis=0)
    np.testing.assert_allclose(strategy.serve(state, None)[0][HEAD], mean, rtol=1e-6)
    np.testing.assert_allclose(strategy.serve(state, 3)[0][HEAD], mean, rtol=1e-6)  # it never trained
    assert sorted(strategy.models(state)) == ["client/1", "client/4", "global"]


def test_the_svd_step_waits_for_as_many_clients_as_directions_and_then_balances_at_once() -> None:
    strategy, plain = Flute(balance=0.0, server_svd=True), Flute(balance=0.0)
    state = started(strategy)
    one = [noisy(task) for task in planned(strategy, state, [0])]
    assert folded(strategy, state, one).shared.weights[B].tobytes() == (
        folded(plain, state, one).shared.weights[B].tobytes()
    )
    three = [noisy(task) for task in planned(strategy, state, [0, 1, 2])]
    after, before = folded(strategy, state, three), folded(plain, state, three)
    np.testing.assert_allclose(
        balance_defect(after.shared.weights[B], after.heads[HEAD][:3, 0]), 0.0, atol=1e-5
    )
    for client in range(3):
        found, sent = (s.shared.weights[B] @ s.heads[HEAD][client, 0] for s in (after, before))
        np.testing.assert_allclose(found, sent, atol=1e-5)


def test_the_log_says_how_far_from_balance_the_factors_are() -> None:
    strategy = Flute()
    state = started(strategy)
    fold = strategy.fold(
        state, [noisy(t) for t in planned(strategy, state, [0, 1])], 1.0, generator(0, "fold")
    )
    assert 0 < fold.metrics["balance_defect"] <= 1
    exact = Flute(server_svd=True)
    fold = exact.fold(state, [noisy(t) for t in planned(exact, state, [0, 1])], 1.0, generator(0, "fold"))
    assert fold.metrics["balance_defect"] < 1e-12


def test_a_rule_without_factors_is_refused_unless_nothing_is_balanced() -> None:
    def plain(*address: int | str) -> Weights:
        return {"score.weight": np.zeros((1, 3), np.float32)}

    for strategy in (Flute(), Flute(balance=0.0, server_svd=True)):
        with pytest.raises(ConfigurationError, match=r"strategy\.balance=.*client=flute"):
            strategy.init(plain, range(3), 10, generator(0, "init"))
    strategy = Flute(balance=0.0)
    state = strategy.init(plain, range(3), 10, generator(0, "init"))
    state = folded(strategy, state, [noisy(task) for task in planned(strategy, state, range(3))])
    assert sorted(strategy.models(state)) == ["global"]


@pytest.mark.parametrize("balance", [-0.1, 0.5, float("nan")])
def test_a_balance_step_that_diverges_is_refused(balance: float) -> None:
    with pytest.raises(ConfigurationError, match=r"strategy\.balance="):
        Flute(balance=balance)


def test_without_server_steps_whole_runs_are_those_of_fedrep_with_a_joint_last_phase() -> None:
    """Cohorts are drawn; what FLUTE's server keeps, FedRep's clients keep; both serve after final steps."""
    population = Synthetic(preset="tiny", form="attributes").population(0)
    backbone = Given(np.asarray(population.shards[0].pairs.chosen).shape[1])
    runs: list[tuple[ClientRule, Strategy[Any]]] = [
        (FluteRule(backbone, rank=2, head_steps=3, joint_steps=2), Flute(cohort_size=3, balance=0.0)),
        (
            FedRep(backbone, rank=2, head_steps=3, representation_steps=0, joint_steps=2),
            FedAvg(cohort_size=3, share="clients"),
        ),
    ]
    flute, fedrep = (Federation(population, *run, rounds=5, seed=0, evaluate_every=5).run() for run in runs)
    assert flute.models["global"][B].tobytes() == fedrep.models["global"][B].tobytes()
    # Those that never trained start from the mean head in FLUTE, and from zero in FedRep.
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


def test_a_fold_leaves_the_state_that_it_was_given() -> None:
    strategy = Flute(server_svd=True)
    state = started(strategy)
    copies = replace(state, heads={HEAD: state.heads[HEAD].copy()}, has_trained=state.has_trained.copy())
    folded(strategy, state, [noisy(task) for task in planned(strategy, state, range(CLIENTS))])
    np.testing.assert_array_equal(state.heads[HEAD], copies.heads[HEAD])
    np.testing.assert_array_equal(state.has_trained, copies.has_trained)
