from collections.abc import Sequence

import numpy as np
import pytest
from clock_toy import Clock

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean
from fedpref.maths.fedau import FedAU, interval_weights, intervals_after
from fedpref.maths.weights import digest
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.types import Update, Weights

RNG = generator(0, "unused")


def update(client: int, num_clients: int, factor: float = 1.0) -> Update:
    """One whose delta marks its client, so that the combined delta shows the clients' weights."""
    mark = np.eye(num_clients, dtype=np.float32)[client]
    return Update({"w": mark}, {"w": np.zeros_like(mark)}, 1, {}, client, factor)


def weights_of(
    combine: FedAU, presence: Sequence[Sequence[int]], num_clients: int, shares: Sequence[float] | None = None
) -> np.ndarray:
    """N times each client's weight in each call, shape (calls, N); with equal shares its omega or 0."""
    base: Weights = {"w": np.zeros(num_clients, np.float32)}
    memory = combine.init(range(num_clients))
    rows = []
    for present in presence:
        own = [1.0 if shares is None else shares[client] for client in present]
        combined = combine(base, [update(i, num_clients) for i in present], own, present, RNG, memory)
        memory = combined.memory
        rows.append(num_clients * combined.delta["w"])
    return np.array(rows)


@pytest.mark.parametrize("share", ["clients", "pairs"])
def test_who_always_takes_part_weighs_one_and_the_federation_is_fedavg_to_the_bit(share: str) -> None:
    minima, seconds, num_pairs = [0.0, 0.3, 1.0, 0.7, 0.1], [1.0] * 5, [3, 1, 4, 1, 5]
    runs = [
        Clock(FedAvg(share=share, combine=combine), minima, seconds, num_pairs=num_pairs).run(12)  # type: ignore[arg-type]
        for combine in (FedAU(), WeightedMean())
    ]
    assert digest(runs[0].strategy.models(runs[0].state)) == digest(runs[1].strategy.models(runs[1].state))
    assert runs[0].values == runs[1].values


@pytest.mark.parametrize("period", [2, 3, 7])
def test_a_client_of_period_c_weighs_one_at_first_and_c_from_then_on(period: int) -> None:
    presence = [[0, 1] if call % period == period - 1 else [0] for call in range(10 * period)]
    mine = weights_of(FedAU(), presence, 2)[period - 1 :: period, 1]
    np.testing.assert_allclose(mine, [1.0] + [period] * 9)


def test_the_interval_that_ends_now_does_not_enter_its_own_weight() -> None:
    # client 1 takes part in calls 2, 3 and 8: intervals 2, 1, 5; weights 1, 2, (2 + 1) / 2
    presence = [[0], [0, 1], [0, 1], [0], [0], [0], [0], [0, 1]]
    mine = weights_of(FedAU(), presence, 2)[[1, 2, 7], 1]
    np.testing.assert_allclose(mine, [1.0, 2.0, 1.5])


def test_the_mean_interval_of_a_bernoulli_client_is_one_over_its_rate() -> None:
    rng, q, calls = generator(0, "bernoulli"), 0.25, 60
    memory = FedAU().init(range(4000))  # clients are the repetitions
    for _ in range(calls):
        present = np.flatnonzero(rng.uniform(size=4000) < q).tolist()
        memory = {**memory, **intervals_after(memory, present, None)}
    omegas = interval_weights(memory)
    # an interval that has not ended is left out: 15 intervals in 60 calls lose about half of one's excess
    assert np.mean(omegas) == pytest.approx(1 / q, rel=0.06)
    assert memory["length"].sum() + memory["absent"].sum() == 4000 * calls


def test_each_client_weighs_one_over_n_a_call_in_the_long_run() -> None:
    rng, rates = generator(0, "rates"), np.array([1.0, 0.5, 0.2, 0.1])
    presence = [np.flatnonzero(rng.uniform(size=4) < rates).tolist() for _ in range(6000)]
    mean = weights_of(FedAU(cutoff=None), presence, 4).mean(axis=0)
    np.testing.assert_allclose(mean, 1.0, atol=0.12)


def test_an_absence_is_cut_off_into_intervals_of_its_length() -> None:
    memory = FedAU(cutoff=3).init(range(2))
    for _ in range(7):
        memory = {**memory, **intervals_after(memory, [0], 3)}
    assert (memory["intervals"][1], memory["length"][1], memory["absent"][1]) == (2, 6, 1)
    bounded = weights_of(FedAU(cutoff=3), [[0]] * 30 + [[0, 1]], 2)[-1, 1]
    assert bounded == 3


def test_a_client_with_two_updates_in_one_call_took_part_once() -> None:
    base: Weights = {"w": np.zeros(2, np.float32)}
    combine = FedAU()
    memory = combine.init(range(2))
    for clients in ([0], [0, 1, 1]):
        updates = [update(client, 2) for client in clients]
        combined = combine(base, updates, [1.0] * len(updates), clients, RNG, memory)
        memory = combined.memory
    np.testing.assert_allclose(combined.delta["w"], [0.5, 0.5])  # omega_1 = 1 over its two updates
    assert memory["intervals"].tolist() == [2, 1] and memory["length"].tolist() == [2, 2]


def test_absentees_leave_their_part_of_the_step_untaken() -> None:
    assert weights_of(FedAU(), [[0]], 4).sum() == 1  # one of four: a quarter of the mean step


def test_shares_are_over_all_clients_and_the_unseen_count_as_average_ones() -> None:
    shares = [1.0, 3.0, 4.0]
    weights = weights_of(FedAU(), [[0, 1], [0, 1, 2]], 3, shares)
    # of two seen the mean is 2, so all three are taken to have 6; then they have 8
    np.testing.assert_allclose(weights[0] / 3, [1 / 6, 3 / 6, 0])
    np.testing.assert_allclose(weights[1] / 3, [1 / 8, 3 / 8, 4 / 8])


def test_the_log_tells_how_uneven_the_weights_are() -> None:
    presence = [[0], [0], [0], [0, 1], [0, 1]]
    combine, base = FedAU(), {"w": np.zeros(2, np.float32)}
    memory = combine.init(range(2))
    for present in presence:
        combined = combine(base, [update(i, 2) for i in present], [1.0] * len(present), present, RNG, memory)
        memory = combined.memory
    # weights 1/2 and 4/2
    assert combined.metrics["weight_sum"] == pytest.approx(2.5)
    assert combined.metrics["weight_max"] == pytest.approx(2.0)
    assert combined.metrics["effective_updates"] == pytest.approx(2.5**2 / 4.25)


def test_a_cutoff_below_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cutoff=0"):
        FedAU(cutoff=0)
