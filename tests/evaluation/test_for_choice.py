"""What options are chosen on is nobody's training pair, and no test pair."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpref.data.assembly import pool
from fedpref.data.assembly import population as assembled
from fedpref.data.formats import TextPair
from fedpref.data.partition import Natural
from fedpref.data.rows import text_pair_id
from fedpref.data.sources import PreferenceFile
from fedpref.data.split import PairSplit
from fedpref.data.synthetic import Synthetic
from fedpref.errors import ConfigurationError
from fedpref.evaluation.validation import for_choice
from fedpref.types import HeldOut, Pairs, Population, Shard

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
Judged = Sequence[tuple[str, str, str]]  # pair id, chosen, rejected


def shard(client: int, judged: Judged, name: str | None = None) -> Shard:
    ids, chosen, rejected = zip(*judged, strict=True)
    size = len(judged)
    return Shard(client, name or f"p{client}", Pairs(("q",) * size, chosen, rejected, ids, ("",) * size))


def own_pairs(client: int, size: int) -> list[tuple[str, str, str]]:
    return [(f"{client}/{i}", f"good {client} {i}", f"bad {client} {i}") for i in range(size)]


def of_sizes(*sizes: int) -> Population:
    return Population([shard(client, own_pairs(client, size)) for client, size in enumerate(sizes)], [])


def rows(pairs: Pairs) -> Counter[tuple[str, ...]]:
    columns = (pairs.prompts, pairs.chosen, pairs.rejected, pairs.pair_ids, pairs.topics)
    return Counter(zip(*columns, strict=True))


def contents(pairs: Pairs) -> set[object]:
    sides = zip(pairs.prompts, pairs.chosen, pairs.rejected, strict=True)
    if pairs.is_text:
        return {text_pair_id(TextPair(*texts, form="")) for texts in sides}
    return {(prompt, *sorted((a.tobytes(), b.tobytes()))) for prompt, a, b in sides}


def assert_nothing_leaks(chosen_on: Population) -> None:
    train = [shard.pairs for shard in chosen_on.shards]
    asked = [held_out.pairs for held_out in chosen_on.held_out]
    for of in (contents, lambda pairs: set(pairs.pair_ids)):
        assert not set().union(*map(of, train)) & set().union(*map(of, asked))


def test_a_quarter_of_everybodys_own_pairs_is_asked_and_the_rest_is_trained_on() -> None:
    chosen_on = for_choice(of_sizes(8, 20, 100), seed=0)
    assert [len(held_out.pairs) for held_out in chosen_on.held_out] == [2, 5, 25]
    assert [len(shard.pairs) for shard in chosen_on.shards] == [6, 15, 75]
    assert [(h.name, h.client_id) for h in chosen_on.held_out] == [("p0", 0), ("p1", 1), ("p2", 2)]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 10])
def test_the_share_is_rounded_and_one_training_pair_stays(size: int, share: float) -> None:
    chosen_on = for_choice(of_sizes(size, 40), seed=1, share=share)
    asked = {held_out.client_id: len(held_out.pairs) for held_out in chosen_on.held_out}
    assert abs(asked.get(0, 0) - share * size) <= 0.5 or asked.get(0, 0) == size - 1
    assert len(chosen_on.shards[0].pairs) == size - asked.get(0, 0) >= 1
    assert asked[1] == round(share * 40)


def test_who_has_too_few_pairs_is_left_whole_and_not_asked() -> None:
    before = of_sizes(1, 8)
    chosen_on = for_choice(before, seed=0)
    assert rows(chosen_on.shards[0].pairs) == rows(before.shards[0].pairs)
    assert [held_out.name for held_out in chosen_on.held_out] == ["p1"]


def test_a_pair_that_all_judged_is_asked_of_all_or_of_nobody() -> None:
    common = [(str(i), f"a{i}", f"b{i}") for i in range(8)]
    swapped = [(pair_id, b, a) for pair_id, a, b in common]
    chosen_on = for_choice(Population([shard(0, common), shard(1, swapped)], []), seed=0)
    first, second = (set(held_out.pairs.pair_ids) for held_out in chosen_on.held_out)
    assert first == second and len(first) == 2
    assert_nothing_leaks(chosen_on)


def test_swapped_copies_of_one_person_stay_together() -> None:
    both = [row for i in range(8) for row in ((str(i), f"a{i}", f"b{i}"), (str(i), f"b{i}", f"a{i}"))]
    chosen_on = for_choice(Population([shard(0, both)], []), seed=0)
    assert Counter(Counter(chosen_on.held_out[0].pairs.pair_ids).values()) == {2: 2}
    assert_nothing_leaks(chosen_on)


def test_equal_texts_under_other_ids_stay_together_along_chains() -> None:
    # a and b share texts, b and c an id: whoever is asked one is asked all three.
    chain = [("a", "x", "y"), ("b", "y", "x"), ("b", "u", "v")]
    people = [shard(k, [chain[k], *own_pairs(k, 7)]) for k in range(3)]
    for seed in range(20):
        chosen_on = for_choice(Population(people, []), seed=seed)
        assert_nothing_leaks(chosen_on)
        asked = [bool({"a", "b"} & set(h.pairs.pair_ids)) for h in chosen_on.held_out]
        assert len(set(asked)) == 1


def test_a_pair_of_somebody_who_has_no_other_is_not_asked_of_others() -> None:
    lonely = Population([shard(0, [("0", "a", "b")]), shard(1, [("0", "a", "b"), *own_pairs(1, 7)])], [])
    for seed in range(20):
        assert "0" not in for_choice(lonely, seed=seed).held_out[0].pairs.pair_ids


@st.composite
def crowds(draw: st.DrawFn) -> Population:
    """People who judged pairs of a small common pool, in either order, perhaps twice or under other ids."""
    judged = st.tuples(st.integers(0, 9), st.booleans(), st.sampled_from("ab"))
    people = []
    for client, own in enumerate(draw(st.lists(st.lists(judged, min_size=1, max_size=12), min_size=1))):
        rows_of_one = []
        for i, is_forth, suffix in own:
            first, second = (f"x{i}", f"y{i}") if is_forth else (f"y{i}", f"x{i}")
            rows_of_one.append((f"{i}{suffix}" if i < 3 else f"{i}", first, second))
        people.append(shard(client, rows_of_one))
    return Population(people, [])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(crowds(), st.integers(0, 5), st.sampled_from([0.1, 0.25, 0.6]))
def test_of_any_crowd_all_pairs_are_kept_none_leaks_and_nobody_gives_more_than_the_share(
    before: Population, seed: int, share: float
) -> None:
    try:
        chosen_on = for_choice(before, seed=seed, share=share)
    except ConfigurationError as error:
        assert "can be held out" in str(error)
        return
    asked = {held_out.client_id: held_out.pairs for held_out in chosen_on.held_out}
    assert_nothing_leaks(chosen_on)
    for old, new in zip(before.shards, chosen_on.shards, strict=True):
        given_away = rows(asked[old.client_id]) if old.client_id in asked else Counter()
        assert rows(new.pairs) + given_away == rows(old.pairs)
        assert (old.name, old.client_id) == (new.name, new.client_id)
        assert len(new.pairs) >= 1
        assert sum(given_away.values()) <= share * len(old.pairs) + 0.5


def test_equal_seeds_draw_alike_and_others_do_not() -> None:
    def asked(seed: int) -> list[Counter[tuple[str, ...]]]:
        return [rows(held_out.pairs) for held_out in for_choice(of_sizes(40, 40), seed=seed).held_out]

    assert asked(3) == asked(3) != asked(4)


def test_the_order_of_clients_and_of_their_pairs_changes_nothing() -> None:
    sizes = (9, 30, 16)
    people = {f"p{client}": own_pairs(client, size) for client, size in enumerate(sizes)}
    forth = Population([shard(i, own, name) for i, (name, own) in enumerate(people.items())], [])
    turned = reversed(people.items())
    back = Population([shard(i, own[::-1], name) for i, (name, own) in enumerate(turned)], [])
    first, second = (
        {held_out.name: rows(held_out.pairs) for held_out in for_choice(p, seed=5).held_out}
        for p in (forth, back)
    )
    assert first == second


def test_test_pairs_newcomers_and_truth_are_left_out_of_a_synthetic_population() -> None:
    before = Synthetic(preset="tiny", form="attributes", unseen=3).population(0)
    assert before.truth is not None and any(held_out.shots is not None for held_out in before.held_out)
    chosen_on = for_choice(before, seed=0)
    test_ids = {pair_id for held_out in before.held_out for pair_id in held_out.pairs.pair_ids}
    train_ids = {pair_id for shard in before.shards for pair_id in shard.pairs.pair_ids}
    asked_ids = {pair_id for held_out in chosen_on.held_out for pair_id in held_out.pairs.pair_ids}
    assert asked_ids <= train_ids and not asked_ids & test_ids
    assert chosen_on.truth is None
    assert all(h.client_id is not None and h.shots is None for h in chosen_on.held_out)
    assert_nothing_leaks(chosen_on)


def test_feature_vectors_are_recognised_in_both_orders_under_other_ids() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 8, 3)).astype(np.float32)
    ids = [tuple(f"{client}/{i}" for i in range(8)) for client in range(2)]
    blank = ("",) * 8
    people = [
        Shard(0, "p0", Pairs(blank, a, b, ids[0], blank)),
        Shard(1, "p1", Pairs(blank, b, a, ids[1], blank)),
    ]
    chosen_on = for_choice(Population(people, []), seed=0)
    assert [len(held_out.pairs) for held_out in chosen_on.held_out] == [2, 2]
    assert_nothing_leaks(chosen_on)


def test_what_is_pooled_afterwards_asks_everybody_the_same() -> None:
    chosen_on = for_choice(of_sizes(8, 12), seed=0)
    pooled = pool(chosen_on)
    assert len(pooled) == 1
    assert [(h.name, h.client_id) for h in pooled.held_out] == [("p0", 0), ("p1", 0)]
    assert_nothing_leaks(pooled)


def test_notes_say_what_was_held_out_after_the_notes_of_the_data() -> None:
    before = Population(
        of_sizes(8, 1).shards, [HeldOut("p0", 0, of_sizes(3).shards[0].pairs)], notes=("one",)
    )
    first, second = for_choice(before, seed=0).notes
    assert first == "one"
    assert "2 of 9 training pairs are held out, of 1 of 2 clients" in second


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, float("nan")])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigurationError, match="share="):
        for_choice(of_sizes(8), seed=0, share=share)


def test_a_population_that_can_spare_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no pair of 3 clients can be held out"):
        for_choice(of_sizes(1, 1, 1), seed=0)


@pytest.mark.parametrize("name", ["llmfao", "mtbench"])
def test_of_real_annotators_nearly_a_quarter_is_asked_of_nearly_all(name: str) -> None:
    file = REAL / f"{name}.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"{file.name} is not here")
    before = assembled(PreferenceFile(path=str(file)).rows(), Natural(), PairSplit(), 0)
    chosen_on = for_choice(before, seed=0)
    assert_nothing_leaks(chosen_on)
    sizes = [sum(len(each.pairs) for each in side) for side in (before.shards, chosen_on.held_out)]
    assert 0.23 < sizes[1] / sizes[0] < 0.26
    assert len(chosen_on.held_out) > 0.8 * len(before)
