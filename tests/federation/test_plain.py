import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpref.errors import CheckpointError
from fedpref.federation import checkpoint
from fedpref.federation.plain import from_plain, state_classes, to_plain


@dataclass(frozen=True)
class State:
    numbers: tuple[float, ...]
    table: dict[int, np.ndarray]
    nothing: None = None


def round_trip(value: object) -> object:
    arrays: dict[str, np.ndarray] = {}
    tree = json.loads(json.dumps(to_plain(value, arrays), allow_nan=False))
    return from_plain(tree, arrays, [State])


def test_a_state_comes_back_with_its_types_and_bits() -> None:
    value = State((0.1, float("inf"), -0.0), {3: np.arange(4.0), 1: np.ones((2, 2), np.float32)})
    back = round_trip(value)
    assert isinstance(back, State)
    assert back.numbers == value.numbers and str(back.numbers[2]) == "-0.0"
    assert list(back.table) == [3, 1]
    for key, array in value.table.items():
        assert back.table[key].dtype == array.dtype
        np.testing.assert_array_equal(back.table[key], array)


@pytest.mark.parametrize("value", [None, True, 3, "x", [1, (2, "y")], {"a": {1: [None]}}])
def test_plain_values_come_back_equal(value: object) -> None:
    assert round_trip(value) == value


@pytest.mark.parametrize(
    "value", [np.float32(0.1), np.float64(0.1), np.int64(2**40), np.bool_(True), np.array(0.1, np.float32)]
)
def test_numpy_scalars_and_arrays_of_shape_zero_keep_type_shape_and_bits(tmp_path: Path, value: Any) -> None:
    arrays: dict[str, np.ndarray] = {}
    tree = to_plain({"x": value}, arrays)
    found = checkpoint.load(checkpoint.save(tmp_path, 0, {"state": tree}, arrays))
    back = from_plain(found.tree["state"], found.arrays)["x"]
    assert type(back) is type(value) and back.dtype == value.dtype and back.shape == ()
    assert back.tobytes() == value.tobytes()


def test_two_classes_of_one_name_from_two_modules_are_not_confused() -> None:
    other = dataclasses.make_dataclass("State", ["numbers", "table"], frozen=True)
    other.__module__ = "elsewhere"
    arrays: dict[str, np.ndarray] = {}
    tree = to_plain([State((), {}), other((), {})], arrays)
    for classes in ([State, other], [other, State]):
        assert [type(state) for state in from_plain(tree, arrays, classes)] == [State, other]


def test_an_array_that_occurs_twice_is_stored_once() -> None:
    arrays: dict[str, np.ndarray] = {}
    shared = np.ones(3)
    to_plain({"a": shared, "b": [shared]}, arrays)
    assert len(arrays) == 1


def test_what_is_not_plain_is_refused_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a function"):
        to_plain({"a": [1, lambda: None]}, {})


def test_a_checkpoint_cannot_name_a_class_of_its_own_choice() -> None:
    with pytest.raises(CheckpointError, match="unknown"):
        from_plain({"class": "Popen", "fields": {"args": "ls"}}, {}, [State])


def test_a_state_finds_the_dataclasses_of_its_module() -> None:
    from fedpref.strategies.fedavg import FedAvg
    from fedpref.strategies.local_only import LocalModels, LocalOnly
    from fedpref.strategies.tail_average import TailAverage, TailState

    assert LocalModels in state_classes(LocalOnly())
    assert {TailState, FedAvg} <= set(state_classes(TailAverage(FedAvg())))
