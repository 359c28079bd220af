"""Who is online when: the same whoever asked before, with the shares and the edges that were asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.simulation.availability import Always, Availability, Daily, Markov, Timeline, Windows
from fedpref.simulation.per_client import per_client
from fedpref.simulation.presence import Presence

PATTERNS = [
    Daily(online_s=30, period_s=100, spread_s=100),
    Daily(online_s=0.1, period_s=0.3, spread_s=0.3),
    Markov(mean_online_s=20, mean_offline_s=50),
]


def presence(pattern: Availability, num_clients: int = 40, seed: int = 0) -> Presence:
    clients = np.arange(num_clients)
    timeline = pattern.timeline(clients, seed)
    return Presence(num_clients, [] if timeline is None else [(clients, timeline)])


def windows(*own: list[tuple[float, float]], period_s: float | None = None) -> Presence:
    return Presence(len(own), [(np.arange(len(own)), Windows(own, period_s))])


def one(timeline: Timeline, clock_s: float) -> tuple[bool, float]:
    is_online, change_s = timeline.at(np.array([0]), clock_s)
    return bool(is_online[0]), float(change_s[0])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_fresh_object_answers_as_one_that_lived_through_all_earlier_times(pattern: Availability) -> None:
    lived = presence(pattern)
    for clock_s in np.cumsum(np.random.default_rng(0).exponential(7.0, size=200)):
        clock_s = float(clock_s)
        fresh = presence(pattern)
        assert list(lived.online(clock_s)) == list(fresh.online(clock_s))
        assert lived.next_online_s(clock_s) == fresh.next_online_s(clock_s)
        for client in range(40):
            assert lived.online_until_s(client, clock_s) == fresh.online_until_s(client, clock_s)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_client_goes_offline_exactly_when_that_was_announced(pattern: Availability) -> None:
    watched = presence(pattern)
    clock_s, seen = 0.0, 0
    for _ in range(300):
        clock_s = watched.next_online_s(clock_s)
        online = watched.online(clock_s)
        assert len(online) > 0
        client = int(online[0])
        until_s = watched.online_until_s(client, clock_s)
        assert until_s > clock_s
        before_s = float(np.nextafter(until_s, 0))
        if before_s > clock_s:
            assert client in watched.online(before_s)
        assert client not in watched.online(until_s)
        clock_s, seen = until_s, seen + 1
    assert seen == 300


def odd_windows(num_clients: int) -> Windows:
    """Windows whose edges are no round numbers, in a period that is none either; half go across its end."""
    edges_s = np.sort(np.random.default_rng(0).uniform(0, 0.3, size=(num_clients, 4)))
    edges_s[::2, 0], edges_s[::2, 3] = 0.0, 0.3
    return Windows([[(a, b), (c, d)] for a, b, c, d in edges_s.tolist()], 0.3)


@pytest.mark.parametrize("kind", ["daily", "markov", "windows"])
def test_states_alternate_at_the_very_moments_announced(kind: str) -> None:
    """To the last bit of the clock, however the arithmetic in between rounds."""
    clients = np.arange(300)
    timelines = {
        "daily": Daily(online_s=0.1, period_s=0.3, spread_s=0.3).timeline(clients, 0),
        "markov": Markov(mean_online_s=20, mean_offline_s=50).timeline(clients, 0),
        "windows": odd_windows(300),
    }
    timeline = timelines[kind]
    assert timeline is not None
    for client in clients:
        row = np.array([client])
        ((was_online,), (change_s,)) = timeline.at(row, 0.0)
        for _ in range(40):
            before_s = float(np.nextafter(change_s, 0))
            assert [part.item() for part in timeline.at(row, before_s)] == [was_online, change_s]
            ((is_online,), (next_s,)) = timeline.at(row, float(change_s))
            assert is_online != was_online
            assert next_s > change_s
            was_online, change_s = is_online, next_s


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_client_is_online_at_the_same_times_in_a_larger_population(pattern: Availability) -> None:
    small, large = presence(pattern, 5), presence(pattern, 3000)
    for clock_s in range(0, 1000, 50):
        expected = [client for client in large.online(float(clock_s)) if client < 5]
        assert list(small.online(float(clock_s))) == expected


@pytest.mark.parametrize("pattern", PATTERNS)
def test_other_seeds_give_other_times(pattern: Availability) -> None:
    assert list(presence(pattern, seed=0).online(50.0)) != list(presence(pattern, seed=1).online(50.0))


def test_the_same_clients_are_online_in_every_period() -> None:
    days = presence(Daily(online_s=30, period_s=128, spread_s=128))  # a power of two: no rounding
    first = [list(days.online(float(clock_s))) for clock_s in range(0, 128, 8)]
    second = [list(days.online(float(clock_s))) for clock_s in range(128, 256, 8)]
    assert first == second
    assert len({tuple(online) for online in first}) > 10


def test_without_a_spread_all_are_online_together_and_the_next_period_is_announced() -> None:
    days = presence(Daily(online_s=30, period_s=100, spread_s=0))
    assert days.online(0.0) == range(40)
    assert days.online_until_s(7, 29.0) == 30.0
    assert list(days.online(30.0)) == []
    assert days.next_online_s(30.0) == 100.0
    assert days.online(100.0) == range(40)


def test_a_daily_pattern_has_its_share_online_at_all_times() -> None:
    days = presence(Daily(online_s=6, period_s=24, spread_s=24), 20_000)
    for clock_s in (0.0, 5.0, 18.0, 100.0):
        # Binomial with p = 1/4: six standard deviations.
        assert abs(len(days.online(clock_s)) / 20_000 - 1 / 4) < 6 * math.sqrt(3 / 16 / 20_000)


def test_a_markov_chain_starts_and_stays_in_its_stationary_share() -> None:
    chain = presence(Markov(mean_online_s=20, mean_offline_s=60), 20_000)
    for clock_s in (0.0, 1.0, 30.0, 500.0):
        assert abs(len(chain.online(clock_s)) / 20_000 - 1 / 4) < 6 * math.sqrt(3 / 16 / 20_000)


def test_sojourns_of_a_markov_chain_have_their_means_and_are_exponential() -> None:
    timeline = Markov(mean_online_s=2, mean_offline_s=3).timeline(np.array([5]), 0)
    is_online, change_s = one(timeline, 0.0)
    lengths: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(8000):
        clock_s = change_s
        is_online, change_s = one(timeline, clock_s)
        lengths[is_online].append(change_s - clock_s)
    assert len(lengths[True]) == len(lengths[False])  # they take turns
    for state, mean_s in ((True, 2.0), (False, 3.0)):
        own = np.array(lengths[state])
        assert abs(own.mean() / mean_s - 1) < 6 / math.sqrt(len(own))
        # P(length > mean) = 1/e for an exponential.
        assert abs((own > mean_s).mean() - 1 / math.e) < 6 * 0.5 / math.sqrt(len(own))


def test_a_chain_correlates_over_its_relaxation_time_as_theory_says() -> None:
    # P(online at t | online at 0) = p + (1 - p) exp(-(a + b) t): a, b the rates, p the stationary share.
    chain = presence(Markov(mean_online_s=10, mean_offline_s=30), 40_000)
    at_first = np.zeros(40_000, dtype=bool)
    at_first[chain.online(0.0)] = True
    then = np.zeros(40_000, dtype=bool)
    then[chain.online(5.0)] = True
    expected = 0.25 + 0.75 * math.exp(-(1 / 10 + 1 / 30) * 5)
    assert abs(then[at_first].mean() - expected) < 6 * 0.5 / math.sqrt(at_first.sum())


def test_where_nobody_can_be_offline_the_answer_is_one_and_the_same_range() -> None:
    always = presence(Always())
    assert always.online(0.0) is always.online(1e9)
    assert always.online(0.0) == range(40)
    assert always.online_until_s(3, 5.0) == math.inf
    assert always.next_online_s(5.0) == 5.0
    assert Daily(online_s=9, period_s=9, spread_s=0).timeline(np.arange(3), 0) is None


def test_windows_are_half_open_and_end_for_good() -> None:
    given = windows([(10.0, 20.0), (20.0, 25.0), (40.0, 50.0)], [(0.0, 5.0)])
    assert [int(client) for client in given.online(0.0)] == [1]
    assert given.online_until_s(1, 0.0) == 5.0
    assert given.next_online_s(5.0) == 10.0
    assert list(given.online(10.0)) == [0]
    assert given.online_until_s(0, 10.0) == 25.0  # windows that touch are one
    assert given.next_online_s(30.0) == 40.0
    assert list(given.online(50.0)) == []
    assert given.next_online_s(50.0) == math.inf


def test_repeated_windows_join_across_the_end_of_the_period() -> None:
    given = windows([(0.0, 6.0), (10.0, 12.0), (22.0, 24.0)], period_s=24.0)
    assert given.online_until_s(0, 0.0) == 6.0  # as if it had begun the evening before
    assert given.next_online_s(6.0) == 10.0
    assert given.next_online_s(13.0) == 22.0
    assert given.online_until_s(0, 22.0) == 30.0
    assert given.online_until_s(0, 25.0) == 30.0
    assert given.next_online_s(30.0) == 34.0


def test_windows_of_the_whole_period_never_end() -> None:
    given = windows([(0.0, 10.0), (10.0, 24.0)], period_s=24.0)
    assert given.online(100.0) == range(1)
    assert given.online_until_s(0, 100.0) == math.inf


def test_repeated_windows_agree_with_the_daily_pattern() -> None:
    starts_s = [3.0, 17.0, 20.0]
    daily = [[(start_s, start_s + 4.0)] if start_s < 20 else [(20.0, 24.0)] for start_s in starts_s]
    given = windows(*daily, period_s=24.0)
    for clock_s in range(0, 97):
        expected = [client for client, start_s in enumerate(starts_s) if 0 <= (clock_s - start_s) % 24 < 4]
        # Before its first window a client of the given ones is where the period before would leave it.
        assert list(given.online(float(clock_s))) == expected


def test_a_clock_that_goes_back_is_noticed() -> None:
    watched = presence(Daily(online_s=30, period_s=100, spread_s=0))
    watched.online(20.0)
    with pytest.raises(AssertionError, match="went back"):
        watched.online(10.0)


def test_those_in_no_timeline_stay_online_among_others_that_come_and_go() -> None:
    some = np.array([1, 3])
    timeline = Daily(online_s=1, period_s=10, spread_s=0).timeline(some, 0)
    assert timeline is not None
    mixed = Presence(5, [(some, timeline)])
    assert mixed.online(0.0) == range(5)
    assert list(mixed.online(1.0)) == [0, 2, 4]
    assert mixed.online_until_s(2, 1.0) == math.inf
    assert mixed.next_online_s(1.0) == 1.0


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        (Daily(online_s=0), "online_s"),
        (Daily(online_s=90_000), "online_s"),
        (Daily(online_s=math.nan), "online_s"),
        (Daily(period_s=math.inf), "period_s"),
        (Daily(period_s=-1), "period_s"),
        (Daily(spread_s=-1), "spread_s"),
        (Daily(spread_s=1e6), "spread_s"),
        (Markov(mean_online_s=0), "mean_online_s"),
        (Markov(mean_offline_s=math.inf), "mean_offline_s"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_their_key(pattern: Availability, key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^x\.y\.{key}="):
        pattern.check("x.y")


def test_a_draw_for_each_client_does_not_depend_on_how_many_there_are() -> None:
    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        return rng.random(size)

    many = per_client(0, "word", 5000, draw)
    assert len(np.unique(many)) == 5000
    for few in (0, 1, 1023, 1024, 1025):
        assert np.array_equal(per_client(0, "word", few, draw), many[:few])
