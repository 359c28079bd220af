"""Flower's own strategies in fedpref's loop."""

from __future__ import annotations

import json

import numpy as np
import pytest
from flwr.serverapp import strategy as flower
from toy_fleet import Timed

from fedpref.errors import ConfigurationError, FederationError
from fedpref.flower.native import FlowerState, FlowerStrategy

STRATEGIES = {
    "FedAvg": lambda: flower.FedAvg(),
    "FedAvgM": lambda: flower.FedAvgM(server_momentum=0.9),
    "FedProx": lambda: flower.FedProx(proximal_mu=0.1),
    "FedAdam": lambda: flower.FedAdam(),
    "FedYogi": lambda: flower.FedYogi(),
    "FedAdagrad": lambda: flower.FedAdagrad(),
    "FedMedian": lambda: flower.FedMedian(),
    "FedTrimmedAvg": lambda: flower.FedTrimmedAvg(beta=0.2),
    "Krum": lambda: flower.Krum(num_malicious_nodes=1),
    "MultiKrum": lambda: flower.MultiKrum(num_malicious_nodes=1, num_nodes_to_select=3),
    "Bulyan": lambda: flower.Bulyan(num_malicious_nodes=1),
    "DP": lambda: flower.DifferentialPrivacyServerSideFixedClipping(flower.FedAdam(), 1.0, 0.5, 7),
}


def federation(toy, name, cohort_size=7, **options):
    strategy = FlowerStrategy(STRATEGIES[name](), cohort_size)
    return toy.rounds(9, toy.PullRule(noise=0.05), strategy, **options)


def run(rounds, n):
    return [rounds.advance() for _ in range(n)]


def test_native_fedavg_is_the_weighted_mean(toy):
    rounds = toy.rounds(5, strategy=FlowerStrategy(flower.FedAvg(), 3))
    start = rounds.state.weights
    outcome = rounds.advance()
    updates = [arrival.update for arrival in outcome.arrivals]
    assert len(updates) == 3
    total = sum(update.num_pairs for update in updates)
    for key in start:
        mean = sum(u.num_pairs / total * u.weights[key].astype(np.float64) for u in updates)
        np.testing.assert_allclose(rounds.state.weights[key], mean, rtol=1e-6)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_runs_reproducibly_and_stays_float32(toy, name):
    first, again = federation(toy, name), federation(toy, name)
    start = first.state.weights
    outcomes, others = run(first, 3), run(again, 3)
    assert toy.same(first.state.weights, again.state.weights)
    assert not toy.same(first.state.weights, start)
    assert all(array.dtype == np.float32 for array in first.state.weights.values())
    assert first.version == 3
    cohorts = [[a.task.client_id for a in o.arrivals] for o in outcomes]
    assert cohorts == [[a.task.client_id for a in o.arrivals] for o in others]
    assert all(len(cohort) == 7 for cohort in cohorts) and len(set(map(tuple, cohorts))) > 1


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resumed_run_equals_the_undisturbed_one(toy, name):
    undisturbed = federation(toy, name)
    run(undisturbed, 4)
    first = federation(toy, name)
    run(first, 2)
    tree, arrays = first.snapshot()
    resumed = federation(toy, name)
    resumed.restore(first.state, json.loads(json.dumps(tree)), arrays)
    run(resumed, 2)
    assert toy.same(resumed.state.weights, undisturbed.state.weights)


@pytest.mark.parametrize("name", ["FedAdam", "FedAvgM", "DP"])
def test_the_wrapped_strategy_itself_never_changes(toy, name):
    inner = STRATEGIES[name]()
    before = repr(vars(inner))
    run(toy.rounds(9, strategy=FlowerStrategy(inner, 7)), 2)
    assert repr(vars(inner)) == before


def test_a_state_can_be_used_twice(toy):
    rounds = federation(toy, "FedAdam")
    run(rounds, 1)
    state, fold_rng = rounds.state, np.random.default_rng(0)
    arrivals = rounds.advance().arrivals
    planned, _ = rounds.strategy.plan(state, list(range(9)), 0.0, np.random.default_rng(0))
    folds = [rounds.strategy.fold(planned, arrivals, 0.0, fold_rng).state.weights for _ in range(2)]
    assert toy.same(*folds)


def test_a_state_is_plain_data(toy):
    from fedpref.federation.plain import from_plain, state_classes, to_plain

    rounds = federation(toy, "DP")
    run(rounds, 2)
    arrays = {}
    tree = json.loads(json.dumps(to_plain(rounds.state, arrays)))
    restored = from_plain(tree, arrays, state_classes(rounds.state))
    other = federation(toy, "DP")
    other.restore(restored, *rounds.snapshot())
    run(rounds, 2), run(other, 2)
    assert isinstance(restored, FlowerState) and toy.same(rounds.state.weights, other.state.weights)


def test_the_proximal_term_reaches_the_clients_in_our_spelling(toy):
    rounds = federation(toy, "FedProx")
    settings = rounds.advance().arrivals[0].task.settings
    assert dict(settings) == {"proximal_mu": 0.1, "server_round": 1}


def test_a_nan_reply_never_reaches_the_strategy(toy):
    for name in ("FedAvg", "FedMedian"):
        strategy = FlowerStrategy(STRATEGIES[name](), 5)
        rounds = toy.rounds(5, toy.PullRule(faults={2: "nan"}), strategy)
        assert [a.code for a in rounds.advance().arrivals].count("non_finite") == 1
        assert all(np.isfinite(array).all() for array in rounds.state.weights.values())


def test_fewer_idle_clients_than_the_cohort_do_not_make_it_wait(toy):
    fleet = Timed(1.0, is_online=lambda client_id, clock_s: client_id < 2)
    rounds = toy.rounds(5, strategy=FlowerStrategy(flower.FedAvg(), 4), fleet=fleet)
    assert [a.task.client_id for a in rounds.advance().arrivals] == [0, 1]


@pytest.mark.parametrize("name,cohort_size,needed", [("Krum", 4, 5), ("MultiKrum", 4, 5), ("Bulyan", 6, 7)])
def test_a_cohort_too_small_for_a_robust_rule_is_refused(name, cohort_size, needed):
    with pytest.raises(ConfigurationError, match=f"needs at least {needed} replies per round"):
        FlowerStrategy(STRATEGIES[name](), cohort_size)


def test_a_cohort_larger_than_the_population_is_refused(toy):
    with pytest.raises(ConfigurationError, match="cohort_size=5 is larger than the population of 4"):
        toy.rounds(4, strategy=FlowerStrategy(flower.FedAvg(), 5))


def test_a_strategy_that_changes_the_shapes_is_stopped(toy):
    class Cutting(flower.FedAvg):
        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            del arrays["head.bias"]
            return arrays, metrics

    with pytest.raises(FederationError, match="Cutting returned arrays"):
        toy.rounds(4, strategy=FlowerStrategy(Cutting(), 4)).advance()


def test_memory_that_no_checkpoint_can_keep_is_refused(toy):
    class Hoarding(flower.FedAvg):
        def aggregate_train(self, server_round, replies):
            self.hoard = {1, 2}
            return super().aggregate_train(server_round, replies)

    with pytest.raises(ConfigurationError, match=r"Hoarding\.hoard changes during a run and holds a set"):
        toy.rounds(4, strategy=FlowerStrategy(Hoarding(), 4)).advance()


@pytest.mark.parametrize(
    "wrap", [lambda inner: inner, lambda s: flower.DifferentialPrivacyServerSideFixedClipping(s, 1.0, 0.5, 1)]
)
def test_nodes_that_flower_would_wait_for_for_ever_are_refused(toy, wrap):
    inner = flower.FedAvg(min_train_nodes=1, min_available_nodes=3)
    with pytest.raises(ConfigurationError, match=r"min_available_nodes=3 is more than the idle clients .2."):
        toy.rounds(2, strategy=FlowerStrategy(wrap(inner)))
    assert len(toy.rounds(3, strategy=FlowerStrategy(wrap(inner))).advance().arrivals) == 3


def test_clients_that_are_offline_do_not_make_flower_wait_for_ever(toy):
    fleet = Timed(1.0, is_online=lambda client_id, clock_s: client_id < 1)
    rounds = toy.rounds(2, strategy=FlowerStrategy(flower.FedAvg()), fleet=fleet)
    with pytest.raises(FederationError, match=r"min_train_nodes=2 is more than the idle clients .1."):
        rounds.advance()


def test_a_fraction_above_one_is_refused_before_flower_waits_for_ever(toy):
    with pytest.raises(ConfigurationError, match=r"fraction_train=2\.0 must be at most 1"):
        toy.rounds(3, strategy=FlowerStrategy(flower.FedAvg(fraction_train=2.0)))


def test_a_robust_rule_counts_the_whole_population_where_no_cohort_is_set(toy):
    def rounds(num_clients):  # one attacker among them: 2 f + 3 = 5
        return toy.rounds(num_clients, strategy=FlowerStrategy(flower.Krum(num_malicious_nodes=1)))

    with pytest.raises(ConfigurationError, match="Krum needs at least 5 replies per round; cohort_size=4"):
        rounds(4)
    assert len(rounds(5).advance().arrivals) == 5
