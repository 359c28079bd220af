"""A suite is data: what is wrong in it is named, and the ones that fedpref brings are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from fedpref.benchmarks.suite.declared import Method, read_suite, suite_names
from fedpref.errors import ConfigurationError

TREE: dict[str, Any] = {
    "title": "T",
    "about": "A",
    "base": "fedavg",
    "words": ["executor=cohort"],
    "data": {"tiny": {"words": ["data=synthetic"], "target": 0.6}, "real": {"words": [], "file": "llmfao"}},
    "methods": {
        "fedavg": {"words": ["strategy=fedavg"], "grid": [["client.l2=0"], ["client.l2=1"]]},
        "plain": {"words": ["strategy=fedavg"]},
    },
    "tiers": {"smoke": {"data": ["tiny"], "seeds": [0, 1], "words": ["rounds=2"], "cost": "nothing"}},
    "claims": [{"claim": "C", "data": "tiny", "method": "plain", "metric": "user_accuracy", "least": 0.5}],
}


def suite(tmp_path: Path, **changes: Any) -> Any:
    path = tmp_path / "mine.yaml"
    OmegaConf.save(OmegaConf.create(TREE | changes), path)
    return read_suite(str(path))


def test_a_suite_says_what_its_file_says(tmp_path: Path) -> None:
    found = suite(tmp_path)
    assert (found.name, found.base, found.words) == ("mine", "fedavg", ("executor=cohort",))
    assert found.data["real"].file == "llmfao" and found.data["tiny"].target == 0.6
    assert found.methods["fedavg"].grid == (("client.l2=0",), ("client.l2=1",))
    assert found.methods["plain"].grid == ((),)
    tier = found.tier("smoke")
    assert (tier.data, tier.methods, tier.seeds) == (("tiny",), ("fedavg", "plain"), (0, 1))
    assert found.claims[0].least == 0.5


def test_a_strategy_of_ones_own_joins_beside_the_base(tmp_path: Path) -> None:
    found = suite(tmp_path)
    tier = found.tier("smoke", ["mine"], [7])
    assert (tier.methods, tier.seeds) == (("fedavg", "mine"), (7,))
    assert found.method("mine") == Method("mine", ("strategy=mine",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "nobody"}, r"mine\.base=nobody is not among its methods"),
        ({"words": ["rounds"]}, "words must be a list of key=value"),
        ({"data": {"tiny": {"wrds": []}}}, r"mine\.data\.tiny: unknown key wrds\. Did you mean 'words'"),
        ({"data": {"tiny": {}}}, r"mine\.data\.tiny: words is missing"),
        ({"data": {"tiny": 3}}, r"mine\.data\.tiny must be a mapping"),
        ({"methods": {"fedavg": {"words": [], "grid": []}}}, "grid has no setting"),
        (
            {
                "methods": {
                    "fedavg": {"words": [], "grid": [["a=1"], ["a=2"]]},
                    "plain": {"words": [], "grid": [["a=1"], ["a=2"], ["a=3"]]},
                }
            },
            "equally many settings, got {'fedavg': 2, 'plain': 3}",
        ),
        ({"tiers": {"smoke": {"seeds": [], "cost": ""}}}, r"tiers\.smoke\.seeds=\[\] must be integers"),
        (
            {"tiers": {"smoke": {"seeds": [0], "cost": "", "data": ["tny"]}}},
            "unknown tny. Did you mean 'tiny'",
        ),
        (
            {"tiers": {"smoke": {"seeds": [0], "cost": "", "methods": ["plain"]}}},
            "must have the base, fedavg",
        ),
        (
            {"claims": [{"claim": "C", "data": "tiny", "method": "plain", "metric": "m"}]},
            "least or most is missing",
        ),
        (
            {"claims": [{"claim": "C", "data": "tiny", "method": "pln", "metric": "m", "least": 0}]},
            r"claims\[0\]: unknown method pln. Did you mean 'plain'",
        ),
        ({"methods": {"fedavg": {"from": "heterogeneity", "grid": [["a=1"]]}}}, "and nothing else"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        suite(tmp_path, **changes)


def test_a_suite_or_a_tier_that_does_not_exist_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="heterogenity does not exist"):
        read_suite("heterogenity")
    with pytest.raises(ConfigurationError, match="--tier smok: suite mine has smoke"):
        suite(tmp_path).tier("smok")


@pytest.mark.parametrize("name", suite_names())
def test_a_suite_that_comes_with_fedpref_has_three_tiers_and_the_strong_baselines(name: str) -> None:
    found = read_suite(name)
    assert list(found.tiers) == ["smoke", "small", "full"]
    if name not in ("devices", "reproduction"):  # one model for all by design; claims name their own
        assert {"pooled", "local_only", "personal_ridge"} <= set(found.tiers["small"].methods)
