"""Who owns what, and who is asked."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpref.data.dealing import Asked, Named, Table, apportion
from fedpref.data.partition import Dirichlet, Iid, Natural, Partition, Pooled, SizeSkew
from fedpref.errors import ConfigurationError

MADE_UP = [Iid(7), SizeSkew(7, sigma=2.0), Dirichlet(7, alpha=0.1), Dirichlet(7, alpha=100.0)]


def table(num_rows: int, num_people: int = 5, num_topics: int = 4) -> Table:
    return SimpleNamespace(
        clients=[f"p{row % num_people}" for row in range(num_rows)],
        topics=[f"t{(row * row) % num_topics}" for row in range(num_rows)],
    )


def topic_counts(rows: Table, shards: list[Named]) -> list[Counter[str]]:
    return [Counter(rows.topics[row] for row in numbers) for _, numbers in shards]


def asked_of(rule: Partition, train: Table, test: Table, seed: int = 0) -> list[Asked]:
    return rule.held_out(rule.shards(train, seed), train, test, seed)


@pytest.mark.parametrize("rule", [Natural(), Pooled(), *MADE_UP], ids=repr)
@given(num_rows=st.integers(7, 60), seed=st.integers(0, 1000))
def test_every_row_has_exactly_one_owner(rule: Partition, num_rows: int, seed: int) -> None:
    train, test = table(num_rows), table(num_rows // 2, num_people=8, num_topics=5)

    shards = rule.shards(train, seed)
    asked = rule.held_out(shards, train, test, seed)

    assert sorted(np.concatenate([rows for _, rows in shards]).tolist()) == list(range(num_rows))
    assert sorted(np.concatenate([one.rows for one in asked]).tolist()) == list(range(num_rows // 2))
    assert all(len(rows) for _, rows in shards)
    assert all(len(one.rows) for one in asked)
    assert len({name for name, _ in shards}) == len(shards)
    assert len({one.name for one in asked}) == len(asked)


@pytest.mark.parametrize("rule", MADE_UP, ids=repr)
def test_the_same_seed_repeats_and_another_differs(rule: Partition) -> None:
    rows = table(200)

    first, again, other = ([numbers.tolist() for _, numbers in rule.shards(rows, s)] for s in (1, 1, 2))

    assert first == again
    assert first != other


def test_natural_clients_are_people_by_name_with_their_own_rows() -> None:
    rows = SimpleNamespace(clients=["bob", "ann", "bob"], topics=[""] * 3)

    shards = Natural().shards(rows, seed=0)

    assert [(name, numbers.tolist()) for name, numbers in shards] == [("ann", [1]), ("bob", [0, 2])]


def test_people_below_min_pairs_are_asked_as_newcomers() -> None:
    train = SimpleNamespace(clients=["bob", "ann", "bob"], topics=[""] * 3)
    test = SimpleNamespace(clients=["ann", "bob", "cy"], topics=[""] * 3)

    asked = asked_of(Natural(min_pairs=2), train, test)

    assert [(one.name, one.client_id) for one in asked] == [("ann", None), ("bob", 0), ("cy", None)]


def test_nobody_left_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"partition\.min_pairs=50.*the largest has 4"):
        Natural(min_pairs=50).shards(table(20), seed=0)


def test_pooled_trains_one_client_and_asks_every_person() -> None:
    train, test = table(20), table(10)

    natural, pooled = asked_of(Natural(), train, test), asked_of(Pooled(), train, test)

    assert len(Pooled().shards(train, seed=0)) == 1
    assert {one.client_id for one in pooled} == {0}
    assert [(one.name, one.rows.tolist()) for one in pooled] == [
        (one.name, one.rows.tolist()) for one in natural
    ]


@pytest.mark.parametrize("rule", [Iid(7), Dirichlet(7, alpha=0.01), SizeSkew(7, sigma=0.0)], ids=repr)
def test_sizes_are_equal_where_no_skew_is_asked_for(rule: Partition) -> None:
    sizes = [len(rows) for _, rows in rule.shards(table(100), seed=3)]

    assert set(sizes) == {14, 15}


def test_skewed_sizes_follow_the_log_normal_and_respect_the_floor() -> None:
    shards = SizeSkew(400, sigma=1.0, min_pairs=5).shards(table(400 * 200), seed=0)

    sizes = np.array([len(rows) for _, rows in shards])
    assert sizes.min() >= 5
    assert np.std(np.log(sizes - 4)) == pytest.approx(1.0, abs=0.15)


def test_small_alpha_gives_one_topic_a_client_but_for_topics_that_run_out() -> None:
    rows = table(2000, num_topics=5)
    num_topics = len(set(rows.topics))

    counts = topic_counts(rows, Dirichlet(40, alpha=1e-6).shards(rows, seed=0))

    assert sum(len(topics) > 1 for topics in counts) < num_topics


def test_large_alpha_gives_every_client_the_mix_of_the_whole() -> None:
    rows = table(40_000, num_topics=5)
    whole = Counter(rows.topics)

    for counts in topic_counts(rows, Dirichlet(10, alpha=1e9).shards(rows, seed=0)):
        for topic, number in whole.items():
            share = number / 40_000
            sd = np.sqrt(share * (1 - share) / 4000)
            assert abs(counts[topic] / 4000 - share) < 5 * sd


def test_made_up_clients_are_tested_on_the_topics_that_they_train_on() -> None:
    train, test = table(800), table(400)
    rule = Dirichlet(20, alpha=1e-6)

    shards = rule.shards(train, seed=1)
    trained = topic_counts(train, shards)

    for one in rule.held_out(shards, train, test, seed=1):
        assert one.client_id is not None
        assert {test.topics[row] for row in one.rows} <= set(trained[one.client_id])


def test_a_held_out_topic_that_nobody_trains_on_is_still_asked() -> None:
    train = SimpleNamespace(clients=["ann"] * 10, topics=["sky"] * 10)
    test = SimpleNamespace(clients=["ann"] * 4, topics=["sea"] * 4)

    assert sum(len(one.rows) for one in asked_of(Iid(2), train, test)) == 4


def test_dirichlet_without_topics_is_an_error() -> None:
    rows = SimpleNamespace(clients=["ann"] * 10, topics=[""] * 10)

    with pytest.raises(ConfigurationError, match=r"data\.topic_column"):
        Dirichlet(2).shards(rows, seed=0)


@pytest.mark.parametrize("rule", [Iid(13), SizeSkew(13), Dirichlet(13)], ids=repr)
def test_more_clients_than_pairs_is_an_error_naming_the_empty_one(rule: Partition) -> None:
    with pytest.raises(ConfigurationError, match=r"partition 12 has 0 pairs.*partition\.num_clients=13"):
        rule.shards(table(12), seed=0)


def test_too_few_pairs_a_client_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"partition 0 has 4 pairs.*partition\.min_pairs=5"):
        Iid(3, min_pairs=5).shards(table(12), seed=0)


def test_a_parameter_out_of_range_names_its_key() -> None:
    with pytest.raises(ConfigurationError, match=r"partition\.num_clients=0"):
        Iid(0)
    with pytest.raises(ConfigurationError, match=r"partition\.alpha=0"):
        Dirichlet(alpha=0)
    with pytest.raises(ConfigurationError, match=r"partition\.sigma=-1"):
        SizeSkew(sigma=-1)
    with pytest.raises(ConfigurationError, match=r"partition\.min_pairs=0"):
        Natural(min_pairs=0)


@given(
    total=st.integers(0, 1000),
    weights=st.lists(st.floats(0, 10), min_size=1, max_size=20).filter(lambda weights: sum(weights) > 1e-3),
)
def test_apportioned_numbers_sum_to_the_total_and_stay_within_one_of_their_share(
    total: int, weights: list[float]
) -> None:
    shares = apportion(total, np.array(weights))

    assert shares.sum() == total
    assert np.all(np.abs(shares - total * np.array(weights) / sum(weights)) < 1 + 1e-9)
