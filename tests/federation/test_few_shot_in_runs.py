"""What a run does for people whom no client knows, and what it says of its shared directions."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fedpref.clients.fedrep import FedRep
from fedpref.clients.linear_reward import LinearReward
from fedpref.clients.personal_ridge import PersonalRidge
from fedpref.data.synthetic import Synthetic
from fedpref.evaluation.few_shot import few_shot
from fedpref.evaluation.personal import shared_accuracies
from fedpref.federation.federation import Federation
from fedpref.models.given import Given
from fedpref.report.html import write_report
from fedpref.report.rundir import RunDirectory
from fedpref.report.runs import read_run
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.global_model import GlobalModel
from fedpref.types import Population


@pytest.fixture(scope="module")
def crowd() -> Population:
    return Synthetic(form="attributes", num_clients=8, unseen=3, test_pairs=20).population(0)


def federation(crowd: Population, rule: Any = None, **given: Any) -> Federation:
    rule = PersonalRidge(Given(12)) if rule is None else rule
    options = {"rounds": 2, "few_shot_resamples": 2, "checkpoint_every": 1} | given
    return Federation(crowd, rule, FedAvg(4), **options)


def new_directory(folder: Path) -> RunDirectory:
    return RunDirectory.create(
        folder,
        "newcomers",
        config="seed: 0\n",
        overrides="[]\n",
        config_hash="0" * 64,
        seed=0,
        command=["fedpref", "run"],
        now=datetime(2026, 11, 21),
    )


def test_the_curve_is_that_of_the_finished_model(crowd: Population) -> None:
    setup = federation(crowd)
    result = setup.run()
    state = GlobalModel(result.models["global"], None)
    expected = few_shot(setup.rule, setup.strategy, state, crowd, 0, resamples=2)
    assert result.few_shot is not None
    assert result.few_shot.as_json() == expected.as_json()
    assert result.summary["k_star"] == expected.k_star


def test_a_curve_changes_nothing_else(crowd: Population) -> None:
    result, without = (federation(crowd, few_shot_resamples=count).run() for count in (2, 0))
    assert without.few_shot is None
    assert result.evaluation.aggregate == without.evaluation.aggregate
    assert result.summary["weights_sha256"] == without.summary["weights_sha256"]


def test_without_newcomers_there_is_no_curve(crowd: Population, tmp_path: Path) -> None:
    nobody = Population(crowd.shards, crowd.held_out[:8])
    with new_directory(tmp_path) as directory:
        result = federation(nobody).run(directory)
        assert result.few_shot is None and "k_star" not in result.summary
        assert not (directory.path / "few_shot.json").exists()


def test_without_a_personal_part_newcomers_are_served_the_shared_model_whatever_they_show(
    crowd: Population, tmp_path: Path
) -> None:
    setup = federation(crowd, LinearReward(Given(12)))
    with new_directory(tmp_path) as directory:
        result = setup.run(directory)
    assert result.few_shot is not None and "k_star" not in result.summary
    (point,) = result.few_shot.points
    state = GlobalModel(result.models["global"], None)
    expected = shared_accuracies(setup.rule, setup.strategy, state, crowd, [8, 9, 10])
    assert point.shots == 0 and point.gain == 0
    assert point.accuracy == pytest.approx(expected.mean(), rel=1e-15)
    assert result.few_shot.accuracies[0].tolist() == expected.tolist()
    page = write_report(directory.path).read_text(encoding="utf-8")
    assert "no personal part" in page and f"{100 * point.accuracy:.1f}" in page


def test_a_resumed_run_makes_the_same_curve(crowd: Population, tmp_path: Path) -> None:
    setup = federation(crowd)
    with new_directory(tmp_path) as directory:
        dataclasses.replace(setup, rounds=1).run(directory)
        once = (directory.path / "few_shot.json").read_bytes()
        setup.run(directory, resume=True)
        resumed = json.loads((directory.path / "few_shot.json").read_bytes())
        assert (directory.path / "few_shot.json").read_bytes() != once
    whole = setup.run().few_shot
    assert whole is not None and resumed == whole.as_json()
    assert read_run(directory.path).few_shot == resumed


def test_every_evaluated_round_tells_what_the_representation_spans(crowd: Population, tmp_path: Path) -> None:
    with new_directory(tmp_path) as directory:
        federation(crowd, FedRep(Given(12), rank=2)).run(directory)
    run = read_run(directory.path)
    spans = [record["span"] for record in run.metrics]
    assert len(spans) == 3 and all(len(span["angles_deg"]) == 2 for span in spans)
    assert run.summary["span_recovery"] == spans[-1]["held"] <= spans[-1]["best"]
    page = write_report(directory.path).read_text(encoding="utf-8")
    assert "Newcomers" in page and "Shared directions" in page


def test_a_negative_number_of_resamples_is_refused(crowd: Population) -> None:
    from fedpref.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match=r"evaluation\.few_shot_resamples=-1"):
        federation(crowd, few_shot_resamples=-1)
