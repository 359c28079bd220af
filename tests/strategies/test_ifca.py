from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from fedpref.clients.linear_reward import LinearReward
from fedpref.errors import ConfigurationError
from fedpref.maths.weights import digest
from fedpref.models import Given
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.ifca import Heads, Ifca, starts
from fedpref.types import Arrival, ClientState, Fold, Pairs, Shard, Strategy, Task, Update, Weights

NUM_CLIENTS, DIM = 12, 4
RULE = LinearReward(Given(DIM), local_steps=20, batch_pairs=None)


def fresh(*address: int | str) -> Weights:
    return {"w": generator(0, "fresh", *address).normal(size=3).astype(np.float32)}


def update(task: Task, losses: Mapping[int, Sequence[float]]) -> Update:
    if task.kind == "score":
        values = losses.get(task.client_id, [1.0] * 9)
        metrics = {f"loss_{u}": loss for u, loss in enumerate(values)}
        return Update({}, {}, 1 + task.client_id, metrics, task.client_id)
    noise = generator(1, "task", task.number).normal(size=3)
    weights = {"w": (task.weights["w"] + noise).astype(np.float32)}
    metrics = {"loss_before": float(task.client_id)}
    return Update(weights, task.weights, 1 + task.client_id, metrics, task.client_id)


def step(
    strategy: Strategy[Any],
    state: Any,
    number: int,
    losses: Mapping[int, Sequence[float]] | None = None,
    lost: Sequence[int] = (),
    idle: Sequence[int] = range(NUM_CLIENTS),
) -> tuple[Any, Sequence[Task], Fold]:
    state, plan = strategy.plan(state, idle, 0.0, generator(0, "plan", number))
    tasks = [dataclasses.replace(t, number=100 * number + i) for i, t in enumerate(plan.tasks)]
    arrivals = [
        Arrival(task, None if task.client_id in lost else update(task, losses or {}), "", 0, 0.0, 1.0)
        for task in tasks
    ]
    fold = strategy.fold(state, arrivals, 0.0, generator(0, "fold", number))
    return fold.state, tasks, fold


def start(strategy: Strategy[Any], horizon: int = 100) -> Any:
    return strategy.init(fresh, range(NUM_CLIENTS), horizon, generator(0, "init"))


def two_tastes(num_pairs: int = 40) -> list[Shard]:
    """Clients of even number prefer what those of odd number reject."""
    shards = []
    for client in range(NUM_CLIENTS):
        left, right = generator(0, "responses", client).standard_normal((2, num_pairs, DIM))
        likes_left = ((left - right).sum(axis=1) > 0) == (client % 2 == 0)
        chosen, rejected = (
            np.where(likes_left[:, None], *sides).astype(np.float32)
            for sides in ((left, right), (right, left))
        )
        empty = ("",) * num_pairs
        shards.append(Shard(client, str(client), Pairs(empty, chosen, rejected, empty, empty)))
    return shards


def run(strategy: Ifca, shards: Sequence[Shard], rounds: int) -> Heads:
    state = strategy.init(
        lambda *address: RULE.fresh(generator(0, *address)), range(len(shards)), rounds, generator(0, "init")
    )
    version = number = 0
    while version < rounds:
        state, plan = strategy.plan(state, range(len(shards)), 0.0, generator(0, "plan", number))
        arrivals = []
        for task in plan.tasks:
            shard = shards[task.client_id]
            reply, _ = RULE.answer(task, shard, ClientState(), generator(0, "task", number, task.client_id))
            received = task.weights if reply.weights else {}
            answer = Update(reply.weights, received, reply.num_pairs, reply.metrics, task.client_id)
            arrivals.append(Arrival(task, answer, "ok", 0, 0.0, 1.0))
        fold = strategy.fold(state, arrivals, 0.0, generator(0, "fold", number))
        state, version, number = fold.state, version + fold.updated, number + 1
    return state


def test_one_head_is_fedavg_to_the_bit() -> None:
    results = []
    for strategy in (Ifca(num_heads=1, last_server_lr=1.0, cohort_size=5), FedAvg(cohort_size=5)):
        state = start(strategy)
        for number in range(8):
            state, _, _ = step(strategy, state, number, lost=[3])
        results.append(digest({"": strategy.serve(state, 0)[0]}))
    assert results[0] == results[1]


def test_clients_of_two_opposite_tastes_are_told_apart_and_each_served_its_own() -> None:
    strategy, shards = Ifca(num_heads=2, cohort_size=6), two_tastes()
    state = run(strategy, shards, 30)
    groups = strategy.groups(state)
    assert len({groups[client] for client in range(0, NUM_CLIENTS, 2)}) == 1
    assert {groups[0], groups[1]} == {0, 1}
    for shard in shards:
        (served,) = strategy.serve(state, shard.client_id)
        assert (RULE.margins(served, shard.pairs) > 0).mean() > 0.95
    assert len(strategy.serve(state, None)) == 2


def test_the_heads_of_a_set_start_from_the_answers_of_different_clients() -> None:
    strategy = Ifca(num_heads=3, restarts=2, cohort_size=6)
    state = start(strategy)
    assert len({digest({"": model}) for model in strategy.models(state).values()}) == 1
    for number in range(2):
        state, tasks, fold = step(strategy, state, number)
        assert fold.updated and {task.kind for task in tasks} == {"train"}
    assert len({digest({"": model}) for model in strategy.models(state).values()}) == 6


def test_every_client_of_the_cohort_trains_the_head_of_its_lowest_loss_and_no_other_travels_then() -> None:
    strategy = Ifca(num_heads=2, restarts=1, cohort_size=6)
    state, _, _ = step(strategy, start(strategy), 0)
    losses = {client: [0.1, 0.2] if client < 5 else [0.2, 0.1] for client in range(NUM_CLIENTS)}
    state, asked, fold = step(strategy, state, 1, losses)
    assert not fold.updated and {task.kind for task in asked} == {"score"}
    assert asked[0].weights.keys() == {"0/w", "1/w"} and asked[0].expected == {}
    heads = strategy.models(state)
    _, trained, fold = step(strategy, state, 2)
    assert [task.client_id for task in trained] == [task.client_id for task in asked]
    for task in trained:
        np.testing.assert_array_equal(task.weights["w"], heads[f"head/{int(task.client_id >= 5)}"]["w"])
    assert fold.updated


def test_who_did_not_answer_or_left_does_not_train_and_keeps_the_last_choice() -> None:
    strategy = Ifca(num_heads=2, restarts=1)
    state, _, _ = step(strategy, start(strategy), 0)
    everybody = {client: [0.1, 0.2] for client in range(NUM_CLIENTS)}
    state, _, _ = step(strategy, state, 1, everybody)
    state, _, _ = step(strategy, state, 2)
    state, _, _ = step(strategy, state, 3, {client: [0.2, 0.1] for client in range(NUM_CLIENTS)}, lost=[4])
    assert strategy.groups(state) == {client: int(client != 4) for client in range(NUM_CLIENTS)}
    _, trained, _ = step(strategy, state, 4, idle=[0, 1, 4])
    assert [task.client_id for task in trained] == [0, 1]
    _, asked, _ = step(strategy, state, 4, idle=[4])  # nobody who chose is there: others are asked
    assert [task.kind for task in asked] == ["score"]


def test_the_restart_of_least_loss_goes_on_alone_after_everybody_was_asked_once() -> None:
    strategy = Ifca(num_heads=2, restarts=3, trial=0.3, cohort_size=4)
    state, number = start(strategy, horizon=20), 0
    while state.round < state.trial_rounds:
        state, _, _ = step(strategy, state, number)
        number += 1
    assert state.trial_rounds == 6
    before = strategy.models(state)
    # Client 0 has one pair and likes set 0; client 1 has two and likes set 2 as much; the rest do not care.
    losses = {0: [0.1, 0.2, 1.0, 1.0, 1.0, 1.0], 1: [1.0, 1.0, 1.0, 1.0, 0.5, 0.1]}
    state, asked, fold = step(strategy, state, number, losses)
    assert len(asked) == NUM_CLIENTS and asked[0].settings["num_selectors"] == 6
    assert not fold.updated and digest(strategy.models(state)) == digest(before)
    assert strategy.groups(state).keys() == set(range(NUM_CLIENTS))
    served = [strategy.serve(state, 1)[0], *strategy.serve(state, None)]
    for weights, name in zip(served, ("head/1", "head/0", "head/1"), strict=True):
        np.testing.assert_array_equal(weights["w"], before[f"restart/2/{name}"]["w"])
    for _ in range(2):
        number += 1
        state, asked, _ = step(strategy, state, number)
    assert strategy.models(state).keys() == {"head/0", "head/1"}
    assert len(asked) == 4


def test_an_idle_head_starts_again_from_the_client_that_is_served_worst_and_loses_its_members() -> None:
    strategy = Ifca(num_heads=2, restarts=1, idle_rounds=2)
    state, _, _ = step(strategy, start(strategy), 0)
    state, _, _ = step(strategy, state, 1, {0: [1.0, 0.5], **{c: [0.1, 0.2] for c in range(1, NUM_CLIENTS)}})
    state, _, _ = step(strategy, state, 2)
    crowd = {client: [0.1, 0.2] for client in range(NUM_CLIENTS)}
    without = range(1, NUM_CLIENTS)  # client 0, the only member of head 1, is away
    for number in (3, 5):
        state, _, _ = step(strategy, state, number, crowd, idle=without)
        assert strategy.groups(state)[0] == 1
        state, tasks, fold = step(strategy, state, number + 1, idle=without)
    assert fold.metrics["restarted_1"] == 1.0
    worst = update(tasks[-1], {})  # the loss is the client's number here
    np.testing.assert_array_equal(strategy.models(state)["head/1"]["w"], worst.weights["w"])
    assert 0 not in strategy.groups(state) and state.sets[0].idle == (0, 0)


def test_starts_are_distinct_prefer_distant_answers_and_survive_equal_ones() -> None:
    def answer(place: float, client: int) -> Update:
        weights = {"w": np.full(3, place, np.float32)}
        return Update(weights, {}, 10, {}, client)

    near_and_far = [answer(place, i) for i, place in enumerate((0.0, 0.01, 0.02, 9.0, 9.01))]
    pairs_of_starts = [starts(near_and_far, 2, generator(0, n)) for n in range(50)]
    far_apart = Counter(abs(float(a["w"][0] - b["w"][0])) > 5 for a, b in pairs_of_starts)
    assert far_apart[True] == 50  # the odds of a near one are below 1e-5
    equal = [answer(1.0, i) for i in range(3)]
    assert len(starts(equal, 3, generator(0))) == 3 == len(starts(equal, 5, generator(0)))


def test_the_last_quarter_takes_the_last_server_step() -> None:
    strategy = Ifca(num_heads=1, last_server_lr=0.5)
    state = start(strategy, horizon=4)
    for number in range(4):
        before = strategy.serve(state, None)[0]["w"].astype(float)
        state, tasks, _ = step(strategy, state, number)
        updates = [update(task, {}) for task in tasks]
        total = sum(u.num_pairs for u in updates)
        mean = sum(u.num_pairs * u.delta["w"] for u in updates) / total
        moved = strategy.serve(state, None)[0]["w"] - before
        np.testing.assert_allclose(moved, (0.5 if number == 3 else 1.0) * mean, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"num_heads": 0},
        {"restarts": 0},
        {"idle_rounds": 0},
        {"trial": 1.0},
        {"server_lr": 0.0},
        {"last_server_lr": 0.0},
        {"share": "rows"},
    ],
)
def test_bad_options_are_refused_with_their_key(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"strategy\.{next(iter(options))}"):
        Ifca(**options)


def test_more_heads_than_clients_and_a_trial_that_fills_the_run_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"strategy\.num_heads=13 is more than the 12 clients"):
        start(Ifca(num_heads=13))
    with pytest.raises(ConfigurationError, match=r"strategy\.restarts=3"):
        start(Ifca(restarts=3), horizon=3)
