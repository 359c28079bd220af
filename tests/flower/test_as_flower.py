"""A fedpref strategy in Flower's clothes."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedpref.errors import CheckpointError, ConfigurationError, FederationError
from fedpref.flower import _shim, wire
from fedpref.flower.rounds import fresh_from
from fedpref.flower.strategy import as_flower
from fedpref.flower.timed import WallGrid

START = {"head.bias": np.ones(1, np.float32), "head.weight": np.ones(3, np.float32)}


class StockGrid(Grid):
    """As Flower's own: random node ids, late registration, threads, polling, unread replies kept."""

    def __init__(self, app, num_clients, slow_s=None):
        _shim.adopt_process()
        rng = np.random.default_rng()
        self._app, self._slow_s = app, slow_s or {}
        self._contexts = {
            int(node): Context(
                1, int(node), {"partition-id": i, "num-partitions": num_clients}, RecordDict(), {}
            )
            for i, node in enumerate(rng.integers(1, 2**62, num_clients))
        }
        self._registered, self._pool, self._replies = 1, ThreadPoolExecutor(4), {}
        self._lock = threading.Lock()

    def set_run(self, run): ...

    @property
    def run(self):
        return _shim.empty_run()

    def create_message(self, *args): ...

    def get_node_ids(self):
        self._registered += 1  # nodes register one after the other
        return set(list(self._contexts)[: self._registered])

    def push_messages(self, messages):
        ids = []
        for message in messages:
            ids.append(str(uuid.uuid4()))
            self._replies[ids[-1]] = self._pool.submit(self._one, _shim.stamp(message, ids[-1]))
        return ids

    def _one(self, message):
        context = self._contexts[message.metadata.dst_node_id]
        time.sleep(self._slow_s.get(context.node_config["partition-id"], 0.0))
        try:
            with self._lock:
                return self._app(message, context)
        except Exception as error:
            return Message(Error(2, repr(error)), reply_to=message)

    def pull_messages(self, message_ids):
        return [
            self._replies.pop(i).result()
            for i in list(message_ids)
            if i in self._replies and self._replies[i].done()
        ]

    def send_and_receive(self, messages, *, timeout=None):
        raise AssertionError("not needed")


def expected(num_rounds):
    """Of three clients with minima 0, 1, 2 and 1, 2, 3 pairs: two steps a round leave 0.75^2."""
    return 0.5625**num_rounds + (1 - 0.5625**num_rounds) * (0 * 1 + 1 * 2 + 2 * 3) / 6


def flat(result):
    return np.concatenate([array.numpy().ravel() for array in result.arrays.values()])


def test_start_gives_the_same_model_on_our_grid_and_on_a_stock_one(toy):
    ours = as_flower(toy.ToyAvg()).start(toy.grid(3), wire.named_arrays(START), 2)
    stock = as_flower(toy.ToyAvg(), num_clients=3).start(
        StockGrid(toy.app(3), 3), wire.named_arrays(START), 2
    )
    np.testing.assert_allclose(flat(ours), expected(2), rtol=1e-6)
    np.testing.assert_allclose(flat(stock), flat(ours), rtol=1e-6)
    assert {r: dict(m) for r, m in stock.train_metrics_clientapp.items()} == {
        1: {"answers": 3.0},
        2: {"answers": 3.0},
    }


def test_it_runs_in_a_stock_server_app(toy):
    results, server_app = [], ServerApp()

    @server_app.main()
    def main(grid, context):
        results.append(as_flower(toy.ToyAvg(), num_clients=3).start(grid, wire.named_arrays(START), 1))

    server_app(StockGrid(toy.app(3), 3), Context(1, 0, {}, RecordDict(), {}))
    np.testing.assert_allclose(flat(results[0]), expected(1), rtol=1e-6)


def test_without_initial_arrays_the_models_start_fresh(toy):
    fresh = fresh_from(toy.PullRule(), 5)
    result = as_flower(toy.ToyAvg(), fresh).start(toy.grid(3), ArrayRecord(), 0)
    assert result.arrays == wire.named_arrays(fresh("global"))
    with pytest.raises(ConfigurationError, match="initial_arrays is empty"):
        as_flower(toy.ToyAvg()).start(toy.grid(3), ArrayRecord(), 1)


def test_the_server_side_evaluation_sees_every_round(toy):
    result = as_flower(toy.ToyAvg()).start(
        toy.grid(3),
        wire.named_arrays(START),
        2,
        evaluate_fn=lambda r, arrays: MetricRecord({"w": float(arrays["head.bias"].numpy()[0])}),
    )
    measured = [result.evaluate_metrics_serverapp[r]["w"] for r in (0, 1, 2)]
    np.testing.assert_allclose(measured, [expected(0), expected(1), expected(2)], rtol=1e-6)


def test_a_silent_client_of_a_stock_grid_expires_and_the_round_goes_on(toy):
    grid = StockGrid(toy.app(2), 2, slow_s={1: 0.6})
    result = as_flower(toy.ToyAvg(), num_clients=2).start(grid, wire.named_arrays(START), 1, timeout=0.3)
    np.testing.assert_allclose(flat(result), 0.5625, rtol=1e-6)  # client 0 alone, whose minimum is 0


def test_clients_that_all_fail_never_look_like_success(toy):
    grid = StockGrid(toy.app(2, toy.PullRule(faults={0: "raise", 1: "raise"})), 2)
    with pytest.raises(FederationError, match="the dog ate it"):
        as_flower(toy.ToyAvg(), num_clients=2).start(grid, wire.named_arrays(START), 1)


def test_too_few_nodes_are_an_error_not_an_endless_wait(toy):
    with pytest.raises(FederationError, match="2 of 3 clients came online"):
        as_flower(toy.ToyAvg(), num_clients=3).start(
            StockGrid(toy.app(2), 2), wire.named_arrays(START), 1, timeout=0.1
        )


def test_a_simulated_population_that_is_too_small_is_told_at_once(toy):
    with pytest.raises(FederationError, match="2 of 3 clients"):
        as_flower(toy.ToyAvg(), num_clients=3).start(toy.grid(2), wire.named_arrays(START), 1)


def test_settings_that_would_be_ignored_are_refused(toy):
    with pytest.raises(ConfigurationError, match="train_config"):
        as_flower(toy.ToyAvg()).start(
            toy.grid(1), wire.named_arrays(START), 1, train_config=ConfigRecord({"lr": 1.0})
        )


def test_a_live_wire_has_no_checkpoint(toy):
    with pytest.raises(CheckpointError):
        WallGrid(StockGrid(toy.app(1), 1)).snapshot()
