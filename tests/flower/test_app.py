"""A client rule as a Flower ``ClientApp``."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg

from fedpref.errors import ConfigurationError
from fedpref.flower import _shim, wire
from fedpref.flower.records import decoded
from fedpref.types import Task

START = {"head.bias": np.ones(1, np.float32), "head.weight": np.ones(3, np.float32)}


def context(partition_id=1):
    _shim.adopt_process()
    config = {} if partition_id is None else {"partition-id": partition_id}
    return Context(1, 1, config, RecordDict(), {})


def ask(app, where, number=0, acknowledged=-1, kind="train", **settings):
    task = Task(1, START, kind, settings, number=number)
    return app(wire.send(task, wire.pack(START), 1, 7, acknowledged), where)


def seen(message):
    return int(message.content["metrics"]["seen"])


def test_a_state_stays_pending_until_its_task_is_acknowledged(toy):
    app, where = toy.app(2), context()
    assert seen(ask(app, where, number=0)) == 1
    assert seen(ask(app, where, number=1, acknowledged=-1)) == 1  # task 0 was not accepted
    assert seen(ask(app, where, number=2, acknowledged=1)) == 2
    assert seen(ask(app, where, number=3, acknowledged=1)) == 2  # task 2 was not accepted
    assert seen(ask(app, where, number=4, acknowledged=3)) == 3


def test_a_server_that_acknowledges_nothing_counts_as_accepting_all(toy):
    app, where = toy.app(2), context()
    for expected in (1, 2, 3):
        content = {"arrays": wire.named_arrays(START), "config": ConfigRecord({"server-round": expected})}
        assert seen(app(Message(RecordDict(content), 1, "train"), where)) == expected


def test_an_evaluation_does_not_touch_the_state(toy):
    app, where = toy.app(2), context()
    ask(app, where, number=0)
    before = _shim.records_to_bytes(where.state)
    ask(app, where, number=0, acknowledged=0, kind="evaluate")
    assert seen(ask(app, where, number=1, acknowledged=0)) == 2
    assert before != _shim.records_to_bytes(where.state)


def test_randomness_depends_on_the_task_number_and_seed_alone(toy):
    app = toy.app(2, toy.PullRule(noise=1.0))

    def data(number):
        return ask(app, context(), number=number).content["arrays"]["flat"].data

    first = data(4)
    np.random.seed(0)
    assert data(4) == first != data(5)


def test_settings_reach_the_rule(toy):
    app = toy.app(2)
    none = ask(app, context(), local_steps=0).content["arrays"]["flat"]
    assert decoded(none).tolist() == [1.0] * 4


def test_an_evaluation_gives_accuracy_and_loss_on_the_own_shard(toy):
    metrics = ask(toy.app(2), context(), kind="evaluate").content["metrics"]
    # Client 1 holds two pairs with chosen features (1, 1, 1), rejected 0: the margin is 3.
    assert dict(metrics) == {
        "accuracy": 1.0,
        "loss": pytest.approx(np.log1p(np.exp(-3.0))),
        "num-examples": 2,
    }


def test_margins_of_zero_are_half_right(toy):
    metrics = ask(toy.app(1), context(0), kind="evaluate").content["metrics"]
    assert metrics["accuracy"] == 0.5 and metrics["loss"] == pytest.approx(np.log(2))


def test_an_empty_shard_has_no_accuracy_and_says_so(toy):
    from fedpref.flower.app import client_app

    app = client_app(toy.PullRule(), [toy.make_shard(0, num_pairs=0)], seed=7)
    with pytest.raises(ConfigurationError, match=r"client 0 \(client-0\) has no pairs to evaluate on"):
        ask(app, context(0), kind="evaluate")


@pytest.mark.parametrize("partition_id", [None, -1, 5])
def test_a_node_without_a_usable_partition_id_is_told_so(toy, partition_id):
    with pytest.raises(ConfigurationError, match="partition-id"):
        ask(toy.app(2), context(partition_id))


def test_shards_may_be_loaded_by_a_function(toy):
    from fedpref.flower.app import client_app

    app = client_app(toy.PullRule(), toy.make_shard, seed=7)
    assert ask(app, context()).content["metrics"]["num-examples"] == 2


@pytest.mark.parametrize("kind", ["resume", "score", "a_kind_of_a_plug_in"])
def test_every_kind_reaches_the_rule(toy, kind):
    assert ask(toy.app(2), context(), kind=kind).content["metrics"]["num-examples"] == 2


@pytest.mark.parametrize("form", ["named", "flat"])
@pytest.mark.parametrize("make", [FedAvg, FedAdam])
def test_a_stock_strategy_trains_the_rule_on_the_virtual_grid(toy, form, make):
    grid = toy.grid(3)
    arrays = wire.named_arrays(START) if form == "named" else ArrayRecord({"flat": wire.pack(START).array})
    stock = make(min_train_nodes=3, min_available_nodes=3, min_evaluate_nodes=3)
    result = stock.start(grid, arrays, num_rounds=2)
    got = np.concatenate([a.numpy().ravel() for a in result.arrays.values()])
    assert sorted(result.train_metrics_clientapp) == sorted(result.evaluate_metrics_clientapp) == [1, 2]
    if make is FedAvg:
        mean_minimum = (0 * 1 + 1 * 2 + 2 * 3) / 6
        expected = 0.5625**2 * 1.0 + (1 - 0.5625**2) * mean_minimum
        np.testing.assert_allclose(got, expected, rtol=1e-6)
