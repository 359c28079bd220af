"""Whether the server shows one client's tensors to others is found in the bits of the messages."""

import json

import numpy as np

from fedpref.flower.passed_on import PassedOn
from fedpref.types import Task, Update

OLD = np.zeros(3, np.float32)


def answered(passed_on, client, task_weights, **sent):
    passed_on.answered(Task(client, task_weights), Update(sent, {}, 1, {}, client))


def test_one_answer_that_goes_to_others_is_counted_under_the_name_that_it_came_by():
    passed_on, own = PassedOn(), np.array([1, 2, 3], np.float32)
    answered(passed_on, 4, {"w": OLD}, w=own)
    passed_on.sent([Task(client, {"0/w": own.copy(), "1/w": OLD}, "score") for client in (3, 4, 5)])
    assert passed_on.card() == [{"name": "w", "messages": 2, "sources": 1, "receivers": 2}]


def test_an_average_and_a_tensor_for_its_owner_alone_are_not_counted():
    passed_on, first, second = PassedOn(), np.array([1, 2, 3], np.float32), np.array([3, 2, 5], np.float32)
    answered(passed_on, 0, {"w": OLD}, w=first, head=2 * first)
    answered(passed_on, 1, {"w": OLD}, w=second, head=2 * second)
    mean = (first + second) / 2
    passed_on.sent([Task(0, {"w": mean, "head": 2 * first}), Task(1, {"w": mean, "head": 2 * second})])
    assert passed_on.card() == []


def test_what_came_back_unchanged_or_alike_from_several_tells_nothing_of_anybody():
    passed_on, same = PassedOn(), np.array([1, 1, 1], np.float32)
    answered(passed_on, 0, {"frozen": OLD, "w": OLD}, frozen=OLD, w=same)
    answered(passed_on, 1, {"frozen": OLD, "w": OLD}, frozen=OLD, w=same)
    passed_on.sent([Task(client, {"frozen": OLD, "w": same}) for client in range(4)])
    assert passed_on.card() == []


def test_a_model_that_waits_for_its_turn_is_still_somebodys():
    passed_on, own, other = PassedOn(), np.array([1, 2, 3], np.float32), np.array([3, 2, 5], np.float32)
    answered(passed_on, 0, {"w": OLD}, w=own)
    passed_on.sent([Task(1, {"w": OLD})])
    answered(passed_on, 1, {"w": OLD}, w=other)
    passed_on.sent([])
    passed_on.sent([Task(2, {"w": own})])
    assert passed_on.card() == [{"name": "w", "messages": 1, "sources": 1, "receivers": 1}]


def test_memory_is_bounded_and_the_oldest_goes_first(monkeypatch):
    monkeypatch.setattr("fedpref.flower.passed_on._MOST_REMEMBERED", 2)
    passed_on, owned = PassedOn(), [np.full(3, 1 + client, np.float32) for client in range(3)]
    for client, own in enumerate(owned):
        answered(passed_on, client, {"w": OLD}, w=own)
    for own in owned:
        passed_on.sent([Task(9, {"w": own})])
    assert [(row["messages"], row["sources"]) for row in passed_on.card()] == [(2, 2)]


def test_counters_and_what_is_remembered_survive_a_checkpoint():
    passed_on, own = PassedOn(), np.array([1, 2, 3], np.float32)
    answered(passed_on, 0, {"w": OLD}, w=own)
    passed_on.sent([Task(1, {"w": own})])
    answered(passed_on, 1, {"w": own}, w=2 * own)
    tree, arrays = passed_on.snapshot()
    restored = PassedOn.restored(json.loads(json.dumps(tree)), arrays)
    for each in (passed_on, restored):
        each.sent([Task(0, {"w": 2 * own})])
    assert restored.card() == passed_on.card()
    assert passed_on.card() == [{"name": "w", "messages": 2, "sources": 2, "receivers": 2}]


def test_a_federated_mean_over_one_client_shows_its_model_to_the_next(toy):
    # Of three clients the mean of the minima, 4/3, is none of them.
    alone, together = toy.rounds(3, toy.PullRule(), toy.ToyAvg(cohort_size=1)), toy.rounds(3)
    for _ in range(8):
        alone.advance(), together.advance()
    assert {row["name"] for row in alone.exchange.passed_on} == {"head.bias", "head.weight"}
    assert together.exchange.passed_on == []
