"""Parameters of the synthetic population: presets, overrides and refusals."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from fedpref.data.synthetic import PRESETS, Recipe, Synthetic
from fedpref.errors import ConfigurationError


def test_clusters_is_the_default_recipe() -> None:
    assert Synthetic().recipe == Synthetic(preset="clusters").recipe == Recipe()


def test_every_parameter_of_the_recipe_can_be_overridden() -> None:
    own = {field.name for field in fields(Synthetic)} - {"preset", "form", "num_groups", "cache_dir"}
    assert own == {field.name for field in fields(Recipe)}
    assert all(getattr(Synthetic(), name) is None for name in own)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_makes_a_population_in_which_it_differs_from_clusters(preset: str) -> None:
    recipe = Synthetic(preset=preset).recipe
    assert (recipe == Recipe()) == (preset == "clusters")
    population = Synthetic(preset=preset, form="attributes", num_clients=3, test_pairs=2).population(0)
    assert len(population) == len(population.held_out) == 3


def test_an_override_wins_over_the_preset() -> None:
    recipe = Synthetic(preset="conflict", shares=[0.5, 0.5]).recipe
    assert recipe.shares == (0.5, 0.5)
    assert recipe.group_cosine == Synthetic(preset="conflict").recipe.group_cosine


def test_num_groups_alone_means_equal_shares() -> None:
    assert Synthetic(num_groups=5).recipe.shares == (0.2,) * 5


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shares": [0.5, 0.3]}, ["data.shares=[0.5, 0.3]", "0.8"]),
        ({"shares": [1.2, -0.2]}, ["data.shares"]),
        ({"shares": []}, ["data.shares"]),
        ({"shares": "0.5,0.5"}, ["data.shares", "list"]),
        ({"shares": ["half", 0.5]}, ["data.shares", "half"]),
        ({"shares": [0.5, 0.5], "num_groups": 3}, ["data.num_groups=3", "2"]),
        ({"num_groups": 0}, ["data.num_groups=0"]),
        ({"num_groups": 12}, ["12 groups", "data.num_attributes=12"]),
        ({"preset": "clutsers"}, ["data.preset=clutsers", "Did you mean 'clusters'?"]),
        ({"form": "embeding"}, ["data.form=embeding", "Did you mean 'embedding'?"]),
        ({"candidates": "nera"}, ["data.candidates=nera", "Did you mean 'near'?"]),
        ({"num_clients": 0}, ["data.num_clients=0"]),
        ({"num_clients": 2.5}, ["data.num_clients=2.5", "whole number"]),
        ({"num_clients": True}, ["data.num_clients=True"]),
        ({"beta": "high"}, ["data.beta=high", "number"]),
        ({"beta": float("nan")}, ["data.beta=nan"]),
        ({"unseen": -1}, ["data.unseen=-1", "at least 0", "at most 100,000"]),
        ({"unseen": 100_001}, ["data.unseen=100001", "whole number", "at most 100,000"]),
        ({"flips": 1.5}, ["data.flips=1.5", "at most 1"]),
        ({"adversaries": 0.7, "spammers": 0.7}, ["data.adversaries=0.7", "data.spammers=0.7"]),
        ({"min_pairs": 700}, ["data.min_pairs=700", "data.max_pairs=600"]),
        ({"deviation_rank": 13}, ["data.deviation_rank=13", "data.num_attributes=12"]),
        ({"preset": "conflict", "group_cosine": -1.0}, ["data.group_cosine=-1.0", "2 groups"]),
        ({"preset": "cyclic", "candidates": "neg"}, ["data.cyclic_share=1.0", "data.candidates=iid"]),
        ({"num_attributes": 13}, ["data.num_attributes=13", "at most 12"]),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_key(given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Synthetic(**given)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
