"""What travels is what the formulas say: P bytes a selector and direction, U·P down in a regrouping."""

import dataclasses

import pytest

from fedpref.clients.selector import Selector
from fedpref.data.synthetic import Synthetic
from fedpref.federation.federation import Federation
from fedpref.models.given import Given
from fedpref.strategies.fedbis import FedBis
from fedpref.strategies.fedbiscuit import FedBiscuit

DIM, NUM_CLIENTS = 6, 16
SELECTOR_BYTES = (2 * DIM + 1) * 4  # weights of both slots and a bias, float32


@pytest.fixture(scope="module")
def federation() -> Federation:
    population = Synthetic(preset="tiny", form="attributes").population(seed=0)
    assert len(population) == NUM_CLIENTS
    rule = Selector(Given(DIM), local_steps=2)
    return Federation(population, rule, FedBis(cohort_size=5), rounds=6, evaluate_every=6)


def test_fedbis_sends_one_selector_each_way_to_each_of_the_cohort(federation: Federation) -> None:
    summary = federation.run().summary
    assert summary["raw_bytes_down"] == summary["raw_bytes_up"] == 6 * 5 * SELECTOR_BYTES


def test_fedbiscuit_sends_ones_own_selector_and_all_of_them_only_to_regroup(federation: Federation) -> None:
    strategy = FedBiscuit(num_selectors=3, warmup_rounds=1, regroup_every=2, cohort_size=5)
    result = dataclasses.replace(federation, strategy=strategy, rounds=7).run()
    num_regroupings = 2  # before the fourth and the sixth of seven rounds; three warm up
    training = 7 * 5 * SELECTOR_BYTES
    regrouping = num_regroupings * NUM_CLIENTS * 3 * SELECTOR_BYTES
    assert result.summary["raw_bytes_up"] == training  # losses are numbers, not tensors
    assert result.summary["raw_bytes_down"] == training + regrouping
    broadcast = 3 * training + regrouping
    ratio = result.history[-1]["fold"]["broadcast_ratio"]
    assert ratio == pytest.approx((training + regrouping) / broadcast)
