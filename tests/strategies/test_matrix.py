"""Invariants that every strategy shares. A strategy joins by its YAML in configs/strategy: no row to add."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fedpref.cli.compose import compose, options_of, parse_words, plain
from fedpref.cli.targets import build
from fedpref.federation.plain import from_plain, state_classes, to_plain
from fedpref.maths.weights import digest
from fedpref.seeds import generator
from fedpref.types import Arrival, Strategy, Task, Update, Wait, Weights

NUM_CLIENTS, HORIZON, COHORT = 7, 4, 3
ROUNDS = 12  # plans, waits and folds: enough for HORIZON versions of every strategy
OURS = [name for name in options_of("strategy") if name != "flower"]
# What a strategy needs to show all its phases within ROUNDS.
WORDS = {
    "fedbiscuit": ["strategy.num_selectors=2", "strategy.warmup_rounds=1", "strategy.regroup_every=1"],
    "fedbuff": ["strategy.buffer_size=2"],
    "fedfix": ["strategy.window_s=1.5"],
    "afa_cd": ["strategy.buffer_size=2"],
    "flute": ["strategy.balance=0"],
    "mixture_prior": ["strategy.inner.split_at=null"],
    "ifca": ["strategy.num_heads=2", "strategy.restarts=2", "strategy.idle_rounds=1"],
}


def fresh(*address: int | str) -> Weights:
    rng = generator(0, "fresh", *address)
    return {"score.weight": rng.normal(size=(1, 5)).astype(np.float32)}


def build_strategy(name: str, combine: str = "weighted_mean") -> Strategy[Any]:
    words = parse_words(
        [f"strategy={name}", f"combine={combine}", f"cohort_size={COHORT}", *WORDS.get(name, [])]
    )
    config = plain(compose(words.all_overrides))
    strategy: Strategy[Any] = build(config["strategy"], "strategy")
    return strategy


def answer(task: Task) -> Update:
    metrics = {"steps_done": float(task.settings.get("local_steps", 3)), "loss_before": 1 / (1 + task.number)}
    if not task.expected:  # a score or a first segment: numbers, and no weights
        losses = generator(1, "score", task.number).uniform(size=8)
        metrics |= {f"loss_{u}": float(loss) for u, loss in enumerate(losses)}
        return Update({}, {}, 1, metrics, task.client_id)
    noise = generator(1, "task", task.number, task.client_id).normal(size=(1, 5)).astype(np.float32)
    weights = {"score.weight": task.weights["score.weight"] + noise}
    return Update(weights, task.weights, 1 + task.client_id, metrics, task.client_id)


@dataclass(frozen=True, eq=False)
class Flight:
    """A task on its way; the number breaks ties."""

    arrives_s: float
    number: int
    task: Task
    sent_s: float


@dataclass(frozen=True, eq=False)
class Course:
    """A run so far, by the rules of the engine; client i takes 1, 2 or 3 seconds for each of its tasks."""

    strategy: Strategy[Any]
    state: Any
    seed: int = 0
    round: int = 0
    version: int = 0
    num_tasks: int = 0
    clock_s: float = 0.0
    flights: tuple[Flight, ...] = ()

    @property
    def models(self) -> str:
        """Digest of all models."""
        return digest(self.strategy.models(self.state))


def planned(course: Course) -> tuple[Course, Wait]:
    """The strategy plans with the clients that have no task; its tasks take off."""
    busy = {flight.task.client_id for flight in course.flights}
    idle = [client for client in range(NUM_CLIENTS) if client not in busy]
    rng = generator(course.seed, "plan", course.round)
    state, plan = course.strategy.plan(course.state, idle, course.clock_s, rng)
    flights = list(course.flights)
    for task in plan.tasks:
        assert task.client_id in idle, "a second task for a client that has one"
        idle.remove(task.client_id)
        number = course.num_tasks + len(flights) - len(course.flights)
        task = dataclasses.replace(task, number=number, version=course.version)
        flights.append(Flight(course.clock_s + 1 + task.client_id % 3, number, task, course.clock_s))
    assert flights or plan.wait.until_s < math.inf, "nobody works and nothing is awaited"
    num_tasks = course.num_tasks + len(plan.tasks)
    return dataclasses.replace(course, state=state, flights=tuple(flights), num_tasks=num_tasks), plan.wait


def landed(course: Course, wait: Wait, lost: Sequence[int] = ()) -> tuple[Course, list[Arrival]]:
    """Time passes until the wait is over; what has arrived, in task-number order."""
    flights = sorted(course.flights, key=lambda flight: (flight.arrives_s, flight.number))
    down: list[Flight] = []
    clock_s = course.clock_s
    while flights and len(down) < wait.count and flights[0].arrives_s <= wait.until_s:
        clock_s = flights[0].arrives_s
        down += [flight for flight in flights if flight.arrives_s == clock_s]
        flights = [flight for flight in flights if flight.arrives_s > clock_s]
    if wait.until_s < math.inf and len(down) < wait.count and (flights or wait.count == math.inf):
        clock_s = wait.until_s
    arrivals = [
        Arrival(
            flight.task,
            None if flight.task.client_id in lost else answer(flight.task),
            "lost" if flight.task.client_id in lost else "ok",
            course.version - flight.task.version,
            flight.sent_s,
            flight.arrives_s,
        )
        for flight in sorted(down, key=lambda flight: flight.number)
    ]
    return dataclasses.replace(course, flights=tuple(flights), clock_s=clock_s), arrivals


def folded(course: Course, arrivals: Sequence[Arrival]) -> Course:
    """The strategy folds what has arrived."""
    rng = generator(course.seed, "fold", course.round)
    fold = course.strategy.fold(course.state, arrivals, course.clock_s, rng)
    version = course.version + fold.updated
    return dataclasses.replace(course, state=fold.state, version=version, round=course.round + 1)


def after(course: Course, rounds: int, lost: Sequence[int] = ()) -> Course:
    """The course ``rounds`` plans, waits and folds later."""
    for _ in range(rounds):
        course = folded(*landed(*planned(course), lost))
    return course


def start(strategy: Strategy[Any], seed: int = 0) -> Course:
    return Course(strategy, strategy.init(fresh, range(NUM_CLIENTS), HORIZON, generator(0, "init")), seed)


@pytest.fixture(params=OURS)
def strategy(request: pytest.FixtureRequest) -> Strategy[Any]:
    return build_strategy(request.param)


def test_a_cohort_has_distinct_idle_clients_and_the_asked_size(strategy: Strategy[Any]) -> None:
    idle = [2, 3, 5, 6]
    _, plan = strategy.plan(start(strategy).state, idle, 0.0, generator(0, "plan", 0))
    chosen = [task.client_id for task in plan.tasks]
    assert len(set(chosen)) == len(chosen) == COHORT
    assert set(chosen) <= set(idle)


def test_at_no_time_do_more_clients_train_than_the_cohort_has(strategy: Strategy[Any]) -> None:
    course = start(strategy)
    for _ in range(ROUNDS):
        course, wait = planned(course)
        assert sum(flight.task.kind != "score" for flight in course.flights) <= COHORT
        course = folded(*landed(course, wait))


def test_every_course_gets_on(strategy: Strategy[Any]) -> None:
    assert after(start(strategy), ROUNDS).version >= HORIZON


def test_nothing_that_is_handed_in_is_mutated(strategy: Strategy[Any]) -> None:
    def seen(course: Course, arrivals: Sequence[Arrival]) -> Any:
        arrays: dict[str, np.ndarray] = {}
        tree = to_plain(course.state, arrays)
        sent = [digest({"": arrival.task.weights}) for arrival in arrivals]
        return tree, digest({"": arrays}), sent, course.models

    course = after(start(strategy), 2)
    for _ in range(3):
        before = seen(course, [])
        on_the_way, wait = planned(course)
        assert seen(course, []) == before
        on_the_way, arrivals = landed(on_the_way, wait)
        before = seen(on_the_way, arrivals)
        course = folded(on_the_way, arrivals)
        assert seen(on_the_way, arrivals) == before


def test_a_state_saved_after_any_round_goes_on_to_the_same_bits(strategy: Strategy[Any]) -> None:
    undisturbed = after(start(strategy), ROUNDS).models
    course = start(strategy)
    for stop in range(ROUNDS + 1):
        arrays: dict[str, np.ndarray] = {}
        tree = to_plain(course.state, arrays)
        state = from_plain(tree, arrays, state_classes(strategy))
        assert after(dataclasses.replace(course, state=state), ROUNDS - stop).models == undisturbed
        course = after(course, 1)


@pytest.mark.parametrize("combine", ["expected_weights", "fedau"])
@pytest.mark.parametrize("name", OURS)
def test_what_a_combine_remembers_is_saved_with_the_state(name: str, combine: str) -> None:
    strategy = build_strategy(name, combine)
    course = after(start(strategy), ROUNDS // 2)
    arrays: dict[str, np.ndarray] = {}
    tree = to_plain(course.state, arrays)
    resumed = dataclasses.replace(course, state=from_plain(tree, arrays, state_classes(strategy)))
    last = after(resumed, ROUNDS // 2)
    assert last.models == after(course, ROUNDS // 2).models
    assert all(np.isfinite(model["score.weight"]).all() for model in strategy.models(last.state).values())


def test_one_seed_gives_one_result_and_two_seeds_two(strategy: Strategy[Any]) -> None:
    results = [after(start(strategy, seed), ROUNDS).models for seed in (0, 0, 1)]
    assert results[0] == results[1] != results[2]


def test_a_round_without_answers_leaves_every_model(strategy: Strategy[Any]) -> None:
    everybody = range(NUM_CLIENTS)
    first = start(strategy)
    silent = after(first, 3, lost=everybody)
    assert (silent.version, silent.models) == (0, first.models)
    used_up = after(after(first, ROUNDS), ROUNDS, lost=everybody)  # what was buffered has been folded
    silent = after(used_up, 3, lost=everybody)
    assert (silent.version, silent.models) == (used_up.version, used_up.models)


def test_a_fold_that_is_no_update_leaves_every_model(strategy: Strategy[Any]) -> None:
    course = start(strategy)
    for _ in range(ROUNDS):
        before, course = course, after(course, 1, lost=[1, 4])
        if course.version == before.version:
            assert course.models == before.models


def test_models_and_served_weights_are_finite_float32(strategy: Strategy[Any]) -> None:
    state = after(start(strategy), ROUNDS).state
    served = [weights for client in (None, 0, 1) for weights in strategy.serve(state, client)]
    for weights in [*strategy.models(state).values(), *served]:
        assert weights.keys() == {"score.weight"}
        assert weights["score.weight"].dtype == np.float32
        assert np.isfinite(weights["score.weight"]).all()
