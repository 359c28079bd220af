import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.local_only import LocalOnly
from fedpref.strategies.tail_average import TailAverage
from fedpref.types import Arrival, Task, Update, Weights

RNG = generator(0, "unused")
ZERO: Weights = {"w": np.zeros(1, np.float32)}


def arrival(client: int, received: Weights, value: float) -> Arrival:
    weights = {"w": np.array([value], np.float32)}
    update = Update(weights, received, 1, {}, client)
    return Arrival(Task(client, received), update, "ok", 0, 0.0, 1.0)


def test_local_only_never_mixes_two_clients() -> None:
    strategy = LocalOnly()
    state = strategy.init(lambda *a: ZERO, range(3), 2, RNG)
    state = strategy.fold(state, [arrival(0, ZERO, 1.0), arrival(2, ZERO, 5.0)], 0.0, RNG).state
    assert [float(strategy.serve(state, client)[0]["w"][0]) for client in (0, 1, 2, None)] == [1, 0, 5, 0]
    _, plan = strategy.plan(state, range(3), 0.0, RNG)
    assert [float(task.weights["w"][0]) for task in plan.tasks] == [1, 0, 5]
    assert sorted(strategy.models(state)) == ["client/0", "client/2", "initial"]


@pytest.mark.parametrize(("fraction", "expected"), [(0.25, 7.5), (0.5, 6.5), (1.0, 4.5)])
def test_the_tail_is_the_mean_of_the_last_iterates(fraction: float, expected: float) -> None:
    # iterate t is t, for t = 1 … 8; with a quarter the tail is {7, 8} and its mean 7.5
    strategy = TailAverage(FedAvg(), fraction)
    state = strategy.init(lambda *a: ZERO, range(1), 8, RNG)
    for t in range(1, 9):
        received = FedAvg().models(state.inner)["global"]
        state = strategy.fold(state, [arrival(0, received, float(t))], 0.0, RNG).state
    assert float(strategy.models(state)["global"]["w"][0]) == pytest.approx(expected)
    assert strategy.serve(state, None)[0]["w"].dtype == np.float32


def test_before_its_tail_the_average_serves_the_iterate() -> None:
    strategy = TailAverage(FedAvg(), 0.25)
    state = strategy.init(lambda *a: ZERO, range(1), 8, RNG)
    state = strategy.fold(state, [arrival(0, ZERO, 3.0)], 0.0, RNG).state
    assert float(strategy.models(state)["global"]["w"][0]) == 3.0


def test_an_average_of_many_models_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="one global model"):
        TailAverage(LocalOnly()).init(lambda *a: ZERO, range(2), 8, RNG)
