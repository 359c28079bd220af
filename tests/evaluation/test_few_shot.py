"""Newcomers who show some of their pairs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fedpref.data.synthetic import Synthetic
from fedpref.errors import ConfigurationError
from fedpref.evaluation.few_shot import FewShotCurve, Point, few_shot, newcomers
from fedpref.evaluation.few_shot import curve_of as joined
from fedpref.evaluation.personal import shared_accuracies
from fedpref.seeds import generator
from fedpref.types import ClientState, HeldOut, Pairs, Population, Shard, Weights


def differences(pairs: Pairs) -> np.ndarray:
    return np.asarray(pairs.chosen, dtype=np.float64) - np.asarray(pairs.rejected)


class Linear:
    """A shared direction, the same for everybody."""

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        return differences(pairs) @ weights["w"]


@dataclass(frozen=True)
class Ridge(Linear):
    """The maximum of the posterior around ``prior`` times the shared direction, by Newton steps.

    Attributes:
        prior: 1 centres it on the shared direction, 0 on nothing.
        precision: of the prior.
        seen: ids of the pairs of every shard, in the order of the calls.
    """

    prior: float = 1.0
    precision: float = 2.0
    seen: list[tuple[str, ...]] = field(default_factory=list)

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        assert not state.arrays, "a newcomer keeps nothing"
        if shard is None:
            return weights
        self.seen.append(tuple(shard.pairs.pair_ids))
        z, mean = differences(shard.pairs), self.prior * weights["w"]
        w = mean.copy()
        for _ in range(8):
            pull = 1.0 / (1.0 + np.exp(z @ w))
            hessian = (z * (pull * (1.0 - pull))[:, None]).T @ z + self.precision * np.eye(len(w))
            w = w + np.linalg.solve(hessian, z.T @ pull - self.precision * (w - mean))
        return {"w": w}


class Global:
    def serve(self, state: Any, client_id: int | None) -> Sequence[Weights]:
        return [state]


GLOBAL: Any = Global()


@pytest.fixture(scope="module")
def crowd() -> Population:
    return Synthetic(form="attributes", num_clients=2, unseen=12).population(0)


@pytest.fixture(scope="module")
def shared(crowd: Population) -> Weights:
    """The mean taste of everybody: better than nothing, worse than one's own."""
    truth: Any = crowd.truth
    return {"w": 2.0 * np.mean([annotator.theta for annotator in truth.annotators], axis=0)}


def curve_of(rule: Any, weights: Weights, crowd: Population, **given: Any) -> FewShotCurve:
    return few_shot(rule, GLOBAL, weights, crowd, 0, **given)


def test_shot_sets_are_nested_and_their_number_is_as_asked(crowd: Population, shared: Weights) -> None:
    rule = Ridge()
    curve_of(rule, shared, crowd, counts=(0, 1, 2, 5, 10), resamples=2)
    assert len(rule.seen) == 12 * 2 * 4  # no shard at all where no pair is shown
    for start in range(0, len(rule.seen), 4):
        sets = rule.seen[start : start + 4]
        assert [len(ids) for ids in sets] == [1, 2, 5, 10]
        assert all(larger[: len(smaller)] == smaller for smaller, larger in itertools.pairwise(sets))
        assert len(set(sets[-1])) == 10


def test_every_method_sees_the_same_shots_and_every_resample_others(
    crowd: Population, shared: Weights
) -> None:
    one, other = Ridge(), Ridge(prior=0.0)
    for rule in (one, other):
        curve_of(rule, shared, crowd, counts=(5,), resamples=3)
    assert one.seen == other.seen
    assert len(set(one.seen)) == len(one.seen)


def test_nobody_is_ever_shown_what_is_asked(crowd: Population, shared: Weights) -> None:
    rule = Ridge()
    curve_of(rule, shared, crowd, counts=(100,), resamples=1)
    asked = {pair_id for person in crowd.held_out for pair_id in person.pairs.pair_ids}
    assert not asked & {pair_id for ids in rule.seen for pair_id in ids}


def test_without_pairs_there_is_no_gain_and_with_many_there_is(crowd: Population, shared: Weights) -> None:
    curve = curve_of(Ridge(), shared, crowd, counts=(0, 100), resamples=3)
    assert curve.points[0].gain == 0.0 and curve.points[0].harmed == 0.0
    assert curve.points[1].gain > 0.02 and curve.k_star == 100
    assert curve.points[1].gain_low is not None and curve.points[1].gain_low > 0


def test_a_prior_at_zero_is_worse_while_pairs_are_few(crowd: Population, shared: Weights) -> None:
    centred = curve_of(Ridge(), shared, crowd, counts=(2,), resamples=3)
    at_zero = curve_of(Ridge(prior=0.0), shared, crowd, counts=(2,), resamples=3)
    assert at_zero.points[0].accuracy < centred.points[0].accuracy - 0.02
    assert at_zero.points[0].harmed > centred.points[0].harmed


def test_the_reference_may_be_another_model_on_the_same_people(crowd: Population, shared: Weights) -> None:
    linear: Any = Linear()
    coin = shared_accuracies(linear, GLOBAL, {"w": np.zeros(12)}, crowd, newcomers(crowd))
    np.testing.assert_allclose(coin, 0.5)
    curve = curve_of(Ridge(), shared, crowd, reference=coin, counts=(0, 1), resamples=1)
    assert curve.k_star == 0  # the shared direction is better than a coin as it is
    assert curve.points[0].gain == pytest.approx(curve.points[0].accuracy - 0.5)
    with pytest.raises(ValueError, match="12 newcomers"):
        curve_of(Ridge(), shared, crowd, reference=coin[:3])


def test_k_star_needs_the_gain_and_the_interval() -> None:
    def k_star(*points: tuple[int, float, float | None]) -> int | None:
        made = [Point(shots, 0.7, gain, 0.0, low, 1.0) for shots, gain, low in points]
        return FewShotCurve((), (), np.zeros((0, 0)), np.zeros(0), made, 1).k_star

    assert k_star((1, 0.004, 0.001), (2, 0.03, -0.001), (5, 0.006, 0.001), (10, 0.1, 0.1)) == 5
    assert k_star((1, 0.004, 0.001), (2, 0.1, None)) is None


def test_who_has_fewer_pairs_shows_all_and_counts_beyond_everybodys_are_left_out(crowd: Population) -> None:
    first, second = (
        person for person in crowd.held_out if person.shots is not None and person.name < "unseen-002"
    )
    assert first.shots is not None and second.shots is not None
    few = HeldOut(first.name, None, first.pairs, first.shots.take(range(3)))
    more = HeldOut(second.name, None, second.pairs, second.shots.take(range(7)))
    rule = Ridge()
    curve = curve_of(rule, {"w": np.ones(12)}, Population([], [few, more]), resamples=1)
    assert curve.shots == [0, 1, 2, 5]
    assert sorted(map(len, rule.seen)) == [1, 1, 2, 2, 3, 5]


def test_as_json_is_plain_and_has_one_row_a_person(crowd: Population, shared: Weights) -> None:
    data = curve_of(Ridge(), shared, crowd, counts=(0, 5), resamples=1).as_json()
    assert [point["shots"] for point in data["points"]] == [0, 5]
    assert [person["name"] for person in data["people"]] == [f"unseen-{i:03d}" for i in range(12)]
    mean = np.mean([person["accuracies"] for person in data["people"]], axis=0)
    np.testing.assert_allclose(mean, [point["accuracy"] for point in data["points"]])


def test_the_curve_of_several_runs_is_over_all_their_people(crowd: Population, shared: Weights) -> None:
    curve = curve_of(Ridge(), shared, crowd, counts=(0, 5), resamples=2)
    twice = joined(
        [*curve.names, *curve.names],
        curve.shots,
        np.concatenate([curve.accuracies, curve.accuracies], axis=1),
        np.concatenate([curve.reference, curve.reference - 0.1]),
        curve.resamples,
        generator(0, "joined"),
    )
    assert twice.points[1].accuracy == pytest.approx(curve.points[1].accuracy)
    assert twice.points[1].gain == pytest.approx(curve.points[1].gain + 0.05)
    assert twice.as_json()["resamples"] == 2


def test_a_rule_without_a_personal_part_and_a_crowd_without_newcomers_are_refused(crowd: Population) -> None:
    with pytest.raises(ConfigurationError, match="Linear has no personal part"):
        curve_of(Linear(), {"w": np.ones(12)}, crowd)
    nobody = Population([], [HeldOut(p.name, None, p.pairs) for p in crowd.held_out])
    with pytest.raises(ConfigurationError, match=r"data\.unseen"):
        curve_of(Ridge(), {"w": np.ones(12)}, nobody)
    with pytest.raises(ConfigurationError, match="resamples=0"):
        curve_of(Ridge(), {"w": np.ones(12)}, crowd, resamples=0)
