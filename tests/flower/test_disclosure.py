"""The privacy card counts what clients really sent."""

import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedpref.flower import _shim
from fedpref.flower.disclosure import _MOST_FORMS, Disclosure
from fedpref.flower.records import read

BIAS = {"name": "head.bias", "dtype": "float32", "shape": [1], "bytes_per_message": 4}
WEIGHT = {"name": "head.weight", "dtype": "float32", "shape": [3], "bytes_per_message": 12}


def reply_of(node, manifest="[]", arrays=None, metrics=None):
    """A reply from node ``node`` with whatever content."""
    _shim.adopt_process()
    asked = Message(RecordDict(), node, "train")
    records = {"metrics": MetricRecord(metrics or {}), "config": ConfigRecord({"manifest": manifest})}
    if arrays is not None:
        records["arrays"] = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    return Message(RecordDict(records), reply_to=asked)


def see(disclosure, reply):
    disclosure.see(reply, read(reply.content))


def by_name(rows):
    return {row["name"]: row for row in rows}


def test_every_tensor_and_number_of_every_client_is_on_the_card(toy):
    rounds = toy.rounds(3)
    rounds.advance(), rounds.advance()
    card = rounds.exchange.disclosed
    counts = {"messages": 6, "clients": 3}
    assert card["tensors"] == [BIAS | counts, WEIGHT | counts]
    assert card["tensor_bytes"] == rounds.exchange.traffic.raw_up_bytes == 6 * 16
    # Client i holds i + 1 pairs and tells how many tasks it has seen.
    assert by_name(card["numbers"]) == {
        "flops": {"name": "flops", "low": 1e9, "high": 1e9, **counts},
        "num-examples": {"name": "num-examples", "low": 1, "high": 3, **counts},
        "seen": {"name": "seen", "low": 1.0, "high": 2.0, **counts},
    }
    assert [entry["name"] for entry in card["entries"]] == ["manifest", "task"]


def test_what_clients_keep_is_not_on_the_card(toy):
    rounds = toy.rounds(2)
    rounds.advance()
    assert set(rounds.exchange.kept(0).arrays) == {"last"}
    assert "last" not in json.dumps(rounds.exchange.disclosed)


@pytest.mark.parametrize(("fault", "shape"), [("nan", [1]), ("shape", [2])])
def test_a_rejected_reply_has_left_its_client(toy, fault, shape):
    rounds = toy.rounds(3, toy.PullRule(faults={1: fault}))
    outcome = rounds.advance()
    assert not outcome.arrivals[1].is_ok
    biases = [row for row in rounds.exchange.disclosed["tensors"] if row["name"] == "head.bias"]
    assert sum(row["messages"] for row in biases) == rounds.exchange.disclosed["replies"] == 3
    assert shape in [row["shape"] for row in biases]


def test_a_failure_says_how_much_text_it_was(toy):
    rounds = toy.rounds(3, toy.PullRule(faults={1: "raise"}))
    detail = rounds.advance().arrivals[1].detail
    card = rounds.exchange.disclosed
    assert card["replies"] == 2
    assert card["failures"] == {"messages": 1, "clients": 1, "longest_reason_characters": len(detail)}


def test_counters_survive_a_checkpoint(toy):
    rounds = toy.rounds(3, toy.PullRule(faults={1: "nan"}))
    rounds.advance()
    tree = json.loads(json.dumps(rounds.snapshot()[0], allow_nan=False))
    resumed = toy.rounds(3, toy.PullRule(faults={1: "nan"}))
    resumed.restore(rounds.state, tree, rounds.snapshot()[1])
    assert resumed.exchange.disclosed == rounds.exchange.disclosed
    rounds.advance(), resumed.advance()
    assert resumed.exchange.disclosed == rounds.exchange.disclosed


@pytest.mark.parametrize("manifest", ["[]", "no manifest", '[["a",[2]]]', '[["a",[-1]]]', "[" * 5000])
def test_a_manifest_that_does_not_fit_hides_nothing(manifest):
    disclosure = Disclosure()
    see(disclosure, reply_of(1, manifest, {"flat": np.zeros(3, np.float32)}))
    (row,) = disclosure.card()["tensors"]
    assert (row["name"], row["shape"], row["bytes_per_message"]) == ("flat", [3], 12)


def test_arrays_by_name_are_listed_as_they_came():
    disclosure = Disclosure()
    see(disclosure, reply_of(1, arrays={"secret": np.zeros((2, 5), np.float64)}))
    (row,) = disclosure.card()["tensors"]
    assert row == {
        "name": "secret",
        "dtype": "float64",
        "shape": [2, 5],
        "bytes_per_message": 80,
        "messages": 1,
        "clients": 1,
    }


def test_numbers_that_are_none_have_no_range_and_lists_say_how_long_they_are():
    disclosure = Disclosure()
    see(disclosure, reply_of(1, metrics={"bad": float("nan"), "worse": float("inf"), "row": [3.0, -4.0]}))
    see(disclosure, reply_of(2, metrics={"bad": 0.5, "worse": float("-inf"), "row": [9.0, 0.0]}))
    rows = by_name(disclosure.card()["numbers"])
    assert {name: (row["low"], row["high"]) for name, row in rows.items()} == {
        "bad": (0.5, 0.5),
        "worse": (None, None),
        "row[2]": (-4.0, 9.0),
    }
    tree, arrays = disclosure.snapshot()
    assert Disclosure.restored(json.loads(json.dumps(tree)), arrays).card() == disclosure.card()


def test_a_client_that_invents_names_without_end_is_counted_in_bounded_memory():
    disclosure = Disclosure()
    for index in range(2 * _MOST_FORMS):
        see(disclosure, reply_of(1, metrics={f"name {index}": 1.0}))
    see(disclosure, reply_of(1, "x" * 2**21))
    card = disclosure.card()
    assert card["replies"] == 2 * _MOST_FORMS + 1
    assert card["unlisted_replies"] == card["replies"] - _MOST_FORMS
    assert len(card["numbers"]) == _MOST_FORMS


def test_what_json_has_to_hold_does_not_grow_with_the_clients():
    def characters(num_nodes):
        disclosure = Disclosure()
        for node in range(1, num_nodes + 1):
            see(disclosure, reply_of(node, metrics={"loss": 0.5}))
        tree, arrays = disclosure.snapshot()
        assert arrays["nodes/0"].tolist() == list(range(1, num_nodes + 1))
        return len(json.dumps(tree))

    assert characters(300) == characters(1) + len("300") - len("1")
