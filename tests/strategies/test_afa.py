import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from clock_toy import Clock

from fedpref.errors import ConfigurationError
from fedpref.seeds import generator
from fedpref.strategies.afa_cd import AfaCd, per_step
from fedpref.strategies.afa_cs import AfaCs
from fedpref.strategies.fedavg import FedAvg
from fedpref.types import OK, Arrival, Task, Update, Weights

RNG = generator(0, "minima")
MINIMA = [float(value) for value in RNG.normal(size=8)]
PAIRS = [int(value) for value in RNG.integers(1, 9, size=8)]
MODEL: Weights = {"w": np.zeros(1, np.float32)}


def answer(delta: float, metrics: Mapping[str, float], client: int = 0) -> Arrival:
    weights = {"w": np.full(1, delta, np.float32)}
    update = Update(weights, MODEL, 1, metrics, client)
    return Arrival(Task(client, MODEL), update, OK, 0, 0.0, 1.0)


@pytest.mark.parametrize("server_steps", [None, 3])
@pytest.mark.parametrize("share", ["clients", "pairs"])
@pytest.mark.parametrize("kind", [AfaCd, AfaCs])
def test_equal_steps_fresh_answers_and_full_participation_are_fedavg_to_the_bit(
    kind: type[AfaCd] | type[AfaCs], share: str, server_steps: float | None
) -> None:
    anarchic = kind(buffer_size=8, server_steps=server_steps, share=share)  # type: ignore[arg-type]
    average = FedAvg(share=share)  # type: ignore[arg-type]
    one, other = (Clock(s, MINIMA, [1.0] * 8, steps=3, num_pairs=PAIRS).run(9) for s in (average, anarchic))
    assert one.values == other.values


def test_a_server_step_is_as_long_as_so_many_local_ones() -> None:
    # eta_s = server_steps eta: twice the K_i goes twice as far along the mean gradient.
    ends = [Clock(AfaCd(8, server_steps=k), MINIMA, [1.0] * 8, steps=3).run(1).value - 0.25 for k in (3, 6)]
    assert ends[1] == pytest.approx(2 * ends[0], rel=1e-5)


def test_however_long_a_client_works_its_mean_gradient_counts_the_same() -> None:
    done = ((4.0, 4.0), (1.0, 1.0), (-10.0, 5.0))  # gradients -1, -1 and 2 a step
    updates = [answer(delta, {"steps_done": steps}).update for delta, steps in done]
    counted = per_step([u for u in updates if u is not None], server_steps=2.0)
    assert [u.factor * float(u.delta["w"][0]) for u in counted] == [2.0, 2.0, -4.0]


def test_without_server_steps_the_pace_is_that_of_the_mean_client() -> None:
    updates = [answer(1.0, {"steps_done": steps}).update for steps in (1.0, 5.0)]
    assert [u.factor for u in per_step([u for u in updates if u is not None], None)] == [3.0, 0.6]


@pytest.mark.parametrize("kind", [AfaCd, AfaCs])
def test_answers_of_no_steps_are_refused_and_never_remembered(kind: type[AfaCd] | type[AfaCs]) -> None:
    strategy = kind(buffer_size=1)
    clock = Clock(strategy, MINIMA, [1.0] * 8)
    state, _ = strategy.plan(clock.state, range(8), 0.0, generator(0))
    bad = [answer(1.0, {}, client=0), answer(1.0, {"steps_done": 0.0}, client=1)]
    fold = strategy.fold(state, bad, 1.0, generator(0))
    assert (fold.updated, list(fold.rejected)) == (0, bad)
    assert strategy.models(fold.state)["global"] is clock.state.model.weights
    assert fold.state.in_flight == 6


@pytest.mark.parametrize("kind", [AfaCd, AfaCs])
def test_clients_choose_their_steps_in_the_range_and_a_range_of_one_leaves_no_choice(
    kind: type[AfaCd] | type[AfaCs],
) -> None:
    strategy = kind(buffer_size=4, least_steps=2, most_steps=5, concurrency=8)
    clock = Clock(strategy, MINIMA, [1.0] * 8).run(40)
    assert {task.settings["local_steps"] for task in clock.tasks} == {2, 3, 4, 5}
    fixed = Clock(dataclasses.replace(strategy, least_steps=3, most_steps=3), MINIMA, [1.0] * 8).run(5)
    own = Clock(kind(buffer_size=4, concurrency=8), MINIMA, [1.0] * 8, steps=3).run(5)
    assert fixed.values == own.values and own.tasks[0].settings == {}


def test_cd_is_biased_towards_those_who_come_often_and_cs_is_not() -> None:
    # Minima 0 and 1; the second comes four times as often.
    ends = []
    for strategy in (AfaCd(1), AfaCs(1)):
        clock = Clock(strategy, [0.0, 1.0], [1.0, 0.25], steps=1, lr=0.004, initial=0.5).run(6000)
        ends.append(np.mean(clock.values[-5:]))
    assert ends == pytest.approx([0.8, 0.5], abs=0.01)


def test_memory_of_stationary_gradients_leaves_no_noise_of_sampling() -> None:
    # Client i always sends delta 2 g_i after 2 steps: once all were heard, whoever comes next, a server step
    # of one local step is the mean g.
    g = np.array([1.0, -3.0, 2.0, 4.0])
    strategy = AfaCs(1, server_steps=1.0)
    state = strategy.init(lambda *a: MODEL, range(4), 10, generator(0))
    values = []
    for client in (2, 0, 0, 3, 1, 1, 1, 2, 0, 3):
        arrival = answer(2 * g[client], {"steps_done": 2.0}, client)
        fold = strategy.fold(dataclasses.replace(state, in_flight=1), [arrival], 0.0, generator(0))
        state = fold.state
        values.append((float(state.model.weights["w"][0]), fold.metrics["heard_share"]))
    steps = np.diff([0.0] + [value for value, _ in values])
    # Before that, clients that were never heard count as zero.
    heard = [2, 3, 3, 7, 4, 4, 4, 4, 4, 4]
    np.testing.assert_allclose(steps, np.array(heard) / 4, atol=1e-6)
    assert [share for _, share in values] == [0.25, 0.5, 0.5, 0.75, 1, 1, 1, 1, 1, 1]


def test_a_buffer_steps_once_for_all_its_answers_and_the_rest_waits() -> None:
    for strategy in (AfaCd(3), AfaCs(3)):
        clock = Clock(strategy, MINIMA, [1.0] * 8)
        clock.advance()
        assert clock.version == 2
        clock.advance()
        assert clock.version == 5  # 2 that waited and 8: three steps, one left


@pytest.mark.parametrize("kind", [AfaCd, AfaCs])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"buffer_size": 0}, "strategy.buffer_size=0"),
        ({"server_steps": 0.0}, r"strategy.server_steps=0.0"),
        ({"least_steps": 3}, "together"),
        ({"least_steps": 3, "most_steps": 2}, "strategy.least_steps=3 .* strategy.most_steps=2"),
        ({"least_steps": 0, "most_steps": 2}, "strategy.least_steps=0"),
        ({"share": "none"}, "strategy.share='none'"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(
    kind: type[AfaCd] | type[AfaCs], values: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        kind(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [AfaCd, AfaCs])
def test_a_buffer_larger_than_the_concurrency_is_refused(kind: type[AfaCd] | type[AfaCs]) -> None:
    with pytest.raises(ConfigurationError, match=r"strategy.buffer_size=5 is larger than the 4 clients"):
        Clock(kind(buffer_size=5, concurrency=4), MINIMA, [1.0] * 8)
