from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from clock_toy import Clock

from fedpref.errors import ConfigurationError
from fedpref.federation.plain import from_plain, to_plain
from fedpref.maths.combine import WeightedMean
from fedpref.maths.expected_weights import ExpectedWeights, mass_ratios
from fedpref.maths.staleness import Constant, Polynomial
from fedpref.seeds import generator
from fedpref.strategies.fedasync import FedAsync
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedbuff import FedBuff
from fedpref.types import Combine, Update, Weights

RNG = generator(0, "unused")


def update(client: int, num_clients: int, factor: float = 1.0) -> Update:
    """One whose delta marks its client, so that the combined delta shows the clients' weights."""
    mark = np.eye(num_clients, dtype=np.float32)[client]
    return Update({"w": mark}, {"w": np.zeros_like(mark)}, 1, {}, client, factor)


def mean_weights(
    combine: Combine, calls: Sequence[Sequence[Update]], shares: Sequence[float] | None = None
) -> np.ndarray:
    """What each client weighs a call on average, shape (N,)."""
    num_clients = len(calls[0][0].delta["w"])
    base: Weights = {"w": np.zeros(num_clients, np.float32)}
    memory = combine.init(range(num_clients))
    total = np.zeros(num_clients)
    for updates in calls:
        own = [1.0 if shares is None else shares[one.client_id] for one in updates]
        combined = combine(base, updates, own, [one.client_id for one in updates], RNG, memory)
        memory = combined.memory
        total += combined.delta["w"]
    return total / len(calls)


def bernoulli_calls(rates: Sequence[float], num_calls: int, factors: Sequence[float]) -> list[list[Update]]:
    """Client i takes part in a call with its own probability; client 0 always."""
    rng = generator(0, "bernoulli")
    n = len(rates)
    return [
        [update(i, n, factors[i]) for i in range(n) if i == 0 or rng.uniform() < rates[i]]
        for _ in range(num_calls)
    ]


def test_in_the_long_run_clients_weigh_as_their_shares_whatever_their_rates_and_discounts() -> None:
    calls = bernoulli_calls([1.0, 0.5, 0.2, 0.1], 4000, [1.0, 0.8, 0.5, 0.4])
    plain = mean_weights(WeightedMean(), calls)
    weighed = mean_weights(ExpectedWeights(max_ratio=100, max_sum=100), calls)
    assert plain[0] > 8 * plain[3]  # the bias is there
    np.testing.assert_allclose(weighed / weighed.sum(), 0.25, atol=0.02)
    assert weighed.sum() == pytest.approx(plain.sum(), rel=0.03)  # and the mean step is as long


def test_in_the_long_run_unequal_shares_are_kept() -> None:
    calls = bernoulli_calls([1.0, 0.5, 0.2, 0.2], 4000, [1.0] * 4)
    weighed = mean_weights(ExpectedWeights(max_ratio=100, max_sum=100), calls, [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(weighed / weighed.sum(), [0.1, 0.2, 0.3, 0.4], atol=0.02)


def test_one_update_a_call_is_weighed_too() -> None:
    rng = generator(0, "one")
    calls = [[update(int(rng.choice(3, p=[0.7, 0.2, 0.1])), 3, 0.3)] for _ in range(4000)]
    weighed = mean_weights(ExpectedWeights(), calls)
    np.testing.assert_allclose(weighed, 0.3 / 3, atol=0.01)


def test_the_first_call_is_the_plain_mean_to_the_bit() -> None:
    updates = [update(client, 4, factor) for client, factor in ((0, 1.0), (2, 0.3), (3, 0.7))]
    shares = [3.0, 5.0, 1.0]
    base: Weights = {"w": np.zeros(4, np.float32)}
    combine = ExpectedWeights()
    ours = combine(base, updates, shares, range(4), RNG, combine.init(range(4))).delta
    plain = WeightedMean()(base, updates, shares, range(4), RNG).delta
    assert ours["w"].tobytes() == plain["w"].tobytes()


def test_equal_rates_without_discount_are_the_plain_mean_to_rounding() -> None:
    models = [
        Clock(FedAvg(share="clients", combine=combine), [0.0, 0.3, 1.0], [1.0, 1.0, 1.0]).run(20).values
        for combine in (ExpectedWeights(), WeightedMean())
    ]
    np.testing.assert_allclose(models[0], models[1], rtol=1e-6)


def test_with_a_prior_of_one_update_the_mean_ratio_is_one_over_the_rate_save_for_those_never_seen() -> None:
    # it took part in n ~ Binomial(t, q) of t calls; E[1 / (n + 1)] = (1 - (1 - q)^(t + 1)) / (q (t + 1))
    t, q, n_mean = 30, 0.2, 12.0
    counts = generator(0, "counts").binomial(t, q, size=20_000).astype(float)
    pairs = np.stack([counts, 2 * n_mean - counts], axis=1)  # two clients whose mean number is n_mean
    ratios = [mass_ratios(updates, np.ones(2), np.ones(2), 1.0)[0] for updates in pairs]
    expected = (n_mean + 1) * (1 - (1 - q) ** (t + 1)) / (q * (t + 1))
    assert np.mean(ratios) == pytest.approx(expected, abs=5 * np.std(ratios) / np.sqrt(len(ratios)))


def test_nothing_known_and_equal_masses_are_the_ratio_one() -> None:
    ones, unknown = np.ones(3), np.full(3, np.nan)
    np.testing.assert_array_equal(mass_ratios(np.zeros(3), unknown, ones, 1.0), ones)
    np.testing.assert_allclose(mass_ratios(np.full(3, 7.0), np.full(3, 0.3), ones, 1.0), ones, rtol=1e-15)


def test_a_discount_half_as_large_is_made_up_for_and_unknown_ones_count_as_the_mean() -> None:
    discount = np.array([0.8, 0.4, np.nan])
    ratios = mass_ratios(np.array([5.0, 5.0, 0.0]), discount, np.ones(3), 1.0)
    assert ratios[1] / ratios[0] == pytest.approx(2)
    assert ratios[2] == pytest.approx(10 / 3 + 1)  # rare, and nothing else


def test_a_client_heard_late_for_the_first_time_grows_no_more_than_max_ratio() -> None:
    calls = [[update(0, 2)]] * 100 + [[update(0, 2), update(1, 2)]]
    # 100 updates of client 0, none of client 1: mean 50, so (50 + 1) / (0 + 1) without the bound, of a half
    free = {"max_sum": 1000.0}
    late = 101 * mean_weights(ExpectedWeights(max_ratio=1000, **free), calls)[1]
    assert late == pytest.approx(51 / 2)
    assert 101 * mean_weights(ExpectedWeights(max_ratio=5, **free), calls)[1] == pytest.approx(5 / 2)


@pytest.mark.parametrize(("factor", "limit"), [(1.0, 1.5), (0.2, 1.5), (4.0, 6.0)])
def test_a_call_weighs_no_more_than_max_sum_times_the_plain_one_or_one(factor: float, limit: float) -> None:
    combine, base = ExpectedWeights(), {"w": np.zeros(2, np.float32)}
    memory = combine.init(range(2))
    for client in (*[0] * 100, 1):
        combined = combine(base, [update(client, 2, factor)], [1.0], [client], RNG, memory)
        memory = combined.memory
    assert combined.metrics["weight_sum"] == pytest.approx(limit)  # client 1 alone, worth 20 of the plain


def test_a_client_without_pairs_weighs_nothing_and_harms_nobody() -> None:
    calls = [[update(0, 3), update(1, 3), update(2, 3)]] * 3
    np.testing.assert_allclose(mean_weights(ExpectedWeights(), calls, [1.0, 0.0, 1.0]), [0.5, 0, 0.5])


def test_the_memory_is_plain_data_and_of_order_n_and_is_not_mutated() -> None:
    combine = ExpectedWeights()
    memory = combine.init(range(3))
    base: Weights = {"w": np.zeros(3, np.float32)}
    after = combine(base, [update(1, 3)], [1.0], [1], RNG, memory).memory
    assert memory["mass"].tolist() == [0, 0, 0] and after["mass"].tolist() == [0, 1, 0]
    assert sum(array.size for array in after.values()) == 3 * 3 + 1
    arrays: dict[str, Any] = {}
    back = from_plain(to_plain(after, arrays), arrays)
    for name in after:
        np.testing.assert_array_equal(back[name], after[name])


HALF_SLOW = {"minima": [0.0, 1.0] * 12, "seconds": [0.31, 3.1] * 12, "lr": 0.01, "initial": 0.0}


@pytest.mark.parametrize("staleness", [Constant(), Polynomial()])
def test_fedbuff_is_drawn_to_the_fast_and_expected_weights_bring_it_back_between(
    staleness: Constant | Polynomial,
) -> None:
    limits = {}
    for name, combine in (("plain", WeightedMean()), ("expected", ExpectedWeights())):
        strategy = FedBuff(buffer_size=4, concurrency=20, staleness=staleness, combine=combine)
        values = Clock(strategy, **HALF_SLOW).run(800).values  # type: ignore[arg-type]
        limits[name] = np.mean(values[500:])
    assert limits["plain"] < 0.2
    assert abs(limits["expected"] - 0.5) < 0.06


def test_fedasync_mixes_in_the_slow_as_far_in_all_as_the_fast() -> None:
    limits = {}
    for name, combine in (("plain", WeightedMean()), ("expected", ExpectedWeights())):
        strategy = FedAsync(alpha=0.2, concurrency=20, staleness=Constant(), combine=combine)
        values = Clock(strategy, **{**HALF_SLOW, "lr": 0.3}).run(3000).values  # type: ignore[arg-type]
        limits[name] = np.mean(values[1500:])
    assert limits["plain"] < 0.3
    assert abs(limits["expected"] - 0.5) < 0.06


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": 0.0}, "prior=0"),
        ({"prior": float("nan")}, "prior=nan"),
        ({"max_ratio": 0.5}, "max_ratio=0.5"),
        ({"max_sum": 0.0}, "max_sum=0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ExpectedWeights(**options)
