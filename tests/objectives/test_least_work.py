from __future__ import annotations

import itertools

import pytest

from fedpref.objectives.batches import batches, epochs_and_rest
from fedpref.objectives.least_work import LeastWork, least_work
from fedpref.seeds import generator


@pytest.mark.parametrize("batch_pairs", [None, 1, 2, 3, 7, 8, 100])
def test_epochs_and_rest_hold_the_pairs_that_batches_draw(batch_pairs: int | None) -> None:
    for num_pairs, steps in itertools.product((1, 2, 7, 8, 9), range(12)):
        drawn = sum(map(len, batches(num_pairs, batch_pairs, steps, generator(0, "task"))))
        epochs, rest = epochs_and_rest(num_pairs, batch_pairs, steps)
        assert epochs * num_pairs + rest == drawn
        assert 0 <= rest < num_pairs


def test_whole_epochs_count_all_pairs_and_the_last_one_the_cheapest() -> None:
    texts = [("a", "bbb"), ("c", "d"), ("ee", "ff")]
    least = least_work(texts, {text: 10 * len(text) for both in texts for text in both})
    assert least.cheapest == [0, 20, 60, 100]
    assert [least.flops(1, steps) for steps in range(5)] == [0, 20, 60, 100, 120]
    assert least.flops(None, 3) == 300


def test_a_text_that_pairs_share_is_owed_once() -> None:
    texts = [("same", "x"), ("same", "y"), ("same", "z")]
    least = least_work(texts, {"same": 30, "x": 1, "y": 1, "z": 1})
    assert least.epoch == 33 and least.cheapest[1] == 11


def test_no_draw_takes_less_than_the_least() -> None:
    rng = generator(0, "texts")
    texts = [(str(a), str(b)) for a, b in rng.integers(100, size=(11, 2))]
    flops = {text: int(text) + 1 for both in texts for text in both}
    least = least_work(texts, flops)
    for steps, seed in itertools.product(range(9), range(20)):
        done = 0
        for rows in batches(len(texts), 3, steps, generator(seed, "task")):
            done += sum(flops[text] for text in {text for row in rows for text in texts[row]})
        assert least.flops(3, steps) <= done


def test_a_batch_of_everything_counts_as_it_is_told() -> None:
    assert LeastWork(50, [0, 10, 20]).flops(None, 3) == 150
    assert least_work([("a", "b")], {"a": 1, "b": 1}, whole=7).flops(None, 2) == 14
