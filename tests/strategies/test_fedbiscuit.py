import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.maths.lora import SvdMean
from fedpref.maths.weights import digest
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedbis import FedBis
from fedpref.strategies.fedbiscuit import FedBiscuit, Selectors
from fedpref.types import Arrival, Strategy, Task, Update, Weights

NUM_CLIENTS = 12
RNG = generator(0, "unused")


def fresh(*address: int | str) -> Weights:
    return {"w": generator(0, "fresh", *address).normal(size=3).astype(np.float32)}


def trained(task: Task, delta: float | None = None) -> Update:
    noise = generator(1, "task", task.number).normal(size=3) if delta is None else np.full(3, delta)
    weights = {"w": (task.weights["w"] + noise).astype(np.float32)}
    return Update(weights, task.weights, 1 + task.client_id, {}, task.client_id)


def scored(task: Task, losses: Mapping[int, Sequence[float]]) -> Update:
    values = losses.get(task.client_id, [1.0, 1.0, 1.0])
    finite = {f"loss_{u}": loss for u, loss in enumerate(values) if np.isfinite(loss)}
    return Update({}, {}, 1, finite, task.client_id)


def arrival(task: Task, update: Update | None) -> Arrival:
    return Arrival(task, update, "ok" if update else "lost", 0, 0.0, 1.0)


def step(
    strategy: Strategy[Any],
    state: Any,
    number: int,
    losses: Mapping[int, Sequence[float]] | None = None,
    lost: Sequence[int] = (),
    delta: float | None = None,
) -> tuple[Any, Sequence[Task], Any]:
    state, plan = strategy.plan(state, range(NUM_CLIENTS), 0.0, generator(0, "plan", number))
    tasks = [dataclasses.replace(t, number=100 * number + i) for i, t in enumerate(plan.tasks)]
    arrivals = [
        arrival(
            task,
            None
            if task.client_id in lost
            else scored(task, losses or {})
            if task.kind == "score"
            else trained(task, delta),
        )
        for task in tasks
    ]
    fold = strategy.fold(state, arrivals, 0.0, generator(0, "fold", number))
    return fold.state, tasks, fold


def start(strategy: Strategy[Any], horizon: int = 100) -> Any:
    return strategy.init(fresh, range(NUM_CLIENTS), horizon, generator(0, "init"))


def test_one_selector_without_warmup_over_repliers_is_fedbis_is_uniform_fedavg_to_the_bit() -> None:
    strategies: list[Strategy[Any]] = [
        FedBiscuit(num_selectors=1, warmup_rounds=0, agg_norm="repliers", cohort_size=5),
        FedBis(cohort_size=5),
        FedAvg(cohort_size=5, share="clients"),
    ]
    digests = []
    for strategy in strategies:
        state = start(strategy)
        for number in range(6):
            state, tasks, _ = step(strategy, state, number)
            assert all(task.kind == "train" and "grouping_share" not in task.settings for task in tasks)
        (model,) = strategy.models(state).values()
        digests.append(digest({"": model}))
    assert digests[0] == digests[1] == digests[2]


def test_one_replier_moves_its_selector_by_its_delta_over_all_clients() -> None:
    strategy = FedBiscuit(num_selectors=2, warmup_rounds=0, grouping_pairs="all", cohort_size=3)
    state, _, _ = step(strategy, start(strategy), 0)  # regrouping
    lost = list(range(NUM_CLIENTS))
    _, plan = strategy.plan(state, range(NUM_CLIENTS), 0.0, generator(0, "plan", 1))
    replier = plan.tasks[0]
    lost.remove(replier.client_id)
    selector = int(replier.settings["selector"])
    after, _, fold = step(strategy, state, 1, lost=lost, delta=0.6)
    moved = after.models[selector]["w"] - state.models[selector]["w"]
    np.testing.assert_allclose(moved, 0.6 / NUM_CLIENTS, rtol=1e-5)
    assert fold.metrics[f"step_factor_{selector}"] == 1 / NUM_CLIENTS
    other = 1 - selector
    assert after.models[other] is state.models[other]  # without repliers: the very array


@pytest.mark.parametrize(
    ("agg_norm", "factor"), [("all_clients", 3 / 12), ("group", 3 / 6), ("repliers", 1.0)]
)
def test_the_step_is_the_mean_delta_times_the_stated_factor(agg_norm: str, factor: float) -> None:
    strategy = FedBiscuit(num_selectors=2, warmup_rounds=0, agg_norm=agg_norm)  # type: ignore[arg-type]
    state, _, _ = step(strategy, start(strategy), 0)
    mine = [client for client, u in state.groups.items() if u == 0]
    assert len(mine) == 6  # capacity balances ties
    lost = [client for client in range(NUM_CLIENTS) if client not in mine[:3]]
    after, _, fold = step(strategy, state, 1, lost=lost, delta=1.0)
    np.testing.assert_allclose(after.models[0]["w"] - state.models[0]["w"], factor, rtol=1e-5)
    assert fold.metrics["step_factor_0"] == pytest.approx(factor)


def test_the_schedule_warms_up_each_selector_then_groups_then_regroups() -> None:
    strategy = FedBiscuit(num_selectors=2, warmup_rounds=2, regroup_every=3, cohort_size=4)
    state = start(strategy)
    seen: list[str] = []
    number = 0
    while state.round < 11:
        state, tasks, fold = step(strategy, state, number)
        number += 1
        if tasks[0].kind == "score":
            assert len(tasks) == NUM_CLIENTS and not fold.updated
            assert tasks[0].weights.keys() == {"0/w", "1/w"} and tasks[0].expected == {}
            seen.append("score")
        else:
            assert len(tasks) == 4 and fold.updated
            assert all(task.weights.keys() == {"w"} for task in tasks)  # its own selector only
            trains = {int(task.settings["selector"]) for task in tasks}
            seen.append(str(trains.pop()) if state.round <= 4 else "groups")
    assert seen == ["0", "0", "1", "1", "score", *["groups"] * 3, "score", *["groups"] * 3, "score", "groups"]


def test_groups_follow_the_losses_and_nan_counts_as_infinite() -> None:
    strategy = FedBiscuit(num_selectors=2, warmup_rounds=0, capacity=False)
    losses = {client: [0.1, 0.9] if client < 9 else [0.9, 0.1] for client in range(NUM_CLIENTS)}
    losses[0] = [float("nan"), 5.0]
    state, _, _ = step(strategy, start(strategy), 0, losses)
    groups = strategy.groups(state)
    assert [groups[client] for client in range(NUM_CLIENTS)] == [1, *[0] * 8, *[1] * 3]
    balanced, _, _ = step(dataclasses.replace(strategy, capacity=True), start(strategy), 0, losses)
    assert sorted(np.bincount(list(balanced.groups.values()))) == [6, 6]


def test_who_does_not_answer_a_regrouping_keeps_the_group_and_strangers_get_one() -> None:
    strategy = FedBiscuit(num_selectors=2, warmup_rounds=0, regroup_every=1, capacity=False)
    first = {client: [0.1, 0.9] for client in range(NUM_CLIENTS)}
    state, _, _ = step(strategy, start(strategy), 0, first, lost=[3])
    assert state.groups[3] in (0, 1) and len(state.groups) == NUM_CLIENTS
    kept = state.groups[3]
    state, _, _ = step(strategy, state, 1)  # train
    second = {client: [0.9, 0.1] for client in range(NUM_CLIENTS)}
    state, _, _ = step(strategy, state, 2, second, lost=[3, 5])
    assert state.groups[3] == kept and state.groups[5] == 0
    assert all(state.groups[client] == 1 for client in range(NUM_CLIENTS) if client not in (3, 5))


def test_a_regrouping_that_nobody_answers_changes_no_model_and_goes_on() -> None:
    strategy = FedBiscuit(num_selectors=3, warmup_rounds=0, regroup_timeout_s=5.0)
    state = start(strategy)
    _, plan = strategy.plan(state, range(NUM_CLIENTS), 100.0, RNG)
    assert {task.expires_s for task in plan.tasks} == {105.0}
    after, _, _ = step(strategy, state, 0, lost=range(NUM_CLIENTS))
    assert digest(strategy.models(after)) == digest(strategy.models(state))
    _, tasks, _ = step(strategy, after, 1)
    assert {task.kind for task in tasks} == {"train"}


def test_choosing_every_round_scores_the_cohort_that_then_trains() -> None:
    strategy = FedBiscuit(num_selectors=2, warmup_rounds=0, grouping="each_round", cohort_size=4)
    state, asked, _ = step(strategy, start(strategy), 0, {c: [1.0, 0.0] for c in range(NUM_CLIENTS)})
    state, working, _ = step(strategy, state, 1)
    assert [task.client_id for task in asked] == [task.client_id for task in working]
    assert {task.kind for task in asked} == {"score"} and {task.settings["selector"] for task in working} == {
        1
    }
    _, again, _ = step(strategy, state, 2)
    assert {task.kind for task in again} == {"score"}


def test_of_a_scored_cohort_only_those_still_idle_train() -> None:
    strategy = FedBiscuit(num_selectors=2, warmup_rounds=0, grouping="each_round", cohort_size=4)
    state, asked, _ = step(strategy, start(strategy), 0)
    gone = asked[0].client_id
    idle = [client for client in range(NUM_CLIENTS) if client != gone]
    _, plan = strategy.plan(state, idle, 0.0, RNG)
    assert [task.client_id for task in plan.tasks] == [task.client_id for task in asked[1:]]
    strangers = [client for client in idle if client not in state.cohort]
    _, plan = strategy.plan(state, strangers, 0.0, RNG)  # the whole cohort is gone: others work
    assert len(plan.tasks) == 4 and {task.kind for task in plan.tasks} == {"train"}


def test_during_the_warmup_all_selectors_vote_and_afterwards_ones_own_serves() -> None:
    strategy = FedBiscuit(num_selectors=2, warmup_rounds=1, regroup_every=5)
    state: Selectors = start(strategy)
    assert len(strategy.serve(state, 0)) == 2
    for number in range(4):
        state, _, _ = step(strategy, state, number)
    own = strategy.groups(state)[0]
    assert strategy.serve(state, 0) == [state.models[own]]
    assert len(strategy.serve(state, None)) == 2


def test_sending_ones_own_selector_costs_a_share_of_broadcasting_all() -> None:
    strategy = FedBiscuit(num_selectors=3, warmup_rounds=0, regroup_every=9, cohort_size=4)
    state, _, _ = step(strategy, start(strategy), 0)
    for number in range(1, 5):
        state, _, fold = step(strategy, state, number)
    # a regrouping of 12 clients x 3 selectors, then 4 rounds of 4 clients x 1 instead of x 3
    assert fold.metrics["broadcast_ratio"] == pytest.approx((36 + 16) / (36 + 48))


@pytest.mark.parametrize(
    ("options", "horizon", "message"),
    [
        ({"num_selectors": 13}, 1000, "num_selectors=13 is more than the 12 clients"),
        (
            {"warmup_rounds": 50},
            150,
            "warmup_rounds=50 for each of 3 selectors fills the whole run of rounds=150",
        ),
        ({"cohort_size": 13}, 1000, "population of 12"),
        ({"cohort_size": 0}, 1000, "cohort_size=0 must be at least 1"),
        ({"combine": SvdMean()}, 1000, "combine=svd needs LoRA factors"),
    ],
)
def test_a_run_that_cannot_group_is_refused(options: dict[str, Any], horizon: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        start(FedBiscuit(**options), horizon)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_selectors": 0}, "num_selectors=0"),
        ({"warmup_rounds": -1}, "warmup_rounds=-1"),
        ({"regroup_every": 0}, "regroup_every=0"),
        ({"grouping_pairs": 0.0}, r"grouping_pairs=0\.0"),
        ({"grouping_pairs": "some"}, "grouping_pairs='some'"),
        ({"regroup_timeout_s": 0.0}, "regroup_timeout_s"),
        ({"agg_norm": "all"}, "agg_norm='all' is not one of all_clients, group, repliers"),
        ({"grouping": "never"}, "grouping='never' is not one of periodic, each_round"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FedBiscuit(**options)
