"""Invariants that every strategy shares. A strategy joins by its YAML in configs/strategy: no row to add."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fedpref.cli.compose import compose, options_of, parse_words, plain
from fedpref.cli.targets import build
from fedpref.federation.plain import from_plain, state_classes, to_plain
from fedpref.maths.weights import difference, digest
from fedpref.seeds import generator
from fedpref.types import Arrival, Strategy, Task, Update, Weights

NUM_CLIENTS, HORIZON, COHORT = 7, 4, 3
OURS = [name for name in options_of("strategy") if name != "flower"]
# What a strategy needs to show all its phases within HORIZON steps.
WORDS = {"fedbiscuit": ["strategy.num_selectors=2", "strategy.warmup_rounds=1", "strategy.regroup_every=1"]}


def fresh(*address: int | str) -> Weights:
    rng = generator(0, "fresh", *address)
    return {"score.weight": rng.normal(size=(1, 5)).astype(np.float32)}


def build_strategy(name: str) -> Strategy[Any]:
    words = parse_words([f"strategy={name}", f"cohort_size={COHORT}", *WORDS.get(name, [])])
    config = plain(compose(words.all_overrides))
    strategy: Strategy[Any] = build(config["strategy"], "strategy")
    return strategy


def answer(task: Task) -> Update:
    if not task.expected:  # a score: losses, and no weights
        losses = generator(1, "score", task.number).uniform(size=8)
        return Update({}, {}, 1, {f"loss_{u}": float(loss) for u, loss in enumerate(losses)})
    noise = generator(1, "task", task.number, task.client_id).normal(size=(1, 5)).astype(np.float32)
    weights = {"score.weight": task.weights["score.weight"] + noise}
    return Update(weights, difference(weights, task.weights), 1 + task.client_id, {})


def arrive(tasks: Sequence[Task], lost: Sequence[int] = ()) -> list[Arrival]:
    return [
        Arrival(task, None if task.client_id in lost else answer(task), "ok", 0, 0.0, 1.0) for task in tasks
    ]


def rounds(strategy: Strategy[Any], state: Any, first: int, last: int, seed: int = 0) -> Any:
    import dataclasses

    for step in range(first, last):
        state, plan = strategy.plan(state, range(NUM_CLIENTS), 0.0, generator(seed, "plan", step))
        tasks = [
            dataclasses.replace(task, number=step * NUM_CLIENTS + i) for i, task in enumerate(plan.tasks)
        ]
        state = strategy.fold(state, arrive(tasks), 0.0, generator(seed, "fold", step)).state
    return state


def start(strategy: Strategy[Any]) -> Any:
    return strategy.init(fresh, range(NUM_CLIENTS), HORIZON, generator(0, "init"))


@pytest.fixture(params=OURS)
def strategy(request: pytest.FixtureRequest) -> Strategy[Any]:
    return build_strategy(request.param)


def test_a_cohort_has_distinct_idle_clients_and_the_asked_size(strategy: Strategy[Any]) -> None:
    idle = [6, 2, 5, 3]
    _, plan = strategy.plan(start(strategy), idle, 0.0, generator(0, "plan", 0))
    chosen = [task.client_id for task in plan.tasks]
    assert len(set(chosen)) == len(chosen) == COHORT
    assert set(chosen) <= set(idle)


def test_the_order_of_idle_clients_does_not_matter(strategy: Strategy[Any]) -> None:
    state = start(strategy)
    plans = [
        strategy.plan(state, idle, 0.0, generator(0, "plan", 0))[1]
        for idle in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1])
    ]
    assert [t.client_id for t in plans[0].tasks] == [t.client_id for t in plans[1].tasks]


def test_nothing_that_is_handed_in_is_mutated(strategy: Strategy[Any]) -> None:
    state = start(strategy)
    state, plan = strategy.plan(state, range(NUM_CLIENTS), 0.0, generator(0, "plan", 0))
    arrivals = arrive(plan.tasks)
    before = copy.deepcopy((to_plain(state, {}), [digest({"": a.task.weights}) for a in arrivals]))
    models = digest(strategy.models(state))
    strategy.fold(state, arrivals, 0.0, generator(0, "fold", 0))
    assert (to_plain(state, {}), [digest({"": a.task.weights}) for a in arrivals]) == before
    assert digest(strategy.models(state)) == models


def test_a_state_saved_after_any_round_goes_on_to_the_same_bits(strategy: Strategy[Any]) -> None:
    undisturbed = digest(strategy.models(rounds(strategy, start(strategy), 0, HORIZON)))
    for stop in range(HORIZON + 1):
        arrays: dict[str, np.ndarray] = {}
        tree = to_plain(rounds(strategy, start(strategy), 0, stop), arrays)
        state = from_plain(tree, arrays, state_classes(strategy))
        assert digest(strategy.models(rounds(strategy, state, stop, HORIZON))) == undisturbed


def test_one_seed_gives_one_result_and_two_seeds_two(strategy: Strategy[Any]) -> None:
    results = [digest(strategy.models(rounds(strategy, start(strategy), 0, 3, seed))) for seed in (0, 0, 1)]
    assert results[0] == results[1] != results[2]


def test_a_round_without_answers_leaves_every_model(strategy: Strategy[Any]) -> None:
    state = rounds(strategy, start(strategy), 0, 2)
    before = digest(strategy.models(state))
    state, plan = strategy.plan(state, range(NUM_CLIENTS), 0.0, generator(0, "plan", 2))
    fold = strategy.fold(state, arrive(plan.tasks, lost=range(NUM_CLIENTS)), 0.0, generator(0, "fold", 2))
    assert not fold.updated
    assert digest(strategy.models(fold.state)) == before


def test_models_and_served_weights_are_finite_float32(strategy: Strategy[Any]) -> None:
    state = rounds(strategy, start(strategy), 0, HORIZON)
    served = [weights for client in (None, 0, 1) for weights in strategy.serve(state, client)]
    for weights in [*strategy.models(state).values(), *served]:
        assert weights.keys() == {"score.weight"}
        assert weights["score.weight"].dtype == np.float32
        assert np.isfinite(weights["score.weight"]).all()
