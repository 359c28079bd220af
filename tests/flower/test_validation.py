"""Any reply is an update or a rejection with a code."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpref.errors import ConfigurationError
from fedpref.flower import _shim, wire
from fedpref.flower.records import read
from fedpref.flower.validation import Rejection, ReplyLimits, validate_reply
from fedpref.types import Task, Update

CODES = set(
    "non_finite shape dtype keys norm weight weight_claim missing_metric type size rank wrong_task".split()
)
LORA = {"q.lora_A.weight": np.zeros((8, 4), np.float32), "q.lora_B.weight": np.zeros((4, 8), np.float32)}


def task(weights=None, **options):
    sent = {"w": np.zeros(4, np.float32), "b": np.zeros(1, np.float32)} if weights is None else weights
    return Task(0, sent, number=5, **options)


def reply(weights=None, metrics=None, config=None, named=False):
    """A good reply, but for what is given."""
    weights = {"w": np.ones(4, np.float32), "b": np.ones(1, np.float32)} if weights is None else weights
    metrics = {"num-examples": 3, "loss": 0.5} if metrics is None else metrics
    manifest = wire.manifest_of(wire.schema_of(weights))
    if named:
        arrays = {key: Array(array) for key, array in weights.items()}
    else:
        flats = [weights[key].ravel() for key in sorted(weights)]
        arrays = {"flat": Array(np.concatenate(flats) if flats else np.zeros(0, np.float32))}
    records = {
        "arrays": ArrayRecord(arrays),
        "metrics": MetricRecord(metrics),
        "config": ConfigRecord({"manifest": manifest, "task": 5} | (config or {})),
    }
    return as_message(records)


def as_message(records):
    _shim.adopt_process()
    return Message(RecordDict(records), 1, "train")


def judge(message, asked=None, limits=None, shard_pairs=None):
    return validate_reply(read(message.content), asked or task(), limits or ReplyLimits(), shard_pairs)


@pytest.mark.parametrize("named", [False, True])
def test_a_good_reply_becomes_an_update_with_a_float64_delta(named):
    asked = task({"w": np.full(4, 0.25, np.float32), "b": np.zeros(1, np.float32)})
    update = judge(reply(named=named), asked)
    assert isinstance(update, Update)
    assert update.num_pairs == 3 and update.metrics == {"loss": 0.5}
    assert update.delta["w"].dtype == np.float64 and update.delta["w"].tolist() == [0.75] * 4


def test_an_update_copies_neither_what_was_sent_nor_what_came_back():
    asked, answer = task(), reply()
    update = judge(answer, asked)
    assert all(update.received[key] is asked.weights[key] for key in ("b", "w"))
    data = np.frombuffer(next(iter(read(answer.content).arrays.values()))["flat"].data, np.uint8)
    assert all(np.shares_memory(array, data) for array in update.weights.values())


def two(w, other="b"):
    return {"w": w, other: np.zeros(1, np.float32)}


def with_value(value):
    return {"w": np.array([0, value, 0, value], np.float32), "b": np.zeros(1, np.float32)}


WEIGHT = "num-examples must be a finite whole number in [1, 1e+06], got "
CASES = [
    (reply(with_value(np.nan)), "non_finite", "array 'w' has 2 non-finite values of 4"),
    (reply(with_value(np.inf)), "non_finite", "array 'w' has 2 non-finite values of 4"),
    (reply(metrics={"num-examples": 3, "loss": math.nan}), "non_finite", "metric 'loss' is nan"),
    (reply(two(np.zeros(1, np.float32))), "shape", "array 'w' has shape (1,), expected (4,)"),
    (reply(two(np.zeros((2, 2), np.float32))), "shape", "array 'w' has shape (2, 2), expected (4,)"),
    (reply(two(np.zeros(4, np.int64)), named=True), "dtype", "array 'w' has dtype int64, expected float32"),
    (reply({"w": np.zeros(4), "b": np.zeros(1)}), "dtype", "array 'flat' has dtype float64, expected float32"),  # noqa: E501
    (reply(two(np.zeros(4, np.float32), "evil")), "keys", "unexpected arrays ['evil']; missing ['b']"),
    (reply({}), "keys", "unexpected arrays []; missing ['b', 'w']"),
    (reply(with_value(1e30)), "norm", "update norm 1.4e+30 exceeds 1.0e+03"),
    (reply(metrics={"num-examples": -1}), "weight", WEIGHT + "-1"),
    (reply(metrics={"num-examples": 0}), "weight", WEIGHT + "0"),
    (reply(metrics={"num-examples": math.nan}), "weight", WEIGHT + "nan"),
    (reply(metrics={"num-examples": 1e30}), "weight", WEIGHT + "1e+30"),
    (reply(metrics={"num-examples": 2.5}), "weight", WEIGHT + "2.5"),
    (reply(metrics={"num-examples": [3, 3]}), "weight", WEIGHT + "[3, 3]"),
    (reply(metrics={"num-examples": 1000}), "weight_claim", "claims 1000 examples, partition has 200"),
    (reply(metrics={"loss": 0.5}), "missing_metric", "metric 'num-examples' missing; got ['loss']"),
    (reply(metrics={"num-examples": 3, "x": [1.0]}), "type", "metric 'x' must be one number, got [1.0]"),
    (reply(config={"manifest": "["}), "type", None),
    (reply(config={"manifest": '[["b",[1]],["w",[5]]]'}), "type", None),
    (reply(config={"task": 4}), "wrong_task", "answers task 4, asked was task 5"),
    (as_message({}), "missing_metric", "metric 'num-examples' missing; got []"),
]  # fmt: skip


@pytest.mark.parametrize("message,code,detail", CASES)
def test_every_bad_reply_has_its_code_and_a_sentence_with_the_value(message, code, detail):
    outcome = judge(message, shard_pairs=200)
    assert isinstance(outcome, Rejection) and outcome.code == code
    assert detail is None or outcome.detail == detail


def test_a_reply_above_the_size_limit_is_not_even_decoded():
    outcome = judge(reply(), limits=ReplyLimits(max_reply_bytes=100))
    assert isinstance(outcome, Rejection) and outcome.code == "size"


def test_lora_factors_of_another_rank_are_named():
    got = {"q.lora_A.weight": np.zeros((16, 4), np.float32), "q.lora_B.weight": np.zeros((4, 8), np.float32)}
    outcome = judge(reply(got), task(LORA))
    assert outcome == Rejection("rank", "lora_A rank 16, lora_B rank 8 at 'q'; expected rank 8")


def test_pickled_objects_are_refused_unopened():
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    array = Array("float32", (4,), "numpy.ndarray", buffer.getvalue())
    message = as_message({"arrays": ArrayRecord({"w": array}), "metrics": MetricRecord({"num-examples": 1})})
    assert judge(message) == Rejection("type", "array 'w' cannot be decoded without pickle")


def test_an_evaluation_must_return_numbers_only():
    asked = task(kind="evaluate")
    assert isinstance(judge(reply({}), asked), Update)
    assert judge(reply(), asked).code == "keys"


def test_a_reply_schema_replaces_that_of_the_sent_weights():
    asked = task(reply={"scores": (2,)})
    update = judge(reply({"scores": np.ones(2, np.float32)}), asked)
    assert isinstance(update, Update) and update.delta == {}
    assert judge(reply(), asked).code == "keys"


def test_limits_must_be_positive():
    with pytest.raises(ConfigurationError, match=r"limits\.max_update_norm"):
        ReplyLimits(max_update_norm=math.nan)


numbers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats())
metric_values = st.one_of(
    numbers, st.lists(st.integers(-5, 5), max_size=3), st.lists(st.floats(), max_size=3)
)
config_values = st.one_of(
    st.text(max_size=20), st.integers(-5, 9), st.booleans(), st.binary(max_size=9), st.floats()
)
good_npy = wire.pack({"w": np.ones(4, np.float32)}).array.data
array_bytes = st.one_of(
    st.binary(max_size=200),
    st.integers(0, len(good_npy)).map(lambda n: good_npy[:n]),
    st.tuples(st.integers(0, len(good_npy) - 1), st.integers(0, 255)).map(
        lambda edit: good_npy[: edit[0]] + bytes([edit[1]]) + good_npy[edit[0] + 1 :]
    ),
)
arrays = st.builds(
    Array,
    st.sampled_from(["float32", "int8", "nonsense"]),
    st.lists(st.integers(-2, 5), max_size=2).map(tuple),
    st.sampled_from(["numpy.ndarray", "other"]),
    array_bytes,
)
names = st.sampled_from(["flat", "w", "b", "evil", "q.lora_A", "q.lora_B"])
manifests = st.one_of(
    st.text(max_size=10),
    st.lists(st.tuples(names, st.lists(st.integers(-1, 5), max_size=3)), max_size=3).map(json.dumps),
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(names, arrays, max_size=3),
    st.dictionaries(st.sampled_from(["num-examples", "loss"]), metric_values),
    st.dictionaries(st.sampled_from(["task", "x"]), config_values),
    st.one_of(st.none(), manifests),
)
def test_any_reply_is_an_update_or_a_code_and_never_an_exception(named, metrics, config, manifest):
    if manifest is not None:
        config = config | {"manifest": manifest}
    records = {"arrays": ArrayRecord(named), "metrics": MetricRecord(metrics), "config": ConfigRecord(config)}
    message = as_message(records)
    assert read(message.content).array_bytes >= 0
    for asked in (task(), task(LORA), task({"w": np.zeros(4, np.float32)})):
        outcome = judge(message, asked, shard_pairs=7)
        if isinstance(outcome, Rejection):
            assert outcome.code in CODES and outcome.detail
        else:
            assert all(np.isfinite(array).all() for array in outcome.weights.values())
            assert 1 <= outcome.num_pairs <= 7
