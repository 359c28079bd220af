"""Steps of many two-factor heads at once: each member takes its own, whoever else is there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fedpref.objectives.low_rank import Factors, Phase, all_drawn, drawn, followed
from fedpref.objectives.low_rank_cohort import Member, trained
from fedpref.objectives.margin import mean_loss
from fedpref.seeds import generator

DIM, RANK, LR = 6, 2, 0.3
PHASES = (Phase(3, "head"), Phase(4, "representation"), Phase(2, "both"))


def member(num_pairs: int, phases: Sequence[Phase], mu: float = 0.0, batch_pairs: int | None = 4) -> Member:
    rng = generator(0, "member", num_pairs)
    factors = Factors(rng.standard_normal((DIM, RANK)), rng.standard_normal(RANK))
    steps = all_drawn(num_pairs, phases, batch_pairs, rng)
    return Member(factors, rng.standard_normal((num_pairs, DIM)), steps, mu)


@pytest.mark.parametrize(
    "phases", [PHASES, PHASES[:1], [Phase(0, "both")], [Phase(0, "head"), Phase(5, "both")]]
)
@pytest.mark.parametrize("batch_pairs", [4, None])
def test_steps_drawn_at_once_are_those_drawn_one_by_one(
    phases: Sequence[Phase], batch_pairs: int | None
) -> None:
    at_once = list(all_drawn(9, phases, batch_pairs, generator(1, "draws")).each())
    one_by_one = list(drawn(9, phases, batch_pairs, generator(1, "draws")))
    assert [step.moves for step in at_once] == [step.moves for step in one_by_one]
    for one, other in zip(at_once, one_by_one, strict=True):
        assert one.rows.tolist() == other.rows.tolist()


@pytest.mark.parametrize("l2", [0.0, 0.2])
@pytest.mark.parametrize("mu", [0.0, 0.5])
@pytest.mark.parametrize("batch_pairs", [4, None])
def test_every_member_ends_where_its_own_steps_lead(l2: float, mu: float, batch_pairs: int | None) -> None:
    members = [
        member(num_pairs, phases, mu, batch_pairs)
        for num_pairs, phases in [(9, PHASES), (1, PHASES[:1]), (70, PHASES[1:]), (32, [Phase(0, "both")])]
    ]
    for each, (descent, losses) in zip(members, trained(members, LR, l2), strict=True):
        alone = followed(each.factors, each.differences, each.steps.each(), LR, l2, mu)
        np.testing.assert_allclose(descent.factors.representation, alone.factors.representation, atol=1e-12)
        np.testing.assert_allclose(descent.factors.head, alone.factors.head, atol=1e-12)
        assert (descent.skipped, descent.seen_pairs) == (0, alone.seen_pairs)
        assert losses == {
            "loss_before": pytest.approx(mean_loss(each.differences @ each.factors.vector)),
            "loss_after": pytest.approx(mean_loss(each.differences @ alone.factors.vector)),
        }


def test_a_step_that_is_not_finite_is_skipped_and_touches_nobody_else() -> None:
    good, bad = member(9, PHASES), member(8, PHASES)
    bad.differences[3, 0] = np.nan
    first, second = trained([good, bad], LR, 0.1)
    alone = followed(good.factors, good.differences, good.steps.each(), LR, 0.1, 0.0)
    np.testing.assert_allclose(first.descent.factors.head, alone.factors.head, atol=1e-12)
    assert first.descent.skipped == 0
    assert second.descent.skipped == sum(3 in rows for rows in bad.steps.pairs.batches()) > 0
    assert np.isfinite(second.descent.factors.representation).all()


def test_nobody_is_nothing() -> None:
    assert trained([], LR, 0.0) == []
