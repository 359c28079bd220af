"""The four sets of real human preferences load whole and keep their word on the split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedpref.data import Natural, PairSplit, Pooled, PreferenceFile, inspect, population

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PER_ANNOTATOR = "rows_per_annotator_quantiles_0_10_25_50_75_90_100"

pytestmark = pytest.mark.skipif(
    not (DATA / "STATS.json").exists(), reason="the real sets are not beside the checkout (../shared/data)"
)


@pytest.fixture(scope="module")
def stats() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DATA / "STATS.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", ["llmfao", "ukpconvarg", "mtbench", "polis"])
def test_a_real_set_gives_every_annotator_a_client_and_parts_no_pair(
    name: str, stats: dict[str, Any]
) -> None:
    rows = PreferenceFile(str(DATA / f"{name}.jsonl.gz")).rows()
    people = population(rows, Natural(), PairSplit(), seed=0)
    found = inspect(rows)

    assert len(rows) == stats[name]["rows"]
    assert len(people) == stats[name]["annotators"]
    assert found.num_pairs == stats[name]["text_pairs"]
    assert found.splits == stats[name]["by_split"]
    assert found.rows_per_client[0] == min(stats[name][PER_ANNOTATOR])
    assert found.rows_per_client[-1] == max(stats[name][PER_ANNOTATOR])
    assert rows.dropped == {}

    trained = {pair_id for shard in people.shards for pair_id in shard.pairs.pair_ids}
    asked = {pair_id for held_out in people.held_out for pair_id in held_out.pairs.pair_ids}
    assert not trained & asked
    assert all(held_out.client_id is not None for held_out in people.held_out)


def test_federated_and_pooled_llmfao_ask_the_same_people_the_same_pairs() -> None:
    rows = PreferenceFile(str(DATA / "llmfao.jsonl.gz")).rows()

    natural = population(rows, Natural(), PairSplit(), seed=0)
    pooled = population(rows, Pooled(), PairSplit(), seed=0)

    assert [(one.name, one.pairs.chosen) for one in natural.held_out] == [
        (one.name, one.pairs.chosen) for one in pooled.held_out
    ]
    assert len(pooled.shards[0].pairs) == sum(len(shard.pairs) for shard in natural.shards)


def test_any_column_makes_clients() -> None:
    rows = PreferenceFile(str(DATA / "llmfao.jsonl.gz"), client_column="domain").rows()

    assert len(population(rows, Natural(), PairSplit(), seed=0)) == 12
