"""A rule that adds the parts of many clients at once serves everybody as one that adds them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpref.clients.personal_ridge import PersonalRidge
from fedpref.data.synthetic import Synthetic
from fedpref.evaluation.answers import personalised
from fedpref.evaluation.evaluate import evaluate
from fedpref.evaluation.few_shot import few_shot
from fedpref.models import Given
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.global_model import GlobalModel
from fedpref.types import ClientId, ClientState, Pairs, PersonalInCohorts, Population, Shard, Weights

RULE = PersonalRidge(Given(12))
PEOPLE = Synthetic(preset="clusters", form="attributes", unseen=3).population(0)
FIRST, SECOND = ({"score.weight": generator(i, "head").standard_normal((1, 12)).astype("f")} for i in (0, 1))


@dataclass(frozen=True)
class OneByOne:
    """``RULE`` without its form for many."""

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        return RULE.margins(weights, pairs)

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        return RULE.personalise(weights, shard, state)


@dataclass(frozen=True)
class TwoVote(FedAvg):
    """Serves two models to everybody, clients with even numbers in the other order."""

    def serve(self, state: GlobalModel, client_id: ClientId | None) -> Sequence[Weights]:
        return [FIRST, SECOND][:: 1 if client_id is None or client_id % 2 else -1]


def figures(rule: Any, strategy: FedAvg, people: Population = PEOPLE) -> list[tuple[float, float]]:
    found = evaluate(rule, strategy, GlobalModel(FIRST, None), people, generator(0, "evaluation"))
    return [(user.accuracy, user.loss) for user in found.users]


def test_everybody_is_served_with_the_own_part_also_where_several_models_vote() -> None:
    assert isinstance(RULE, PersonalInCohorts) and not isinstance(OneByOne(), PersonalInCohorts)
    for strategy in (FedAvg(), TwoVote()):
        together, alone = (np.array(figures(rule, strategy)) for rule in (RULE, OneByOne()))
        np.testing.assert_allclose(together, alone, atol=1e-6)
        assert np.ptp(alone[:, 1]) > 0.05  # whoever gets another's part would be seen


def test_few_shot_curves_agree() -> None:
    state = GlobalModel(FIRST, None)
    together, alone = (
        few_shot(rule, FedAvg(), state, PEOPLE, 0, resamples=2)  # type: ignore[arg-type]  # it never trains
        for rule in (RULE, OneByOne())
    )
    np.testing.assert_allclose(together.accuracies, alone.accuracies, atol=1e-6)
    assert np.ptp(alone.accuracies, axis=0).min() > 0.01


def test_nobody_is_nothing() -> None:
    assert personalised(RULE, [], [], []) == personalised(OneByOne(), [], [], []) == []
