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
    tmp_path.mkdir(exist_ok=True)
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
        ({"base": "nobody"}, r"mine\.yaml: base: unknown nobody\. There are fedavg, plain"),
        ({"words": ["rounds"]}, r"words=\['rounds'\] must be a list of key=value"),
        ({"data": {"tiny": {"wrds": []}}}, r"data\.tiny: unknown key wrds\. Did you mean 'words'"),
        ({"data": {"tiny": {}}}, r"data\.tiny: words is missing"),
        ({"data": {"tiny": 3}}, r"data\.tiny must be a mapping"),
        (
            {"methods": {"fedavg": {"words": [], "grid": []}}},
            r"methods\.fedavg\.grid=\[\] must be a list of settings",
        ),
        (
            {
                "methods": {
                    "fedavg": {"words": [], "grid": [["a=1"], ["a=2"]]},
                    "plain": {"words": [], "grid": [["a=1"], ["a=2"], ["a=3"]]},
                }
            },
            "equally many settings, got {'fedavg': 2, 'plain': 3}",
        ),
        ({"tiers": {"smoke": {"seeds": [], "cost": "c"}}}, r"tiers\.smoke\.seeds=\[\] must be a list"),
        (
            {"tiers": {"smoke": {"seeds": [0], "cost": "c", "data": ["tny"]}}},
            "unknown tny. Did you mean 'tiny'",
        ),
        (
            {"tiers": {"smoke": {"seeds": [0], "cost": "c", "methods": ["plain"]}}},
            "must have the base, fedavg",
        ),
        (
            {"claims": [{"claim": "C", "data": "tiny", "method": "plain", "metric": "ari"}]},
            "least or most is missing",
        ),
        (
            {"claims": [{"claim": "C", "data": "tiny", "method": "pln", "metric": "m", "least": 0}]},
            r"claims\[0\]\.method: unknown pln. Did you mean 'plain'",
        ),
        ({"methods": {"fedavg": {"from": "heterogeneity", "grid": [["a=1"]]}}}, "and nothing else"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        suite(tmp_path, **changes)


CLAIM = TREE["claims"][0]
METHODS = TREE["methods"]


def a_claim(**changes: Any) -> dict[str, Any]:
    return {"claims": [{**CLAIM, **changes}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": ""}, r"title='' must be text that is not empty"),
        ({"title": 3}, "title=3 must be text"),
        ({"base": ["fedavg"]}, r"base=\['fedavg'\] must be text"),
        ({"data": [{"tiny": {}}]}, r"data=\[.*\] must be a mapping from names"),
        (
            {"data": {"tiny": {"words": [], "target": "high"}}},
            "data.tiny.target='high' must be a finite number",
        ),
        ({"data": {"tiny": {"words": [], "target": None}}}, "data.tiny.target=null must be a finite number"),
        ({"data": {"tiny": {"words": [], "file": 3}}}, "data.tiny.file=3 must be text"),
        ({"methods": None}, "methods=null must be a mapping"),
        (
            {"methods": {"fedavg": {"words": [], "grid": None}}},
            r"grid=null must be .*leave it out where nothing",
        ),
        (
            {"methods": {"fedavg": {"words": [], "grid": ["a=1"]}}},
            r"grid\[0\]='a=1' must be a list of key=value",
        ),
        ({"methods": {"fedavg": {"words": [], "told_groups": True}}}, "told_groups=True must be text"),
        ({"methods": {"fedavg": {"words": [], "federated": "no"}}}, "federated='no' must be true or false"),
        ({"methods": {"fedavg": {"from": ["a"]}}}, r"methods.fedavg.from=\['a'\] must be text"),
        ({"tiers": {"smoke": {"seeds": 3, "cost": "c"}}}, "tiers.smoke.seeds=3 must be a list of different"),
        ({"tiers": {"smoke": {"seeds": [0, 0], "cost": "c"}}}, r"seeds=\[0, 0\] must be a list of different"),
        ({"tiers": {"smoke": {"seeds": [True], "cost": "c"}}}, r"seeds=\[True\] must be"),
        ({"tiers": {"smoke": {"seeds": [0], "cost": 3}}}, "tiers.smoke.cost=3 must be text"),
        (
            {"tiers": {"smoke": {"seeds": [0], "cost": "c", "data": "tiny"}}},
            "data='tiny' must be a list of some",
        ),
        ({"tiers": {"smoke": {"seeds": [0], "cost": "c", "data": ["tiny", "tiny"]}}}, "there twice"),
        ({"claims": None}, "claims=null must be a list; leave it out"),
        ({"claims": {"claim": "C"}}, "claims={'claim': 'C'} must be a list"),
        (a_claim(least="much"), r"claims\[0\].least='much' must be a finite number"),
        (a_claim(least=float("nan")), r"claims\[0\].least=nan must be a finite number"),
        (a_claim(least=1, most=0), "least=1 must not be above most=0"),
        (a_claim(why=3), r"claims\[0\].why=3 must be text"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_file_its_place_and_what_to_write(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"mine\.yaml: .*{message}"):
        suite(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "user_acuracy"}, "metric: unknown user_acuracy. Did you mean 'user_accuracy'"),
        ({"metric": "wall_s"}, "metric: unknown wall_s"),  # no table of a suite has it
        ({"than": "plian"}, "than: unknown plian. Did you mean 'plain'"),
        ({"method": "oracle"}, "method: unknown oracle"),
        ({"data": "tiny, newcomers with 6 pairs"}, "data: unknown tiny, newcomers with 6 pairs"),
        ({"data": "tiny, newcomers with 5 pairs", "metric": "k_star"}, "metric: unknown k_star"),
        ({"data": "tiny, newcomers with 5 pairs", "than": "oracle"}, "than: unknown oracle"),
        ({"data": "real", "than": "oracle"}, "than: unknown oracle"),
        ({"data": "tinny"}, "data: unknown tinny. Did you mean 'tiny'"),
    ],
)
def test_a_claim_that_no_table_can_answer_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        suite(tmp_path, **a_claim(**changes))


def test_a_claim_may_be_about_newcomers_the_oracle_and_why_it_does_not_hold(tmp_path: Path) -> None:
    changes = {"data": "tiny, newcomers with 1 pair", "than": "fedavg", "why": "One pair tells little."}
    (claim,) = suite(tmp_path, **a_claim(**changes, most=0.9)).claims
    assert (claim.data, claim.than, claim.why) == tuple(changes.values())
    assert claim.asked == "user_accuracy of plain - fedavg at least 0.5 and at most 0.9"
    (claim,) = suite(tmp_path, **a_claim(than="oracle")).claims
    assert claim.than == "oracle" and claim.why == ""


def test_who_is_not_federated_is_so_in_every_suite_that_takes_the_method(tmp_path: Path) -> None:
    alone = {**METHODS, "alone": {"words": ["strategy=fedavg"], "federated": False}}
    first = suite(tmp_path, methods=alone)
    assert not first.methods["alone"].is_federated and first.methods["plain"].is_federated
    second = suite(tmp_path / "other", methods={**METHODS, "alone": {"from": str(first.path)}})
    assert second.methods["alone"] == first.methods["alone"]
    with pytest.raises(ConfigurationError, match="alone is not federated and has no bytes_up"):
        suite(tmp_path, methods=alone, **a_claim(method="alone", metric="bytes_up"))


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
