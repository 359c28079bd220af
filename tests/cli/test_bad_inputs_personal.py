"""What a personal method cannot do is refused, with the option and a mend, or its fallback is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

DIM, CLIENTS = 6, 16  # of the preset "tiny"
TINY = ("data.preset=tiny", "data.form=attributes", "rounds=2", "name=t")


def refused(fedpref: Run, folder: Path, *words: str) -> str:
    """The one line with which a run is refused, before anything is written."""
    code, _, err = fedpref("run", *TINY, *words)
    assert code == 2 and len(err.splitlines()) == 1, err
    assert not (folder / "runs").exists()
    return err


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("strategy=flute", "client.rank"),
        ("strategy=fedrep", "client.rank"),
        ("client=linear_lora", "client.rank"),
        ("client=p_sharelora", "client.rank"),
        ("client=reward_features", "client.num_features"),
        ("client=lore", "client.num_heads"),
        ("client=pal", "client.latent_dim"),
    ],
)
@pytest.mark.parametrize("value", [DIM + 1, 0])
def test_a_rank_that_the_features_cannot_have(
    fedpref: Run, folder: Path, words: str, option: str, value: int
) -> None:
    err = refused(fedpref, folder, words, f"{option}={value}")
    assert option in err and str(value) in err
    assert f" {DIM}" in err or value == 0  # how much it may be


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("strategy=ifca", "strategy.num_heads"),
        ("client=pal", "client.num_prototypes"),
        ("client=mixture_prior", "client.num_components"),
    ],
)
@pytest.mark.parametrize("value", [CLIENTS + 1, 0])
def test_more_parts_than_clients(fedpref: Run, folder: Path, words: str, option: str, value: int) -> None:
    err = refused(fedpref, folder, words, f"{option}={value}")
    assert option in err and str(value) in err
    assert f"{CLIENTS} clients" in err or value == 0


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("client=personal_ridge", "client.ridge"),
        ("client=reward_features", "client.ridge"),
        ("client=lore", "client.ridge"),
        ("client=p_sharelora client.rank=2", "client.precision"),
        ("client=pal", "client.precision"),
        ("client=mixture_prior", "client.least_variance"),
        ("client=fedrep", "client.l2"),
    ],
)
@pytest.mark.parametrize("value", ["-1", "nan", "much"])
def test_a_penalty_that_is_none(fedpref: Run, folder: Path, words: str, option: str, value: str) -> None:
    err = refused(fedpref, folder, *words.split(), f"{option}={value}")
    assert option in err and value in err


@pytest.mark.parametrize("value", ["-1", "1.5", "many"])
def test_a_number_of_unseen_people_that_is_none(fedpref: Run, folder: Path, value: str) -> None:
    err = refused(fedpref, folder, "client=personal_ridge", f"data.unseen={value}")
    assert "data.unseen" in err and value in err


def test_files_have_no_unseen_people_to_draw(fedpref: Run, folder: Path, people: Path) -> None:
    code, _, err = fedpref("run", "data=jsonl", "data.path=people.jsonl", "data.unseen=3")
    assert code == 2 and "unknown option 'data.unseen'" in err and len(err.splitlines()) == 1


def test_as_many_parts_as_the_population_allows_do_run(fedpref: Run, folder: Path) -> None:
    for words in (
        ("client=pal", f"client.num_prototypes={CLIENTS}", f"client.latent_dim={DIM}"),
        ("client=mixture_prior", f"client.num_components={CLIENTS}"),
        ("client=reward_features", f"client.num_features={DIM}"),
    ):
        assert fedpref("run", *TINY, *words)[0] == 0


# --------------------------------------------------------------- people who were never clients


@pytest.fixture
def trained(fedpref: Run, people: Path, folder: Path) -> str:
    """A run of ``personal_ridge`` on six people."""
    words = ("data=jsonl", "data.path=people.jsonl", "client=personal_ridge", "rounds=2", "name=t")
    assert fedpref("run", *words)[0] == 0
    return str(next((folder / "runs" / "t").iterdir()))


def test_people_whom_the_run_never_saw_get_the_shared_model_and_that_is_said(
    fedpref: Run, trained: str, people: Path, folder: Path
) -> None:
    text = people.read_text().replace('"annotator": "p5"', '"annotator": "stranger"')
    (folder / "mixed.jsonl").write_text(text)
    code, out, _ = fedpref("eval", trained, "mixed.jsonl", "--format", "json")
    assert code == 0
    result = json.loads(out)
    (note,) = (note for note in result["notes"] if note.startswith("Newcomers, 1, have shown no pairs"))
    assert "population's prior" in note and "fedpref adapt" in note
    code, out, _ = fedpref("eval", trained, "people.jsonl")
    assert code == 0 and "have shown no pairs" not in out


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        ("", ["new.jsonl", "no rows"]),
        ('{"question": "Why?", "good": "so", "bad": "no"}\n', ["new.jsonl", "chosen"]),
        ("not JSON\n", ["new.jsonl", "line 1"]),
    ],
)
def test_adapting_to_a_file_without_preference_rows(
    fedpref: Run, trained: str, folder: Path, content: str, messages: list[str]
) -> None:
    (folder / "new.jsonl").write_text(content)
    code, _, err = fedpref("adapt", trained, "new.jsonl")
    assert code == 2 and len(err.splitlines()) == 1, err
    assert all(message in err for message in messages), err


def test_adapting_by_columns_that_are_not_there(fedpref: Run, trained: str, people: Path) -> None:
    code, _, err = fedpref("adapt", trained, "people.jsonl", "data.client_column=worker")
    assert code == 2 and "client_column" in err and "worker" in err
    code, _, err = fedpref("adapt", trained, "people.jsonl", "data.colum=worker")
    assert code == 2 and "data.colum" in err


def test_adapting_to_nobody_names_the_way_out(fedpref: Run, trained: str) -> None:
    code, _, err = fedpref("adapt", trained)
    assert code == 2 and "no unseen people" in err and "data.unseen=30" in err
    code, _, err = fedpref("adapt", trained, "nothing.jsonl")
    assert code == 2 and "nothing.jsonl" in err
