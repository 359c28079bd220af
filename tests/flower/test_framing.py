"""The size of a message, computed, is the size of the message, serialised."""

import numpy as np
import pytest

from fedpref.flower import _shim
from fedpref.flower.framing import framed_bytes

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict  # isort: skip

NUMBERS = [0, 1, -1, 63, 64, -64, -65, 127, 128, 2**31, 2**63 - 1, -(2**63), 2**64 - 1]
LISTS = [[], [0.5, 1.0], [1, -2, 300], [2**63, 1], [True, False], ["a", "ä", ""], [b"", b"xy"]]


def message(content: RecordDict, node: int = 1, group: str = "", ttl: float | None = None) -> Message:
    _shim.adopt_process()
    return _shim.stamp(Message(content, node, "train", group_id=group, ttl=ttl), "m17")


def serialised(sent: Message) -> int:
    return len(_shim.message_to_bytes(sent))


@pytest.mark.parametrize("value", [*NUMBERS, 0.0, -1.5, True, "", "Käse", "x" * 300, b"", b"\0" * 200])
def test_a_setting_of_any_kind_is_measured(value: object) -> None:
    sent = message(RecordDict({"config": ConfigRecord({"key": value, "": value})}))  # type: ignore[dict-item]
    assert framed_bytes(sent) == serialised(sent)


@pytest.mark.parametrize("value", LISTS)
def test_a_list_of_any_kind_is_measured(value: list[object]) -> None:
    sent = message(RecordDict({"config": ConfigRecord({"key": value})}))  # type: ignore[dict-item]
    assert framed_bytes(sent) == serialised(sent)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (300, 2), (3, 0, 5), (70_000,)])
def test_arrays_of_any_shape_are_measured(shape: tuple[int, ...]) -> None:
    arrays = ArrayRecord({"flat": Array(np.zeros(shape, np.float32)), "": Array(np.zeros(shape))})
    sent = message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"loss": 0.5, "n": [1, 2]})}))
    assert framed_bytes(sent) == serialised(sent)


def test_addresses_replies_and_errors_are_measured() -> None:
    for node in (1, 127, 128, 2**40):
        asked = message(RecordDict(), node, group="round 3", ttl=12.5)
        failed = Message(Error(2, "the dög ate it"), reply_to=asked)
        for sent in (asked, failed, Message(RecordDict(), reply_to=asked), Message(Error(0), reply_to=asked)):
            assert framed_bytes(sent) == serialised(sent)
