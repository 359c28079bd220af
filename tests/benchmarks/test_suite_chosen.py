"""The choices that fedpref brings are of the suites as they are now: nobody has to choose before a run."""

from __future__ import annotations

import itertools

import pytest

from fedpref.benchmarks.suite.choice import read_choices
from fedpref.benchmarks.suite.declared import read_suite, suite_names
from fedpref.benchmarks.suite.plan import applies


@pytest.mark.parametrize("name", suite_names())
@pytest.mark.parametrize("tier", ["smoke", "small"])
def test_options_are_chosen_for_every_method_on_every_data_set(name: str, tier: str) -> None:
    suite = read_suite(name)
    choices, of_tier = read_choices(suite), suite.tiers[tier]
    pairs = itertools.product(of_tier.data, of_tier.methods)
    for data, method in ((suite.data[data], suite.method(method)) for data, method in pairs):
        if applies(data, method):
            assert choices.setting(suite, data, method) in method.grid
