"""Presets carry the published settings, whole and by themselves, and templates have what a selector needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from fedpref.cli.build import check_config, population_from
from fedpref.cli.compose import compose, options_of, parse_words, plain

TLDR, SHP = ("fedbis_tldr", "fedbiscuit_tldr"), ("fedbis_shp", "fedbiscuit_shp")
COMMON = {
    "backbone.model": "Qwen/Qwen2-0.5B",
    "backbone.max_tokens": 1024,
    "client.rank": 8,
    "client.alpha": 16,
    "client.dropout": 0.05,
    "client.local_steps": 30,
    "client.lr": 1e-5,
    "client.last_layers": 0,
    "client._target_": "fedpref.clients.selector.Selector",
    "combine._target_": "fedpref.maths.combine.WeightedMean",
}
ON_TLDR = {
    "data._target_": "fedpref.data.tldr.TldrComparisons",
    "partition._target_": "fedpref.data.partition.Natural",
    "cohort_size": 5,
    "strategy.cohort_size": 5,
    "rounds": 500,
    "client.batch_pairs": 16,
}
ON_SHP = {
    "data._target_": "fedpref.data.shp.StanfordPreferences",
    "partition._target_": "fedpref.data.partition.Dirichlet",
    "partition.num_clients": 200,
    "partition.alpha": 0.3,
    "cohort_size": 10,
    "strategy.cohort_size": 10,
    "client.batch_pairs": 32,
}
FEDBIS = {"strategy._target_": "fedpref.strategies.fedbis.FedBis"}
FEDBISCUIT = {
    "strategy._target_": "fedpref.strategies.fedbiscuit.FedBiscuit",
    "strategy.num_selectors": 3,
    "strategy.warmup_rounds": 50,
    "strategy.agg_norm": "all_clients",
    "strategy.capacity": True,
    "strategy.grouping_pairs": 0.05,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "fedbis_tldr": {**COMMON, **ON_TLDR, **FEDBIS},
    "fedbiscuit_tldr": {**COMMON, **ON_TLDR, **FEDBISCUIT, "strategy.regroup_every": 50},
    "fedbis_shp": {**COMMON, **ON_SHP, **FEDBIS, "rounds": 500},
    "fedbiscuit_shp": {**COMMON, **ON_SHP, **FEDBISCUIT, "rounds": 550, "strategy.regroup_every": 100},
}


def preset(name: str, *words: str) -> Mapping[str, Any]:
    return plain(compose(parse_words([f"experiment={name}", *words]).all_overrides))


def at(config: Mapping[str, Any], key: str) -> Any:
    for name in key.split("."):
        config = config[name]
    return config


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_published_settings_and_is_accepted(name: str) -> None:
    config = preset(name)
    check_config(config)
    assert {key: at(config, key) for key in PUBLISHED[name]} == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_is_named_as_its_file_and_pins_what_it_downloads(name: str) -> None:
    config = preset(name)
    assert config["name"] == name
    revision = config["backbone"]["revision"]
    assert len(revision) == 40 and set(revision) <= set("0123456789abcdef")


@pytest.mark.parametrize("names", [TLDR, SHP])
def test_on_one_set_the_two_methods_differ_in_the_strategy_alone(names: tuple[str, str]) -> None:
    bis, biscuit = (preset(name) for name in names)
    differ = {key for key in {*bis, *biscuit} if bis.get(key) != biscuit.get(key)}
    assert differ - {"rounds"} == {"name", "strategy"}


@pytest.mark.parametrize("name", [TLDR[1], SHP[1]])
@pytest.mark.parametrize("num_selectors", [3, 5])
def test_the_published_numbers_of_selectors_leave_rounds_for_groups(name: str, num_selectors: int) -> None:
    config = preset(name, f"strategy.num_selectors={num_selectors}")
    check_config(config)
    strategy = config["strategy"]
    assert strategy["num_selectors"] == num_selectors
    assert config["rounds"] >= num_selectors * strategy["warmup_rounds"] + 2 * strategy["regroup_every"]


@pytest.mark.parametrize(("names", "template"), [(TLDR, "tldr"), (SHP, "qa")])
def test_the_selector_reads_the_template_of_its_task(names: tuple[str, str], template: str) -> None:
    expected = preset("demo", f"template={template}")["template"]
    for name in names:
        client = preset(name)["client"]
        assert (client["template"], client["choices"]) == (expected["text"], expected["choices"])


def test_a_preset_reads_a_copy_and_gives_each_worker_a_client(tmp_path: Path) -> None:
    info = {"id": "p", "post": "Post.", "title": "Title", "subreddit": "tifu"}
    workers, splits = ("ann", "bob", "ann", "bob"), ("train", "train", "valid1", "valid2")
    records = [
        {
            "info": {**info, "id": f"p{number}"},
            "summaries": [{"text": f"one {number}"}, {"text": f"two {number}"}],
            "choice": number % 2,
            "worker": worker,
            "split": split,
        }
        for number, (worker, split) in enumerate(zip(workers, splits, strict=True))
    ]
    copy = tmp_path / "comparisons.jsonl"
    copy.write_text("\n".join(json.dumps(record) for record in records))

    people = population_from(preset("fedbis_tldr", f"data.path='{copy}'"))

    assert [(shard.name, shard.pairs.chosen) for shard in people.shards] == [
        ("ann", ("one 0",)),
        ("bob", ("two 1",)),
    ]
    assert [asked.name for asked in people.held_out] == ["ann", "bob"]


@pytest.mark.parametrize("name", options_of("template"))
def test_a_template_has_each_slot_once_and_ends_where_the_choice_follows(name: str) -> None:
    template = preset("demo", f"template={name}")["template"]
    slots = [slot for _, slot, _, _ in Formatter().parse(template["text"]) if slot is not None]
    assert slots == ["prompt", "response_a", "response_b"]
    # The cue and a choice with its own leading space are what tokenizers split into two whole pieces.
    assert template["text"].endswith(":")
    assert template["choices"] == [" A", " B"]
