"""Which runs a tier is: every method on every data set with every seed, and trials that no table shows."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from fedpref.benchmarks.suite import plan
from fedpref.benchmarks.suite.choice import Choices
from fedpref.benchmarks.suite.declared import DataSet, Method, Suite, Tier
from fedpref.errors import ConfigurationError

GRID = (("client.l2=0",), ("client.l2=1",))
TINY = ("data=synthetic", "data.preset=tiny", "data.form=attributes")
SUITE = Suite(
    "mine",
    "T",
    "A",
    "base",
    ("executor=cohort",),
    {"tiny": DataSet("tiny", (*TINY, "rounds=7")), "real": DataSet("real", ("data=jsonl",), "llmfao")},
    {
        "base": Method("base", ("strategy=fedavg",), GRID),
        "told": Method("told", ("strategy=group_dro",), told_groups="strategy.client_groups"),
    },
    {},
)
TIER = Tier("small", ("tiny", "real"), ("base", "told"), (3, 4), ("rounds=5",), "nothing")
BASE = SUITE.methods["base"]
CHOICES = (
    Choices()
    .with_(SUITE, TIER, SUITE.data["tiny"], BASE, [0.1, 0.2])
    .with_(SUITE, TIER, SUITE.data["real"], BASE, [1, 0])
)


def find(name: str) -> str:
    return f"/data/{name}.jsonl.gz"


def test_every_method_runs_on_every_data_set_with_every_seed_but_who_needs_groups_that_nobody_knows() -> None:
    jobs = plan.runs(SUITE, TIER, CHOICES, find)
    expected = [
        *itertools.product(["tiny"], ["base", "told"], [3, 4]),
        *itertools.product(["real"], ["base"], [3, 4]),
    ]
    assert [(job.data, job.method, job.seed) for job in jobs] == expected
    assert not any(job.is_trial for job in jobs)
    assert [job.setting for job in jobs if job.method == "base"] == [GRID[1]] * 2 + [GRID[0]] * 2


def test_the_later_word_wins_suite_tier_data_method_setting_seed() -> None:
    first, *_, last = plan.runs(SUITE, TIER, CHOICES, find, ["--allow", "mine"])
    assert first.words == (
        *("--allow", "mine", "executor=cohort", "rounds=5", *TINY, "rounds=7", "strategy=fedavg"),
        *("client.l2=1", "seed=3"),
    )
    assert last.words[-5:] == (
        "data=jsonl",
        "data.path=/data/llmfao.jsonl.gz",
        "strategy=fedavg",
        "client.l2=0",
        "seed=4",
    )


def test_who_is_told_gets_the_hidden_group_of_each_client() -> None:
    (job,) = [job for job in plan.runs(SUITE, TIER, CHOICES, find) if (job.method, job.seed) == ("told", 3)]
    option, _, groups = job.words[-1].partition("=")
    assert option == "strategy.client_groups"
    from fedpref.data.synthetic import Synthetic

    people = Synthetic(preset="tiny", form="attributes").population(3)
    assert people.truth is not None
    assert groups == str([int(people.truth.groups[client]) for client in range(len(people))]).replace(" ", "")


def test_trials_try_every_setting_on_a_seed_that_no_tier_has(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "annotator": "x"}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row | {"split": "train"}) + "\n")
    jobs = plan.trials(SUITE, TIER, lambda name: str(file))
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(ConfigurationError, match="has no split"):
        plan.trials(SUITE, TIER, lambda name: str(file))
    assert [(job.data, job.setting) for job in jobs] == list(itertools.product(["tiny", "real"], GRID))
    assert all(
        job.is_trial and job.seed == plan.TRIAL_SEED and job.words[-1] == "seed=1000000" for job in jobs
    )
    assert len({job.name for job in jobs}) == 4


@pytest.mark.parametrize(
    "name", ["heterogeneity", "personalisation", "devices", "selectors", "scaling", "reproduction"]
)
def test_no_tier_has_the_seed_of_the_trials(name: str) -> None:
    from fedpref.benchmarks.suite.declared import read_suite

    assert all(plan.TRIAL_SEED not in tier.seeds for tier in read_suite(name).tiers.values())
