"""The parts of the throughput benchmark that need no clock: the same work for all, and the arithmetic."""

import pytest

from fedpref.benchmarks.throughput import features
from fedpref.benchmarks.throughput.__main__ import agreement, asked, gap
from fedpref.benchmarks.throughput.apart import apart
from fedpref.benchmarks.throughput.interleaved import Course, ratio
from fedpref.benchmarks.throughput.job import Scale, Size
from fedpref.benchmarks.throughput.ours import cohort, inline
from fedpref.benchmarks.throughput.plain import plain
from fedpref.benchmarks.throughput.table import as_json, as_text, markdown
from fedpref.benchmarks.throughput.variants import JOBS, able

WITH_PEERS = ["linear", "lora_head"]
EVERYBODY = Size(num_clients=3, cohort_size=3, rounds=2, batch_pairs=None)


@pytest.mark.parametrize("name", WITH_PEERS)
@pytest.mark.parametrize("ours", [inline, cohort])
def test_where_nothing_is_left_to_chance_a_plain_loop_ends_at_the_same_weights(name, ours) -> None:
    stops = []
    mine = ours(JOBS[name], EVERYBODY, lambda: stops.append(name))
    assert gap(mine, plain(JOBS[name], EVERYBODY, lambda: None)) < 1e-5
    assert len(stops) == 1 + EVERYBODY.rounds


@pytest.mark.parametrize("name", WITH_PEERS)
def test_the_rounds_change_the_model(name) -> None:
    one, two = (plain(JOBS[name], Size(3, 3, rounds, None), lambda: None) for rounds in (1, 2))
    assert gap(one, two) > 1e-3


def test_a_regrouping_is_part_of_its_round() -> None:
    stops = []
    size = Size(num_clients=6, cohort_size=3, rounds=2)
    cohort(JOBS["fedbiscuit"], size, lambda: stops.append(None))
    assert len(stops) == 1 + size.rounds


def test_weights_of_other_shapes_are_no_small_gap() -> None:
    with pytest.raises(ValueError, match="different weights"):
        gap({}, plain(JOBS["linear"], EVERYBODY, lambda: None))


def test_clients_beyond_those_kept_have_features_of_others_and_pairs_of_their_own() -> None:
    shards = features.population(features.KEEP + 2).shards
    first, later = shards[1], shards[1 + features.KEEP]
    assert first.pairs.chosen is later.pairs.chosen
    assert first.client_id != later.client_id and first.pairs.pair_ids != later.pairs.pair_ids


def test_a_ratio_is_the_median_of_ratios_and_not_the_ratio_of_medians() -> None:
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2.0  # 2, 3, 1; of medians it would be 1


def test_figures_are_milliseconds_a_client_update() -> None:
    courses = {"slow": Course([4.0, 6.0]), "cohort": Course([1.0, 2.0])}
    figures = as_json(courses, cohort_size=100)
    assert figures["slow"]["ms"] == 50.0
    assert figures["slow"]["times_cohort"] == 3.5


def test_numbers_stand_right_in_the_table() -> None:
    assert markdown([{"name": "a", "ms": 0.25, "clients": 1000}]).splitlines() == [
        "| name | ms | clients |",
        "| --- | ---: | ---: |",
        "| a | 0.25 | 1,000 |",
    ]


def test_a_job_has_the_simulators_that_know_it() -> None:
    able_to = {name: {*able(job)} - {"pfl-research"} for name, job in JOBS.items()}
    ours = {"inline", "ray", "cohort"}
    everybody = ours | {"flower", "pytorch"}
    assert able_to == {
        "linear": everybody,
        "lora_head": everybody,
        "minilm": everybody | {"uncached"},
        "fedbiscuit": ours,
    }


def test_options_replace_what_is_measured_usually() -> None:
    usual = Scale(clients=(8,), cohort_size=2, rounds=3)
    assert asked(usual, {}) == Scale(clients=[8], cohort_size=2, rounds=3)
    found = asked(usual, {"clients": "20,30", "cohort": "5", "rounds": "1"})
    assert found == Scale(clients=[20, 30], cohort_size=5, rounds=1)


def test_what_is_not_measured_apart_is_not_told() -> None:
    assert as_text({"gap": {"inline": 2e-6}, "apart_ms": {}, "sizes": []}) == (
        "Weights of all variants agree to 2e-06."
    )


@pytest.mark.slow
def test_variants_in_processes_of_their_own_agree() -> None:
    assert agreement("linear", ["pytorch", "inline", "cohort"])["pytorch"] < 1e-5


@pytest.mark.slow
def test_what_is_apart_is_told_by_name() -> None:
    assert set(apart(JOBS["linear"], Size(8, 8, 6))) == {"log", "evaluation", "checkpoint"}
