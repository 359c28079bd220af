"""A rule that draws from the global streams while it is asked gives one run, whatever they were before."""

from __future__ import annotations

import random

import numpy as np
from drawing_toy import DrawingToy

from fedpref.data.synthetic import Synthetic
from fedpref.federation.federation import Federation
from fedpref.federation.run import Result
from fedpref.models.given import Given
from fedpref.strategies.fedavg import FedAvg


def asked(result: Result) -> tuple[list[object], object, object]:
    """All that the rule was asked: by round, at the end, and about newcomers."""
    rounds = [record["evaluation"] for record in result.history]
    assert result.few_shot is not None
    return rounds, result.evaluation.users, result.few_shot.as_json()


def test_a_rule_that_draws_from_the_global_streams_when_asked_gives_equal_runs() -> None:
    data = Synthetic(preset="tiny", form="attributes", num_clients=4, test_pairs=6, unseen=2)
    population = data.population(0)
    vectors = population.shards[0].pairs.chosen
    assert isinstance(vectors, np.ndarray)
    rule = DrawingToy(Given(vectors.shape[1]))
    federation = Federation(population, rule, FedAvg(cohort_size=2), rounds=2, few_shot_resamples=1)
    found = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        found.append(asked(federation.run()))
    assert found[0] == found[1]
    rounds, *_ = found[0]
    assert rounds[0] != rounds[1]
