"""Local work in two segments, for a rule that knows nothing of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from fedpref.errors import ConfigurationError, FederationError
from fedpref.flower import _shim, wire
from fedpref.flower.records import decoded
from fedpref.flower.segments import answer_segment, as_training
from fedpref.maths.staleness import Constant
from fedpref.seeds import generator
from fedpref.strategies.fedasmu import FedASMU
from fedpref.strategies.fedasync import FedAsync
from fedpref.types import ClientState, Task

START = {"head.bias": np.ones(1, np.float32), "head.weight": np.ones(3, np.float32)}
FRESH = {"head.bias": np.full(1, 5, np.float32), "head.weight": np.full(3, 7, np.float32)}


@dataclasses.dataclass(frozen=True)
class Counting:
    """Adds 1 to all weights a step, and keeps a state of its own."""

    local_steps: int = 8

    def answer(self, task, shard, state, rng):
        from fedpref.types import Reply

        assert task.kind == "train" and not {"split_at", "mix"} & set(task.settings)
        assert set(state.arrays) <= {"own"}
        steps = int(task.settings.get("local_steps", self.local_steps))
        weights = {key: (array + np.float32(steps)).astype(np.float32) for key, array in task.weights.items()}
        count = int(state.numbers.get("count", 0)) + 1
        return Reply(weights, 1, {"steps_done": steps}), ClientState({"own": np.ones(2)}, {"count": count})


def first(split_at=0.5, **settings):
    return Task(1, START, settings={"split_at": split_at, **settings}, reply={})


def second(mix=0.0, split_at=0.5, weights=FRESH, **settings):
    return Task(1, weights, "resume", {"split_at": split_at, "mix": mix, **settings})


def work(task, state=None, rule=None):
    return answer_segment(rule or Counting(), task, None, state or ClientState(), generator(0, "task"))


def test_the_first_segment_returns_numbers_and_keeps_the_weights_at_home():
    reply, state = work(first())
    assert dict(reply.weights) == {} and reply.metrics["steps_done"] == 4
    kept = {key: array.tolist() for key, array in state.arrays.items() if key != "own"}
    assert sorted(array for array in kept.values()) == [[5.0], [5.0] * 3]


@pytest.mark.parametrize("mix", [0.0, 0.25, 1.0])
def test_the_second_segment_goes_on_between_its_own_weights_and_the_fresh_ones(mix):
    _, state = work(first())
    reply, _ = work(second(mix), state)
    for key, fresh in (("head.bias", 5.0), ("head.weight", 7.0)):
        np.testing.assert_array_equal(reply.weights[key], (1 - mix) * 5.0 + mix * fresh + 4)


@pytest.mark.parametrize("total", [0, 1, 2, 3, 8, 31])
@pytest.mark.parametrize("split_at", [0.01, 0.5, 0.99])
def test_both_segments_together_do_all_steps_and_each_at_least_one_of_two(total, split_at):
    rule = Counting(local_steps=total)
    steps = [
        as_training(task, rule).settings["local_steps"]
        for task in (first(split_at), second(split_at=split_at))
    ]
    assert sum(steps) == total
    assert min(steps) >= (1 if total >= 2 else 0)


def test_the_tasks_own_number_of_steps_is_the_one_that_is_split():
    assert as_training(first(0.25, local_steps=12), Counting()).settings == {"local_steps": 3}


def test_tasks_that_are_no_segments_reach_the_rule_as_they_are():
    for task in (Task(1, START), Task(1, START, "resume"), Task(1, START, "score", {"split_at": 0.5})):
        assert as_training(task, Counting()) is task


def test_what_the_rule_keeps_survives_both_segments_and_the_kept_weights_do_not():
    _, state = work(first())
    assert state.numbers["count"] == 1 and "own" in state.arrays
    _, state = work(second(), state)
    assert state.numbers["count"] == 2 and set(state.arrays) == {"own"}


def test_a_new_task_drops_what_a_first_segment_has_kept():
    _, state = work(first())
    _, state = work(Task(1, START), state)
    assert set(state.arrays) == {"own"}
    with pytest.raises(FederationError, match="kept nothing"):
        work(second(), state)


@pytest.mark.parametrize("mix", [-0.1, 1.1, float("nan")])
def test_a_mix_out_of_range_is_refused(mix):
    _, state = work(first())
    with pytest.raises(ConfigurationError, match="mix="):
        work(second(mix), state)


@pytest.mark.parametrize("split_at", [0.0, 1.0, float("nan")])
def test_a_split_out_of_range_is_refused(split_at):
    with pytest.raises(ConfigurationError, match="split_at="):
        work(first(split_at))


def test_a_fresh_model_of_another_form_is_refused():
    _, state = work(first())
    with pytest.raises(ConfigurationError, match=r"other\.key"):
        work(second(weights={"other.key": np.ones(1, np.float32)}), state)


def test_a_rule_without_local_steps_needs_them_from_the_strategy():
    with pytest.raises(ConfigurationError, match=r"strategy\.local_steps"):
        as_training(first(), object())  # type: ignore[arg-type]
    assert as_training(first(local_steps=4), object()).settings["local_steps"] == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("is_accepted", [True, False])
def test_over_the_wire_only_an_accepted_first_segment_can_be_resumed(toy, is_accepted):
    _shim.adopt_process()
    app, where = toy.app(2), Context(1, 1, {"partition-id": 1}, RecordDict(), {})
    task = dataclasses.replace(first(local_steps=2), number=0)
    answered = app(wire.send(task, wire.pack(START), 1, 7, -1), where)
    assert answered.content["metrics"]["seen"] == 1
    assert decoded(answered.content["arrays"]["flat"]).size == 0
    task = dataclasses.replace(second(local_steps=2), number=1)
    message = wire.send(task, wire.pack(FRESH), 1, 7, 0 if is_accepted else -1)
    if not is_accepted:
        with pytest.raises(FederationError, match="kept nothing"):
            app(message, where)
        return
    answered = app(message, where)
    # Two steps of a quarter of the way from 1 to client 1's minimum, which is 1 too.
    assert decoded(answered.content["arrays"]["flat"]).tolist() == [1.0] * 4
    assert answered.content["metrics"]["seen"] == 2


def test_in_virtual_time_two_segments_without_mixing_are_one_task(toy):
    from toy_fleet import Timed

    seconds = (4.0, 2.6, 9.1, 3.3)
    one = toy.rounds(4, toy.PullRule(steps=4), FedAsync(0.6, Constant()), fleet=Timed(*seconds))
    # alpha = xi / (1 + xi) = 0.6, whatever the version and the age; each segment takes half the time.
    fixed = FedASMU(initial_lambda=1e-12, initial_iota=1.5, mu_beta=0.0, meta_lr=0.0, local_steps=4)
    two = toy.rounds(4, toy.PullRule(), fixed, fleet=Timed(*(s / 2 for s in seconds)))
    for rounds in (one, two):
        while rounds.version < 12:
            rounds.advance()
    assert one.exchange.clock_s == pytest.approx(two.exchange.clock_s)
    first, second_ = (rounds.strategy.models(rounds.state)["global"] for rounds in (one, two))
    for key, array in first.items():
        np.testing.assert_allclose(array, second_[key], rtol=0, atol=1e-6)
