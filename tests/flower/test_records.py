"""Arrays and records, read and written faster than Flower does, are the same to the byte."""

import io

import numpy as np
import pytest

from fedpref.flower import _shim  # noqa: F401  (before anything else imports Flower)
from fedpref.flower.records import decoded, flat_array, read, viewed

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict  # isort: skip


@pytest.mark.parametrize("length", [0, 1, 9, 10, 99, 1000, 123_456])
def test_a_flat_array_is_flowers_to_the_byte_and_comes_back(length: int) -> None:
    values = np.random.default_rng(length).normal(size=length).astype(np.float32)
    ours, flowers = flat_array(values), Array(values)
    assert (ours.dtype, ours.shape, ours.stype, ours.data) == (
        flowers.dtype,
        flowers.shape,
        flowers.stype,
        flowers.data,
    )
    back = decoded(ours)
    assert back.dtype == np.float32 and back.tobytes() == values.tobytes()
    back += 1  # a copy, that its owner may write to
    seen = viewed(ours)
    assert seen.tobytes() == values.tobytes() and not seen.flags.writeable


@pytest.mark.parametrize("values", [np.zeros((2, 3), np.float32), np.arange(4), np.ones((), np.float32)])
def test_other_arrays_are_read_by_numpy(values: np.ndarray) -> None:
    np.testing.assert_array_equal(decoded(Array(values)), values)
    assert decoded(Array(values)).flags.writeable and not viewed(Array(values)).flags.writeable


@pytest.mark.parametrize("change", ["short", "long", "claim", "header", "empty", "object"])
def test_bytes_that_are_no_array_are_refused(change: str) -> None:
    good = flat_array(np.zeros(20, np.float32)).data
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    data = {
        "short": good[:-4],
        "long": good + b"\0\0",
        "claim": good.replace(b"(20,)", b"(99,)"),
        "header": good.replace(b"'<f4'", b"'<x4'"),
        "empty": b"",
        "object": pickled.getvalue(),
    }[change]
    array = Array(dtype="float32", shape=(20,), stype="numpy.ndarray", data=data)
    if change == "long":  # as NumPy does: what follows the array is not read
        assert decoded(array).shape == (20,)
        return
    with pytest.raises(Exception):  # noqa: B017  (of any kind, as documented)
        decoded(array)


def test_records_are_found_by_their_kind() -> None:
    class Own(MetricRecord):
        """Flower takes classes derived from its own for what they are derived from."""

    config, metrics, arrays = ConfigRecord({"a": 1}), Own({"b": 2}), ArrayRecord()
    content = RecordDict({"x": config, "y": metrics, "z": arrays, "w": ConfigRecord()})
    contents = read(content)
    assert contents.config == {"x": {"a": 1}, "w": {}} and list(contents.config) == ["x", "w"]
    assert contents.metrics == {"y": {"b": 2}} and contents.arrays == {"z": {}}
