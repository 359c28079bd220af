"""Originals that nobody has vouched for are not converted, and accepted ones must not change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fedpref.data import PreferenceFile
from fedpref.data.originals import PUBLICATIONS, default_folder, get, publications, set_path
from fedpref.data.originals.get import checksums
from fedpref.data.originals.rows import Figures
from fedpref.errors import ConfigurationError, StorageError

UNREACHABLE = "http://127.0.0.1:9/originals"  # the discard port: refused at once
FILES = ("crowd-comparisons.csv", "pairs-crowd.jsonl")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """llmfao of eight pairs, whose host is out of reach; the cache in a folder of its own."""
    publication = dataclasses.replace(
        PUBLICATIONS["llmfao"],
        files={name: f"{UNREACHABLE}/{name}" for name in FILES},
        at_least=Figures(rows=8, annotators=1, text_pairs=8, domains=1),
    )
    monkeypatch.setattr(publications, "PUBLICATIONS", {**PUBLICATIONS, "llmfao": publication})
    monkeypatch.setenv("FEDPREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def put_originals(folder: Path, num_pairs: int = 8) -> Path:
    originals = folder / "llmfao.originals"
    originals.mkdir(parents=True, exist_ok=True)
    pairs = [
        {"id": i, "text": "Joke?", "slug": "jokes", "result_x": f"x{i}", "result_y": f"y{i}"}
        for i in range(num_pairs)
    ]
    votes = [f"{i},w,A,B,left\n" for i in range(num_pairs)]
    (originals / FILES[0]).write_text("id,worker,left,right,winner\n" + "".join(votes), encoding="utf-8")
    (originals / FILES[1]).write_text("".join(json.dumps(one) + "\n" for one in pairs), encoding="utf-8")
    return originals


def asked_for(run: Callable[[], object]) -> str:
    """The checksum that the refusal names."""
    with pytest.raises(ConfigurationError, match="SHA-256 of these files is not known") as refusal:
        run()
    found = re.search(r"--accept ([0-9a-f]{64})", str(refusal.value))
    assert found
    return found[1]


def test_without_a_network_the_error_names_the_address_and_the_place_to_put_the_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as refusal:
        get("llmfao", tmp_path)

    originals = tmp_path / "llmfao.originals"
    assert f"{UNREACHABLE}/{FILES[0]}: cannot be reached" in str(refusal.value)
    assert f"fetch it by other means and put it at {originals / FILES[0]}" in str(refusal.value)
    assert f"`fedpref data get llmfao --to {tmp_path}`" in str(refusal.value)
    assert f"{FILES[1]}  {UNREACHABLE}/{FILES[1]}" in (originals / "ADDRESSES").read_text(encoding="utf-8")
    assert not (tmp_path / "llmfao.jsonl.gz").exists()


def test_files_put_there_by_hand_are_converted_once_their_checksum_is_accepted(tmp_path: Path) -> None:
    put_originals(tmp_path)
    said: list[str] = []

    digest = asked_for(lambda: get("llmfao", tmp_path))
    assert not (tmp_path / "llmfao.jsonl.gz").exists()
    path = get("llmfao", tmp_path, digest, said.append)

    assert len(PreferenceFile(str(path)).rows()) == 8
    assert said == [f"{path}: 8 rows of 1 people, 8 pairs"]
    attribution = (tmp_path / "llmfao.ATTRIBUTION.md").read_text(encoding="utf-8")
    for part in ("CC BY 4.0", "D. Ustalov", hashlib.sha256(path.read_bytes()).hexdigest(), digest):
        assert part in attribution


def test_another_checksum_than_that_of_the_files_is_refused(tmp_path: Path) -> None:
    put_originals(tmp_path)

    with pytest.raises(ConfigurationError, match="--accept 0000: the files in"):
        get("llmfao", tmp_path, "0000")


def test_accepted_files_that_changed_are_refused_by_name_even_if_accepted_anew(tmp_path: Path) -> None:
    originals = put_originals(tmp_path)
    path = get("llmfao", tmp_path, asked_for(lambda: get("llmfao", tmp_path)))
    path.unlink()
    with (originals / FILES[0]).open("a", encoding="utf-8") as file:
        file.write("0,other,A,B,right\n")

    for accept in (None, hashlib.sha256(checksums(originals, FILES).encode()).hexdigest()):
        with pytest.raises(StorageError, match=rf"not what was accepted: {FILES[0]}; remove that file"):
            get("llmfao", tmp_path, accept)
    assert not path.exists()


def test_converting_again_gives_the_same_bytes_and_asks_no_more(tmp_path: Path) -> None:
    put_originals(tmp_path)
    path = get("llmfao", tmp_path, asked_for(lambda: get("llmfao", tmp_path)))
    before = path.read_bytes()
    path.unlink()

    assert get("llmfao", tmp_path).read_bytes() == before


def test_a_pinned_checksum_needs_no_consent_and_refuses_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals = put_originals(tmp_path)
    digest = hashlib.sha256(checksums(originals, FILES).encode()).hexdigest()
    publication = dataclasses.replace(publications.PUBLICATIONS["llmfao"], digest=digest)
    monkeypatch.setattr(publications, "PUBLICATIONS", {"llmfao": publication})
    put_originals(tmp_path / "damaged", num_pairs=9)

    assert get("llmfao", tmp_path).exists()
    with pytest.raises(StorageError, match=f"not {digest}; remove the folder"):
        get("llmfao", tmp_path / "damaged")


def test_fewer_rows_than_a_selection_of_the_same_originals_has_are_refused(tmp_path: Path) -> None:
    put_originals(tmp_path, num_pairs=5)
    digest = asked_for(lambda: get("llmfao", tmp_path))

    with pytest.raises(ConfigurationError, match=r"5 rows, at least 8 expected; 5 text_pairs"):
        get("llmfao", tmp_path, digest)
    assert not (tmp_path / "llmfao.jsonl.gz").exists()


def test_files_of_another_layout_are_named(tmp_path: Path) -> None:
    originals = put_originals(tmp_path)
    (originals / FILES[1]).write_text("<html>\n", encoding="utf-8")
    digest = asked_for(lambda: get("llmfao", tmp_path))

    with pytest.raises(ConfigurationError, match=r"line 1: no JSON.*not those of the pinned revision"):
        get("llmfao", tmp_path, digest)


def test_files_accepted_in_error_can_be_replaced(tmp_path: Path) -> None:
    originals = put_originals(tmp_path)
    (originals / FILES[1]).write_text("<html>\n", encoding="utf-8")
    digest = asked_for(lambda: get("llmfao", tmp_path))
    with pytest.raises(ConfigurationError, match="no JSON"):
        get("llmfao", tmp_path, digest)

    put_originals(tmp_path)

    assert get("llmfao", tmp_path, asked_for(lambda: get("llmfao", tmp_path))).exists()


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "llmfao.jsonl.gz").write_bytes(b"")
    said: list[str] = []

    assert get("llmfao", tmp_path, say=said.append) == tmp_path / "llmfao.jsonl.gz"
    assert said[0].startswith("there already")


def test_a_set_is_found_where_it_was_given_else_where_get_puts_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"run `fedpref data get llmfao`"):
        set_path("llmfao")
    put_originals(default_folder())
    digest = asked_for(lambda: get("llmfao"))

    fetched = get("llmfao", accept=digest)

    assert fetched.parent == tmp_path / "cache" / "sets"
    assert set_path("llmfao") == set_path("llmfao", fetched.parent) == set_path("llmfao", fetched) == fetched
    with pytest.raises(ConfigurationError, match=r"no file .*llmfao\.jsonl\.gz"):
        set_path("llmfao", tmp_path)
    with pytest.raises(ConfigurationError, match="Did you mean 'llmfao'"):
        set_path("llmfoa")


def test_the_kept_checksums_are_those_that_sha256sum_reads(tmp_path: Path) -> None:
    originals = put_originals(tmp_path)
    get("llmfao", tmp_path, asked_for(lambda: get("llmfao", tmp_path)))

    try:
        done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=originals, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no sha256sum here")
    assert done.returncode == 0, done.stderr.decode()


def test_every_address_is_public_and_pinned_and_every_set_says_whose_it_is() -> None:
    for publication in PUBLICATIONS.values():
        for name, url in publication.files.items():
            assert re.match(r"https://(github\.com|huggingface\.co)/.*/[0-9a-f]{8,40}/", url)
            assert url.endswith(name.rpartition("/")[2])
        assert "CC BY 4.0" in publication.licence and publication.citation and publication.origin
