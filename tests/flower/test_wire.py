"""Weights, tasks and answers as Flower records."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedpref.errors import ConfigurationError
from fedpref.flower import _shim, wire
from fedpref.flower.framing import framed_bytes
from fedpref.flower.records import decoded, read
from fedpref.types import Reply, Task

shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@pytest.fixture(autouse=True)
def _identity():
    _shim.adopt_process()


def weights():
    return {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array(7.0, np.float32)}


@given(st.dictionaries(st.text(max_size=5), shapes, max_size=4))
def test_packing_and_splitting_is_the_identity(schema):
    rng = np.random.default_rng(0)
    sent = {key: rng.normal(size=shape).astype(np.float32) for key, shape in schema.items()}
    packed = wire.pack(sent)
    got = wire.split(decoded(packed.array), wire.schema_from(packed.manifest))
    assert list(got) == sorted(sent)
    assert all(
        got[key].shape == sent[key].shape and got[key].tobytes() == sent[key].tobytes() for key in sent
    )


def test_the_order_of_names_does_not_matter():
    sent = weights()
    assert wire.pack(sent) == wire.pack(dict(reversed(sent.items())))


@pytest.mark.parametrize("dtype", ["float64", "int32", "float16", "bool"])
def test_other_dtypes_are_refused_by_name(dtype):
    with pytest.raises(ConfigurationError, match=f"'w' are {dtype}"):
        wire.pack({"w": np.zeros(2, dtype)})


def test_what_is_sent_does_not_follow_later_changes():
    sent = weights()
    packed = wire.pack(sent)
    sent["b"][:] = -1
    assert decoded(packed.array).tolist() == [7, 0, 1, 2, 3, 4, 5]


def test_weights_that_are_unpacked_are_the_receivers_own():
    packed = wire.pack(weights())
    first, second = wire.unpack(packed), wire.unpack(packed)
    first["b"][:] = -1
    assert second["b"].tolist() == weights()["b"].tolist()


def test_shared_weights_are_unpacked_once_and_nobody_can_write_to_them():
    packed, unpack = wire.pack(weights()), wire.shared_unpack()
    first, second = unpack(packed), unpack(packed)
    assert first["b"] is second["b"] and first is not second
    with pytest.raises(ValueError, match="read-only"):
        first["b"][:] = -1
    assert unpack(wire.pack({"b": -weights()["b"]}))["b"].tolist() == (-weights()["b"]).tolist()


@pytest.mark.parametrize(
    "manifest", ["", "{}", "[1]", '[["a"]]', '[["a",[-1]]]', '[["a",[true]]]', '[["a",[1]],["a",[1]]]', None]
)
def test_a_text_that_is_no_manifest_is_a_value_error(manifest):
    with pytest.raises(ValueError):
        wire.schema_from(manifest)


def test_a_task_survives_the_wire():
    task = Task(
        3, weights(), "score", {"lr": 0.5, "steps": np.int64(2), "on": True}, {"scores": (4,)}, 9.5, 12, 5
    )
    message = wire.send(task, wire.pack(task.weights), node_id=4, seed=11, acknowledged=8)
    received = wire.receive(_shim.message_from_bytes(_shim.message_to_bytes(message)), 3, seed=0, own={})
    got = received.task
    assert message.metadata.message_type == "query.score"
    assert all(np.array_equal(got.weights[key], array) for key, array in task.weights.items())
    for name in ("client_id", "kind", "reply", "expires_s", "number", "version"):
        assert getattr(got, name) == getattr(task, name)
    assert dict(got.settings) == {"lr": 0.5, "steps": 2, "on": True}
    assert received.address == (11, "task", 12) and received.acknowledged == 8


def test_raw_bytes_count_tensor_data_only():
    task = Task(0, weights(), number=0)
    message = wire.send(task, wire.pack(task.weights), 1, 0, -1)
    assert read(message.content).array_bytes == 4 * 7
    assert framed_bytes(message) == len(_shim.message_to_bytes(message)) > 4 * 7


def stock(arrays, **config):
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "config": ConfigRecord(config)}), 1, "train")


OWN = {"a": (), "b": (2, 3)}


def test_a_stock_message_with_names_is_answered_by_name():
    message = stock({k: Array(v) for k, v in weights().items()}, **{"server-round": 2, "proximal-mu": 0.1})
    received = wire.receive(message, 5, seed=3, own=OWN)
    assert dict(received.task.settings) == {"server_round": 2, "proximal_mu": 0.1}
    assert received.address == (3, "stock", 2, 5) and received.acknowledged is None
    answered = wire.answer(message, received, Reply(weights(), 4, {}))
    assert sorted(answered.content["arrays"]) == ["a", "b"]


def test_a_stock_message_with_one_flat_array_is_answered_flat():
    flat = np.arange(7, dtype=np.float64)  # a stock FedAdam returns float64
    message = stock({"flat": Array(flat)})
    received = wire.receive(message, 5, seed=3, own=OWN)
    assert received.task.weights["b"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert received.task.weights["b"].dtype == np.float32
    answered = wire.answer(message, received, Reply(weights(), 4, {}))
    assert list(answered.content["arrays"]) == ["flat"]


@pytest.mark.parametrize(
    "arrays", [{"flat": np.zeros(3)}, {"x": np.zeros(7)}, {"a": np.zeros(()), "b": np.zeros(6)}]
)
def test_stock_arrays_that_are_not_the_rules_are_refused(arrays):
    with pytest.raises(ConfigurationError, match="the client rule needs"):
        wire.receive(stock({k: Array(v) for k, v in arrays.items()}), 0, seed=0, own=OWN)


def test_integer_arrays_of_a_stock_server_are_refused():
    with pytest.raises(ConfigurationError, match="'a' has dtype int64"):
        wire.receive(stock({"a": Array(np.zeros((), np.int64))}), 0, seed=0, own=OWN)
