"""What the figures on real annotators are made of, on rows made by hand."""

from __future__ import annotations

import pytest

from fedpref.benchmarks.personal_annotators import METHODS, SETS, Run, populations, table
from fedpref.data.rows import Rows
from fedpref.types import Population


def judgements(num_pairs: int = 40, num_people: int = 4) -> Rows:
    """Every person judges every pair; the source holds out the first quarter of them."""
    both = [(pair, person) for pair in range(num_pairs) for person in range(num_people)]
    return Rows(
        prompts=("",) * len(both),
        chosen=tuple(f"good {pair}" for pair, _ in both),
        rejected=tuple(f"bad {pair}" for pair, _ in both),
        clients=tuple(f"person {person}" for _, person in both),
        topics=("",) * len(both),
        splits=tuple("test" if 4 * pair < num_pairs else "train" for pair, _ in both),
        pair_ids=tuple(f"pair {pair}" for pair, _ in both),
    )


def sides(people: Population) -> tuple[set[str], set[str]]:
    trained = {pair for shard in people.shards for pair in shard.pairs.pair_ids}
    return trained, {pair for person in people.held_out for pair in person.pairs.pair_ids}


@pytest.mark.parametrize("split", [0, 1, 2])
def test_no_pair_is_on_two_sides_of_a_split_or_of_the_choice_of_options(split: int) -> None:
    people, for_choice = populations(judgements(), "llmfao", split)
    trained, asked = sides(people)
    chosen_on, chosen_by = sides(for_choice)
    assert not trained & asked
    assert not chosen_on & chosen_by
    assert chosen_on | chosen_by == trained


def test_split_zero_is_that_of_the_data_and_others_hold_out_their_share() -> None:
    rows = judgements()
    given, drawn = (len(sides(populations(rows, "llmfao", split)[0])[1]) for split in (0, 1))
    assert given == 10
    assert drawn == round(SETS["llmfao"].held_out_fraction * 40)


def test_all_methods_choose_among_equally_many_settings() -> None:
    assert len({len(method.settings) for method in METHODS.values()}) == 1


def test_a_line_of_the_table_holds_what_was_chosen_and_the_gain_over_fedavg() -> None:
    runs = [
        Run("llmfao", 0, "fedavg", {"l2": 0.01}, [0.5, 0.6], {"a": "2222200000"}, 0.1),
        Run("llmfao", 0, "personal_ridge", {"ridge": 2.0}, [0.7, 0.6], {"a": "2222222000"}, 0.1),
    ]
    line = table(runs).splitlines()[-1]
    assert line.startswith("| personal_ridge | 1 | 0.7000 | +0.2000 ")
    assert line.endswith("| 2 |")
