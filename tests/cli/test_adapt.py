"""``fedpref adapt``, and ``fedpref eval`` of runs whose clients have a part of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedpref.cli.trained import clients_states, load_run, training_shards

Run = Callable[..., tuple[int, str, str]]

ALLOW = ("--allow", "personal_toy")
WORDS = ("data=jsonl", "data.path=people.jsonl", "name=t", "cohort_size=2", "rounds=2", "checkpoint.every=1")


@pytest.fixture
def train(fedpref: Run, people: Path, folder: Path) -> Callable[..., Path]:
    """Train on six people, of whom four like the kind answer; two of them train in a round."""

    def run(*words: str) -> Path:
        toy = ("client._target_=personal_toy.PersonalToy", *ALLOW)
        assert fedpref("run", *WORDS, *(toy if "plain" not in words else ()))[0] == 0
        (path,) = (folder / "runs" / "t").iterdir()
        return path

    return run


@pytest.fixture
def strangers(people: Path, folder: Path) -> Path:
    """The same judgements by people whom the run does not know."""
    path = folder / "strangers.jsonl"
    path.write_text(people.read_text().replace('"annotator": "p', '"annotator": "stranger'))
    return path


def as_json(fedpref: Run, *words: str) -> dict[str, Any]:
    code, out, err = fedpref(*words, "--format", "json")
    assert (code, err) == (0, "")
    result: dict[str, Any] = json.loads(out)
    return result


def test_new_people_get_what_they_show(fedpref: Run, train: Callable[..., Path], strangers: Path) -> None:
    run = train()
    result = as_json(fedpref, "adapt", str(run), "strangers.jsonl", *ALLOW, "--resamples", "2")
    # Nine of twelve rows of each are for training by the file's split, three are asked.
    assert [point["shots"] for point in result["points"]] == [0, 1, 2, 5, 9]
    assert (result["num_people"], result["num_asked_pairs"], result["round"]) == (6, 18, 2)
    last = result["points"][-1]
    assert last["accuracy"] == 1.0 and last["gain"] == pytest.approx(1.0 - result["reference"])
    assert result["points"][0]["gain"] == 0.0
    by_name = {person["name"]: person for person in result["people"]}
    assert sorted(by_name) == [f"stranger{i}" for i in range(6)]
    assert all(person["accuracies"][-1] == 1.0 for person in by_name.values())


def test_the_table_has_a_line_for_each_number_of_pairs(
    fedpref: Run, train: Callable[..., Path], strangers: Path
) -> None:
    code, out, _ = fedpref("adapt", str(train()), "strangers.jsonl", *ALLOW, "--resamples", "1")
    assert code == 0
    assert "strangers.jsonl: 6 people, 18 pairs held out, model of round 2" in out
    assert [line.split()[0] for line in out.splitlines()[3:8]] == ["0", "1", "2", "5", "9"]
    assert "the model that is not adapted" in out


def test_rows_without_a_split_are_split_by_pair(
    fedpref: Run, train: Callable[..., Path], strangers: Path
) -> None:
    words = ("data.split_column=null", "--held-out", "0.5", "--resamples", "1")
    result = as_json(fedpref, "adapt", str(train()), "strangers.jsonl", *ALLOW, *words)
    # Everybody judged the same twelve pairs: half of the pairs is half of everybody's rows.
    assert result["num_asked_pairs"] == 36 and result["points"][-1]["shots"] == 6


def test_clients_of_the_run_are_no_newcomers(
    fedpref: Run, train: Callable[..., Path], people: Path, folder: Path
) -> None:
    run = train()
    code, _, err = fedpref("adapt", str(run), "people.jsonl", *ALLOW)
    assert code == 2 and "all its people are clients of the run, whom fedpref eval serves" in err
    (folder / "mixed.jsonl").write_text(people.read_text().replace('"p5"', '"stranger"'))
    result = as_json(fedpref, "adapt", str(run), "mixed.jsonl", *ALLOW, "--resamples", "1")
    assert [person["name"] for person in result["people"]] == ["stranger"]
    assert result["k_star"] is None and "gain_low" not in result["points"][0]  # one person has no interval
    assert "Clients of the run, left out: 5 (p0, p1, p2, p3, p4)." in result["notes"]


def test_a_run_without_personal_parts_says_what_to_do(
    fedpref: Run, train: Callable[..., Path], strangers: Path
) -> None:
    code, _, err = fedpref("adapt", str(train("plain")), "strangers.jsonl")
    assert code == 2 and len(err.splitlines()) == 1
    assert "(LinearReward) have no personal part" in err and "fedpref config ls client" in err


def test_the_unseen_people_of_a_run_need_no_file(fedpref: Run, folder: Path) -> None:
    toy = ("client._target_=personal_toy.PersonalToy", *ALLOW)
    tiny = ("data.preset=tiny", "data.form=attributes", "rounds=1")
    assert fedpref("run", *tiny, "data.unseen=3", "name=personal", *toy)[0] == 0
    assert fedpref("run", *tiny, "name=global")[0] == 0
    run, other = (next((folder / "runs" / name).iterdir()) for name in ("personal", "global"))
    kept = json.loads((run / "few_shot.json").read_text())
    again = as_json(fedpref, "adapt", str(run), *ALLOW)
    assert {key: again[key] for key in kept} == kept  # the curve that the run has made itself
    result = as_json(fedpref, "adapt", str(run), "--resamples", "1", *ALLOW)
    assert [point["shots"] for point in result["points"]] == [0, 1, 2, 5, 10, 20, 50, 100]
    assert [person["name"] for person in result["people"]] == [f"unseen-{i:03d}" for i in range(3)]
    beside = as_json(fedpref, "adapt", str(run), "--resamples", "1", "--reference", str(other), *ALLOW)
    assert beside["reference"] != result["reference"]
    for point, same in zip(beside["points"], result["points"], strict=True):
        assert point["accuracy"] == same["accuracy"]
        assert point["gain"] == pytest.approx(point["accuracy"] - beside["reference"])
    assert "unseen people of the run: 3 people" in fedpref("adapt", str(run), "--resamples", "1", *ALLOW)[1]
    code, _, err = fedpref("adapt", str(other))
    assert code == 2 and "no personal part" in err


def test_a_run_without_unseen_people_asks_for_a_file(fedpref: Run, train: Callable[..., Path]) -> None:
    code, _, err = fedpref("adapt", str(train()), *ALLOW)
    assert code == 2 and "no unseen people; give a file" in err


@pytest.mark.parametrize(("option", "value"), [("--held-out", "1"), ("--resamples", "0")])
def test_a_wrong_option_is_named(fedpref: Run, folder: Path, option: str, value: str) -> None:
    code, _, err = fedpref("adapt", "runs/none", "none.jsonl", option, value)
    assert code == 2 and option in err and value in err


# ------------------------------------------------------------------------ eval of known people


def test_known_people_are_evaluated_with_their_own_part_and_newcomers_without(
    fedpref: Run, train: Callable[..., Path], people: Path, folder: Path
) -> None:
    run = train()
    (folder / "mixed.jsonl").write_text(people.read_text().replace('"p5"', '"stranger"'))
    result = as_json(fedpref, "eval", str(run), "mixed.jsonl", *ALLOW)
    by_name = {user["name"]: user for user in result["users"]}
    stranger = by_name.pop("stranger")
    assert all(user["accuracy"] == 1.0 for user in by_name.values())
    assert "shared_accuracy" not in stranger  # it has no part of its own
    assert result["personal_gain"] == pytest.approx(1.0 - result["shared_accuracy"])
    assert "known clients gain" in fedpref("eval", str(run), "mixed.jsonl", *ALLOW)[1]


def test_the_figures_of_a_run_come_back(fedpref: Run, train: Callable[..., Path], folder: Path) -> None:
    run = train()
    rows = [json.loads(line) for line in (folder / "people.jsonl").read_text().splitlines()]
    asked = [json.dumps(row) for row in rows if row["split"] == "test"]
    (folder / "test.jsonl").write_text("\n".join(asked) + "\n")
    result = as_json(fedpref, "eval", str(run), "test.jsonl", *ALLOW)
    summary = json.loads((run / "summary.json").read_text())
    for name in ("pair_accuracy", "loss", "shared_accuracy", "personal_gain", "harmed"):
        assert result[name] == pytest.approx(summary[name], abs=1e-12), name


def test_states_are_those_of_the_checkpoint(fedpref: Run, train: Callable[..., Path], folder: Path) -> None:
    run = train()
    asked = [json.loads(line) for line in (run / "clients.jsonl").read_text().splitlines()]
    accepted = {row["client"] for row in asked if row["code"] == "ok"}
    assert 0 < len(accepted) < 6

    def keeps_something() -> set[int]:
        loaded = load_run(run, ("personal_toy",))
        with clients_states(loaded) as kept:
            return {client for client in range(6) if kept(client).arrays}

    assert keeps_something() == accepted
    # Back to the checkpoint before the last round: what its clients kept since does not count.
    shutil.rmtree(max((run / "checkpoints").iterdir()))
    before = {row["client"] for row in asked if row["code"] == "ok" and row["round"] == 1}
    assert load_run(run, ("personal_toy",)).round == 1 and keeps_something() == before


def test_a_damaged_file_of_states_is_an_error_and_no_matter_to_other_rules(
    fedpref: Run, train: Callable[..., Path], people: Path
) -> None:
    run = train()
    (run / "clients.db").write_bytes(b"no database at all" * 100)
    code, _, err = fedpref("eval", str(run), "people.jsonl", *ALLOW)
    assert code == 4 and "clients.db" in err
    shutil.rmtree(run)
    plain = train("plain")
    (plain / "clients.db").write_bytes(b"no database at all" * 100)
    assert fedpref("eval", str(plain), "people.jsonl")[0] == 0


def test_data_that_has_changed_is_refused(fedpref: Run, train: Callable[..., Path], people: Path) -> None:
    run = train()
    people.write_text(people.read_text().replace('"p5"', '"p9"'))
    loaded = load_run(run, ("personal_toy",))
    with pytest.raises(ValueError, match="knew 5 of its 6 clients; put back"):
        training_shards(loaded, ("personal_toy",))
    code, _, err = fedpref("eval", str(run), "people.jsonl", *ALLOW)
    assert code == 2 and "has changed" in err
