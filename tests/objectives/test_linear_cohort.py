"""Stacked steps of linear heads: each member takes its own steps, whoever else is there."""

import numpy as np
import pytest

from fedpref.objectives import linear_cohort
from fedpref.objectives.batches import Drawn
from fedpref.objectives.linear_cohort import Member, cheapest, trained
from fedpref.objectives.margin import bradley_terry_pull
from fedpref.seeds import generator

DIM, LR = 12, 0.3


def member(num_pairs: int, steps: int, batch_pairs: int, by_gram: bool, seed: int = 0) -> Member:
    rng = generator(seed, "member", num_pairs, steps)
    z, start = rng.standard_normal((num_pairs, DIM)), rng.standard_normal(DIM)
    batches = [rng.permutation(num_pairs)[:batch_pairs] for _ in range(steps)]
    return Member(z, (z @ z.T).astype(np.float32) if by_gram else None, start, Drawn.of(batches))


def one_by_one(member: Member, l2: float, mu: float) -> np.ndarray:
    head = member.start
    for rows in member.drawn.batches():
        z = member.differences[rows]
        gradient = -(bradley_terry_pull(z @ head) @ z) / len(z) + l2 * head + mu * (head - member.start)
        head = head - LR * gradient
    return head


@pytest.mark.parametrize("by_gram", [True, False])
@pytest.mark.parametrize(("l2", "mu"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.5), (0.1, 0.5)])
def test_every_member_ends_where_its_own_steps_lead(by_gram: bool, l2: float, mu: float) -> None:
    members = [
        member(num_pairs, steps, 4, by_gram, seed)
        for seed, (num_pairs, steps) in enumerate([(9, 7), (5, 1), (6, 30), (40, 12), (1, 5), (7, 0)])
    ]
    for each, after in zip(members, trained(members, LR, l2, mu), strict=True):
        head = one_by_one(each, l2, mu)
        np.testing.assert_allclose(after.head, head, atol=1e-5)
        np.testing.assert_allclose(after.margins_before, each.differences @ each.start, atol=1e-5)
        np.testing.assert_allclose(after.margins_after, each.differences @ head, atol=1e-4)


def test_members_of_both_kinds_may_be_mixed_and_keep_their_order() -> None:
    members = [member(5 + i, 6, 3, i % 2 == 0, seed=i) for i in range(8)]
    for each, after in zip(members, trained(members, LR, 0.0, 0.0), strict=True):
        np.testing.assert_allclose(after.head, one_by_one(each, 0.0, 0.0), atol=1e-5)


@pytest.mark.parametrize("by_gram", [True, False])
def test_a_member_is_not_touched_by_what_is_not_finite_in_another(by_gram: bool) -> None:
    good, bad = (member(6, 4, 3, by_gram, seed=seed) for seed in (0, 1))
    bad = bad._replace(start=np.full(DIM, np.nan))
    after, spoilt = trained([good, bad], LR, 0.1, 0.0)
    np.testing.assert_allclose(after.head, one_by_one(good, 0.1, 0.0), atol=1e-5)
    assert not np.isfinite(spoilt.head).all()


@pytest.mark.parametrize(("l2", "mu"), [(0.001, 0.0), (0.0, 0.001), (0.001, 0.01)])
def test_small_pulls_do_not_drown_in_the_rounding_of_many_steps(l2: float, mu: float) -> None:
    each = member(9, 2000, 4, by_gram=True)
    (after,) = trained([each], LR, l2, mu)
    np.testing.assert_allclose(after.head, one_by_one(each, l2, mu), atol=5e-6)


def test_no_stack_holds_more_numbers_than_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linear_cohort, "_LARGEST_STACK", 3 * 6 * 50)
    members = [member(6, steps, 3, True, seed) for seed, steps in enumerate([4, 50, 4, 4, 4, 4])]
    assert [len(stack) for stack in linear_cohort._similar(members, range(6))] == [3, 3]
    short = [member(6, 4, 3, True, seed) for seed in range(6)]
    assert [len(stack) for stack in linear_cohort._similar(short, range(6))] == [6]


def test_nobody_is_nothing() -> None:
    assert trained([], LR, 0.0, 0.0) == []


def test_few_pairs_of_many_features_go_by_gram_and_many_pairs_of_few_features_do_not() -> None:
    assert cheapest(num_pairs=64, dim=384, batch_pairs=16, steps=30) == (True, True)
    assert cheapest(num_pairs=60, dim=12, batch_pairs=60, steps=10) == (True, False)


def test_small_batches_of_a_huge_shard_are_not_stacked() -> None:
    assert not cheapest(num_pairs=20_000, dim=384, batch_pairs=16, steps=30).stacked
