from __future__ import annotations

import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.objectives.grouping import grouping_split
from fedpref.types import Pairs, Shard


def shard(ids: list[str], client_id: int = 0) -> Shard:
    n = len(ids)
    texts = tuple(map(str, range(n)))
    return Shard(client_id, "a", Pairs(("",) * n, texts, texts, tuple(ids), ("",) * n))


def numbered(num_pairs: int) -> list[str]:
    return [f"p{n}" for n in range(num_pairs)]


@pytest.mark.parametrize(
    ("num_pairs", "share", "held"),
    [
        (2, 0.05, 1),
        (19, 0.05, 1),
        (40, 0.05, 2),
        (59, 0.05, 2),
        (1000, 0.05, 50),
        (1000, 0.5, 200),
        (3, 0.99, 2),
    ],
)
def test_a_share_of_the_pairs_is_held_back_at_least_one_and_at_most_two_hundred(
    num_pairs: int, share: float, held: int
) -> None:
    split = grouping_split(shard(numbered(num_pairs)), {"grouping_share": share, "grouping_seed": 3})
    assert split.grouping is not None and len(split.grouping) == held
    together = np.concatenate([split.train, split.grouping])
    np.testing.assert_array_equal(np.sort(together), np.arange(num_pairs))


@pytest.mark.parametrize("seed", range(20))
def test_twins_are_never_on_both_sides(seed: int) -> None:
    ids = [f"p{n // 3}" for n in range(30)]
    split = grouping_split(shard(ids), {"grouping_share": 0.3, "grouping_seed": seed})
    assert split.grouping is not None
    sides = [{ids[row] for row in rows} for rows in split[:2] if rows is not None]
    assert not sides[0] & sides[1] and [len(side) for side in sides] == [7, 3]


@pytest.mark.parametrize("settings", [{}, {"grouping_share": 0.0, "grouping_seed": 1}])
def test_without_a_share_all_pairs_train_and_group(settings: dict[str, float]) -> None:
    split = grouping_split(shard(numbered(5)), settings)
    np.testing.assert_array_equal(split.train, np.arange(5))
    np.testing.assert_array_equal(split.grouping, np.arange(5))


def test_a_single_pair_and_its_twins_train_and_none_is_held_back() -> None:
    split = grouping_split(shard(["p", "p"]), {"grouping_share": 0.5})
    np.testing.assert_array_equal(split.train, [0, 1])
    assert split.grouping is None


def test_the_split_is_the_same_in_every_round_and_another_for_other_seeds_and_clients() -> None:
    def held(seed: int, client_id: int) -> list[int]:
        settings = {"grouping_share": 0.1, "grouping_seed": seed}
        split = grouping_split(shard(numbered(200), client_id), settings)
        assert split.grouping is not None
        return [int(row) for row in split.grouping]

    assert held(0, 0) == held(0, 0)
    assert held(0, 0) != held(1, 0) != held(1, 1)


@pytest.mark.parametrize("share", [1.0, -0.1, float("nan")])
def test_a_share_that_leaves_nothing_to_train_on_is_refused(share: float) -> None:
    with pytest.raises(ConfigurationError, match=r"strategy\.grouping_pairs"):
        grouping_split(shard(numbered(5)), {"grouping_share": share})
