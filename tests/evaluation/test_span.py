"""A shared span against true tastes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fedpref.clients.fedrep import FedRep
from fedpref.clients.flute import Flute
from fedpref.clients.lore import Lore
from fedpref.clients.reward_features import RewardFeatures
from fedpref.data.synthetic import Synthetic
from fedpref.evaluation.evaluate import evaluate
from fedpref.evaluation.metrics import main_directions
from fedpref.evaluation.span import recovered_span, span_recovery_of
from fedpref.models.given import Given
from fedpref.seeds import generator
from fedpref.types import ClientState, Pairs, Population, Weights

TASTES = np.diag([3.0, 2.0, 1.0, 0.0])
"""Four people: 9/14, 4/14 and 1/14 of their tastes lie along the first three axes."""


class Low:
    """A rule that serves heads in the span of ``b``."""

    def span(self, weights: Weights) -> np.ndarray:
        return weights["b"]

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        margins: np.ndarray = (np.asarray(pairs.chosen) - np.asarray(pairs.rejected)) @ weights["b"][:, 0]
        return margins


class Serves:
    def __init__(self, num_models: int = 1) -> None:
        self.num_models = num_models

    def serve(self, state: Any, client_id: int | None) -> Sequence[Weights]:
        return [state] * self.num_models


RULE: Any = Low()
ONE: Any = Serves()


@pytest.fixture(scope="module")
def crowd() -> Population:
    return Synthetic(form="attributes", num_clients=20, unseen=3, test_pairs=5).population(0)


def test_the_main_directions_are_the_best_span_and_have_no_angle() -> None:
    found = span_recovery_of(np.eye(4)[:, :2], TASTES)
    assert found.held == found.best == pytest.approx(13 / 14)
    assert found.random == 0.5
    assert found.angles_deg == pytest.approx([0.0, 0.0])


def test_a_direction_that_is_missed_has_a_right_angle_and_costs_its_share() -> None:
    found = span_recovery_of(np.eye(4)[:, [0, 3]], TASTES)
    assert found.held == pytest.approx(9 / 14) and found.best == pytest.approx(13 / 14)
    assert found.angles_deg == pytest.approx([0.0, 90.0])


def test_a_turned_direction_is_missed_by_its_angle() -> None:
    turn = np.radians(30.0)
    found = span_recovery_of(np.array([[np.cos(turn)], [0.0], [0.0], [np.sin(turn)]]), TASTES)
    assert found.angles_deg == pytest.approx([30.0])
    assert found.held == pytest.approx(0.75 * 9 / 14)


def test_a_span_larger_than_that_of_the_tastes_is_held_against_all_of_them() -> None:
    found = span_recovery_of(np.eye(4), TASTES)
    assert found.angles_deg == pytest.approx([0.0, 0.0, 0.0])
    assert found.held == found.best == pytest.approx(1.0)


def test_columns_that_depend_on_each_other_are_one_direction() -> None:
    draw = generator(0, "span")
    found = draw.standard_normal((4, 2))
    mixed = span_recovery_of(found @ draw.standard_normal((2, 7)), TASTES)
    once = span_recovery_of(found, TASTES)
    assert mixed.held == pytest.approx(once.held) and mixed.random == once.random == 0.5
    assert mixed.angles_deg == pytest.approx(once.angles_deg)


def test_tastes_are_those_of_clients_and_unseen_people_do_not_count(crowd: Population) -> None:
    truth: Any = crowd.truth
    clients = np.stack([annotator.theta for annotator in truth.annotators[:20]], axis=1)
    best = main_directions(clients)[:, :3]
    found = recovered_span(RULE, ONE, {"b": best}, crowd)
    assert found is not None and found.held == pytest.approx(found.best)
    result = evaluate(RULE, ONE, {"b": best}, crowd, generator(0, "evaluation"))
    assert result.span == found and result.aggregate["span_recovery"] == found.held


def test_where_there_is_no_span_or_no_truth_in_its_coordinates_nothing_is_said(crowd: Population) -> None:
    b = np.eye(12)[:, :2]
    rule: Any = object()
    assert recovered_span(rule, ONE, {"b": b}, crowd) is None
    assert recovered_span(RULE, ONE, {"b": 0 * b}, crowd) is None
    several: Any = Serves(2)
    assert recovered_span(RULE, several, {"b": b}, crowd) is None
    assert recovered_span(RULE, ONE, {"b": np.eye(64)[:, :2]}, crowd) is None
    assert recovered_span(RULE, ONE, {"b": b}, Population(crowd.shards, crowd.held_out)) is None
    vectors = Synthetic(form="embedding", num_clients=3, test_pairs=2).population(0)
    assert recovered_span(RULE, ONE, {"b": b}, vectors) is None
    evaluation = evaluate(RULE, several, {"b": b}, crowd, generator(0, "evaluation"))
    assert evaluation.span is None and "span_recovery" not in evaluation.aggregate


def test_the_record_of_a_span_is_plain() -> None:
    record = span_recovery_of(np.eye(4)[:, :1], TASTES).as_json()
    assert record == {"angles_deg": [pytest.approx(0.0)], "held": 9 / 14, "best": 9 / 14, "random": 0.25}


@pytest.mark.parametrize(
    "rule",
    [
        FedRep(Given(12), rank=3),
        Flute(Given(12), rank=3),
        Lore(Given(12), num_heads=3),
        RewardFeatures(Given(12), num_features=3),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_every_head_that_a_rule_serves_lies_in_the_span_that_it_names(rule: Any, crowd: Population) -> None:
    weights = dict(rule.fresh(generator(0, "fresh")))
    served = rule.personalise(weights, crowd.shards[0], ClientState())
    eye = np.eye(12, dtype=np.float32)
    unit = Pairs(("",) * 12, eye, np.zeros_like(eye), ("",) * 12, ("",) * 12)
    head = rule.margins(served, unit)
    head /= np.linalg.norm(head)
    basis = main_directions(rule.span(weights))
    assert basis.shape[1] <= 3
    np.testing.assert_allclose(basis @ (basis.T @ head), head, atol=1e-4)
