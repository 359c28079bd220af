"""A claim holds, does not hold, or was not tested: nothing that should have come out leaves the count."""

from __future__ import annotations

import pytest

from fedpref.benchmarks.suite.claims import Verdict, summary, verdicts
from fedpref.benchmarks.suite.declared import Claim
from fedpref.benchmarks.suite.results import Failure
from fedpref.evaluation.compare import Table, tables
from fedpref.evaluation.records import Person, Record

METRICS = ("user_accuracy", "worst_group", "oracle", "k_star")


def record(name: str, seed: int, accuracy: float, **numbers: float) -> Record:
    people = {"anna": Person(accuracy, 10, 0), "ben": Person(accuracy - 0.1, 10, 1)}
    return Record(name, "easy", seed, people, {"oracle": 0.9, **numbers})


def compared() -> tuple[Table, ...]:
    """The base has 0.55 on average, the other method 0.7; it has a k* in one of two seeds."""
    base = [record("base", seed, 0.6) for seed in (0, 1)]
    mine = [record("mine", 0, 0.75, k_star=5), record("mine", 1, 0.75)]
    return tables([*base, *mine], METRICS, "base")


def answer(claim: Claim, *failures: Failure) -> Verdict:
    (verdict,) = verdicts([claim], compared(), failures)
    return verdict


def test_a_claim_holds_within_its_bounds() -> None:
    claims = [
        Claim("gain", "easy", "mine", "user_accuracy", "base", least=0.14),
        Claim("too much", "easy", "mine", "user_accuracy", "base", least=0.16),
        Claim("regret", "easy", "mine", "user_accuracy", "oracle", least=-0.21),
        Claim("bounded", "easy", "mine", "worst_group", most=0.66),
    ]
    found = verdicts(claims, compared(), [])
    assert [verdict.holds for verdict in found] == [True, False, True, True]
    # User accuracy is the mean of 0.75 and 0.65, that of the base 0.55.
    assert [verdict.measured for verdict in found] == pytest.approx([0.15, 0.15, -0.2, 0.65])


def test_a_figure_that_is_missing_in_one_seed_speaks_against_the_claim() -> None:
    found = answer(Claim("few pairs", "easy", "mine", "k_star", most=20))
    assert (found.holds, found.measured, found.told) == (False, None, "not in every seed")
    beside = answer(Claim("fewer", "easy", "base", "k_star", "mine", most=0))
    assert (beside.holds, beside.told) == (False, "not in every seed")


def test_a_method_that_failed_speaks_against_the_claim_with_its_newcomers() -> None:
    failure = Failure("easy", "broken", 1, "not finite")
    for data in ("easy", "easy, newcomers with 5 pairs"):
        found = answer(Claim("robust", data, "broken", "user_accuracy", least=0.5), failure)
        assert (found.holds, found.told) == (False, "failed")
    elsewhere = answer(Claim("robust", "hard", "broken", "user_accuracy", least=0.5), failure)
    assert elsewhere.holds is None


@pytest.mark.parametrize(
    "claim",
    [
        Claim("other data", "hard", "mine", "user_accuracy", least=0.0),
        Claim("other method", "easy", "absent", "user_accuracy", least=0.0),
        Claim("beside another one", "easy", "mine", "user_accuracy", "absent", least=0.0),
        Claim("beside another one", "easy", "mine", "k_star", "absent", least=0.0),
    ],
)
def test_what_the_tier_did_not_run_is_not_tested(claim: Claim) -> None:
    found = answer(claim)
    assert (found.holds, found.told) == (None, "-")


@pytest.mark.parametrize(
    ("least", "measured", "told"),
    [
        (0.04, 0.0398, "0.0398"),
        (0.04, 0.03998, "0.03998"),  # four digits would read as the bound
        (0.04, 0.04004, "0.0400"),
        (1.0, 0.9996, "0.9996"),
        (20.0, 12.34567, "12.346"),
    ],
)
def test_a_figure_has_the_digits_that_show_on_which_side_it_lies(
    least: float, measured: float, told: str
) -> None:
    assert Verdict(Claim("c", "d", "m", "k_star", least=least), measured).told == told


def test_the_count_is_of_what_was_tested_and_names_the_rest_only_if_there_is_one() -> None:
    claim = Claim("c", "d", "m", "user_accuracy", least=0.5)
    yes, no, missing, untested = (
        Verdict(claim, 0.6),
        Verdict(claim, 0.4),
        Verdict(claim, None, "failed"),
        Verdict(claim, None),
    )
    assert summary([yes, no, missing]) == "1 of 3 claims that were tested hold."
    assert summary([yes, yes, no, untested]) == "2 of 3 claims that were tested hold; 1 was not."
    assert summary([yes, untested, untested]).endswith("hold; 2 were not.")
    assert summary([untested]) == "No claim was tested."
