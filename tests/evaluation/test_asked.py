"""Who was asked what, as one hash."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from fedpref.evaluation.asked import held_out_digest
from fedpref.types import HeldOut, Pairs, Population, Shard

PAIRS = Pairs(("q", "q"), ("good", "kind"), ("bad", "curt"), ("1", "2"), ("", ""))
VECTORS = replace(PAIRS, chosen=np.eye(2), rejected=np.zeros((2, 2)))


@dataclass(frozen=True)
class Told:
    """A truth with one probability for all."""

    p: float
    groups: tuple[int, ...] = (0,)

    def p_chosen(self, held_out: int) -> np.ndarray:
        return np.full(2, self.p)


def asked(*people: HeldOut, truth: Told | None = None) -> str:
    return held_out_digest(Population((Shard(0, "s", PAIRS), Shard(1, "t", PAIRS)), people, truth))


def test_equal_questions_have_equal_hashes_whoever_trains_for_them() -> None:
    assert asked(HeldOut("a", 0, PAIRS)) == asked(HeldOut("a", 1, PAIRS)) == asked(HeldOut("a", None, PAIRS))


@pytest.mark.parametrize(
    "other",
    [
        HeldOut("b", 0, PAIRS),
        HeldOut("a", 0, PAIRS.take([0])),
        HeldOut("a", 0, PAIRS.take([1, 0])),
        HeldOut("a", 0, replace(PAIRS, chosen=PAIRS.rejected, rejected=PAIRS.chosen)),
        HeldOut("a", 0, replace(PAIRS, prompts=("q", "r"))),
        HeldOut("a", 0, replace(PAIRS, pair_ids=("1", "3"))),
        HeldOut("a", 0, VECTORS),
    ],
)
def test_another_person_pair_or_preference_has_another_hash(other: HeldOut) -> None:
    assert asked(other) != asked(HeldOut("a", 0, PAIRS))


def test_vectors_count_by_value_and_so_does_the_truth() -> None:
    moved = replace(VECTORS, chosen=np.eye(2) + 1e-9)
    assert asked(HeldOut("a", 0, moved)) != asked(HeldOut("a", 0, VECTORS))
    person = HeldOut("a", 0, PAIRS)
    assert len({asked(person), asked(person, truth=Told(0.7)), asked(person, truth=Told(0.8))}) == 3


def test_people_who_are_not_judged_do_not_count() -> None:
    person = HeldOut("a", 0, PAIRS)
    silent, newcomer = HeldOut("b", 1, PAIRS.take([])), HeldOut("c", None, PAIRS, PAIRS.take([0]))
    assert asked(person) == asked(person, silent, newcomer)
