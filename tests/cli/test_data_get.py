"""``fedpref data get``, as far as it goes without a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from fedpref.data.originals import PUBLICATIONS, publications


def test_get_without_a_network_ends_with_the_code_of_storage_and_what_to_do(
    fedpref: Callable[..., tuple[int, str, str]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    away = {name: f"http://127.0.0.1:9/{name}" for name in PUBLICATIONS["llmfao"].files}
    monkeypatch.setattr(
        publications, "PUBLICATIONS", {"llmfao": dataclasses.replace(PUBLICATIONS["llmfao"], files=away)}
    )

    code, _, err = fedpref("data", "get", "llmfao", "--to", "sets")

    assert code == 4
    assert "http://127.0.0.1:9/crowd-comparisons.csv: cannot be reached" in err
    assert "put it at sets/llmfao.originals/crowd-comparisons.csv" in err


def test_get_of_an_unknown_set_names_the_known_ones(
    fedpref: Callable[..., tuple[int, str, str]], folder: Path
) -> None:
    code, _, err = fedpref("data", "get", "polys")

    assert code == 2
    assert "Did you mean 'polis'? Choose one of llmfao, ukpconvarg, mtbench, polis" in err
