"""Texts on disk: the same after a round trip, made anew after damage, never stale."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpref.data.synthetic import Synthetic, SyntheticTruth, default_cache_dir
from fedpref.data.synthetic import population as population_room
from fedpref.errors import StorageError
from fedpref.types import HeldOut, Population, Shard


def small(cache_dir: Path, **given: Any) -> Synthetic:
    defaults = {"preset": "tiny", "num_clients": 3, "test_pairs": 4, "max_pairs": 8, "cache_dir": cache_dir}
    return Synthetic(**{**defaults, **given})


def visible(population: Population) -> list[Any]:
    owners: list[Shard | HeldOut] = [*population.shards, *population.held_out]
    return [(o.name, o.pairs.prompts, o.pairs.chosen, o.pairs.rejected, o.pairs.topics) for o in owners]


def hidden(population: Population) -> list[bytes]:
    assert isinstance(population.truth, SyntheticTruth)
    judgements = (*population.truth.training, *population.truth.held_out)
    return [array.tobytes() for j in judgements for array in (j.p_chosen, j.psi_chosen, j.psi_rejected)]


def entries(cache_dir: Path) -> list[Path]:
    return sorted((cache_dir / "synthetic").iterdir())


def refuse_to_draw(*args: object) -> None:
    raise AssertionError("texts were written although they are cached")


def test_a_cached_population_equals_the_drawn_one_and_is_not_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = small(tmp_path).population(0)
    monkeypatch.setattr(population_room, "_draw_all", refuse_to_draw)
    read = small(tmp_path).population(0)
    assert visible(read) == visible(drawn)
    assert hidden(read) == hidden(drawn)
    assert read.notes == drawn.notes


def test_two_cold_caches_hold_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        small(tmp_path / folder).population(0)
    (a,), (b,) = entries(tmp_path / "a"), entries(tmp_path / "b")
    assert a.name == b.name
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("position", [0, 3, -2])
def test_a_flipped_bit_is_found_and_mended(tmp_path: Path, position: int) -> None:
    drawn = small(tmp_path).population(0)
    (path,) = entries(tmp_path)
    intact = path.read_bytes()
    damaged = bytearray(intact)
    damaged[position] ^= 1
    path.write_bytes(damaged)
    mended = small(tmp_path).population(0)
    assert visible(mended) == visible(drawn)
    assert any("damaged" in note for note in mended.notes)
    assert path.read_bytes() == intact


@pytest.mark.parametrize("keep", [0, 5, 200])
def test_a_truncated_entry_is_found_and_mended(tmp_path: Path, keep: int) -> None:
    drawn = small(tmp_path).population(0)
    (path,) = entries(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    assert visible(small(tmp_path).population(0)) == visible(drawn)


def test_another_seed_parameter_or_generator_has_another_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(tmp_path).population(0)
    small(tmp_path).population(1)
    small(tmp_path, candidates="neg").population(0)
    monkeypatch.setattr(population_room, "generator_version", lambda: "another")
    small(tmp_path).population(0)
    assert len(entries(tmp_path)) == 4


def test_nothing_but_whole_entries_is_left_in_the_cache(tmp_path: Path) -> None:
    small(tmp_path).population(0)
    assert [path.suffix for path in entries(tmp_path)] == [".safetensors"]


def test_vector_forms_write_nothing(tmp_path: Path) -> None:
    small(tmp_path, form="attributes").population(0)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    with pytest.raises(StorageError, match=r"data\.cache_dir"):
        small(in_the_way).population(0)


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDPREF_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("FEDPREF_CACHE")
    assert default_cache_dir() == Path(os.path.expanduser("~/.cache/fedpref"))


def test_text_shards_are_prompted_distinct_and_judged_with_unit_variance(tmp_path: Path) -> None:
    population = small(tmp_path, num_clients=30, test_pairs=40, num_attributes=12, beta=1.0, beta_spread=0.0)
    drawn = population.population(0)
    for shard in drawn.shards:
        assert all(shard.pairs.prompts)
        assert all(c != r for c, r in zip(shard.pairs.chosen, shard.pairs.rejected, strict=True))
    assert isinstance(drawn.truth, SyntheticTruth)
    p = np.concatenate([j.p_chosen for j in drawn.truth.held_out])
    # 1,200 pairs of users with different directions: standard error about sqrt(2 / 1,200) = 0.04.
    assert np.mean(np.log(p / (1.0 - p)) ** 2) == pytest.approx(1.0, abs=0.15)
