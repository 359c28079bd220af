"""What may be searched, as words and as lines of a file."""

import math
from pathlib import Path

import pytest

from fedpref.cli.space import Choice, Range, check_keys, overrides, read_space, split_words
from fedpref.errors import ConfigurationError


def test_words_of_three_forms_are_searched_and_all_others_are_of_every_run() -> None:
    space, rest = split_words(
        ["experiment=demo", "strategy=choice(fedavg, fedprox)", "a.b=loguniform(1e-3, 10)", "c=uniform(-1,1)"]
    )
    assert space == [
        Choice("strategy", ("fedavg", "fedprox")),
        Range("a.b", 0.001, 10.0, True),
        Range("c", -1.0, 1.0, False),
    ]
    assert rest == ["experiment=demo"]


def test_values_of_a_choice_are_words_of_the_command_line() -> None:
    (choice,), _ = split_words(["x=choice(null, 1e-3, 'a,b', [1,2], true, 1e-3)"])
    assert choice.samples == ("null", "0.001", "'a,b'", "[1,2]", "True")
    assert overrides({"x": "'a,b'"}) == ["x='a,b'"]


def test_a_dimension_reads_itself_back() -> None:
    space, _ = split_words(["a=choice(null,'x y')", "b=loguniform(1e-05,1)", "c=uniform(0,3)"])
    assert split_words([str(dimension) for dimension in space])[0] == space


def test_numbers_are_typed_so_that_they_read_back_the_same() -> None:
    for value in (1e-07, 0.1234, 12350.0, 3.0, 1e22):
        (word,) = overrides({"x": value})
        assert float(word.removeprefix("x=")) == value


def test_rounding_keeps_four_digits_and_stays_between_the_ends() -> None:
    between = Range("x", 0.12344, 0.19994, False)
    assert between.rounded(0.156789) == 0.1568
    assert between.rounded(0.199938) == 0.1999
    assert between.rounded(0.123445) == 0.12344  # 0.1234 lies below
    assert Range("x", 1e-4, 1.0, True).samples == (1e-4, 0.01, 1.0)
    assert Range("x", 1.0, 3.0, False).samples == (1.0, 2.0, 3.0)


def test_a_file_holds_the_same_forms(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("client.lr: loguniform(0.01, 1)  # steps\nstrategy: choice(fedavg,fedprox)\n")
    assert (
        read_space(file)
        == split_words(["client.lr=loguniform(0.01,1)", "strategy=choice(fedavg,fedprox)"])[0]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold lines"),
        ("- a\n", "must hold lines"),
        ("client.lr: 0.1\n", "client.lr: 0.1 must be choice"),
        ("client.lr: [0.1, 1]\n", "must be choice"),
        ("client.lr: 0.1,1\n", "must be choice"),
        ("a: [1\n", "is not YAML"),
        ("a: loguniform(0,1)\n", "above 0"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message) as refused:
        read_space(file)
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml cannot be read"):
        read_space(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "word",
    [
        *("x=uniform(1)", "x=uniform(1,2,3)", "x=uniform(a,b)", "x=uniform(2,1)", "x=uniform(1,1)"),
        *("x=uniform(0,inf)", "x=uniform(nan,1)", "x=loguniform(0,1)", "x=loguniform(-1,1)"),
        *("x=choice()", "x=choice(1)", "x=choice(1,1)", "x=choice([1,2)"),
    ],
)
def test_a_wrong_range_or_choice_is_refused_with_its_word(word: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        split_words([word])
    assert f"'{word}'" in str(refused.value)


@pytest.mark.parametrize("word", ["x=1,2", "x=range(1,4)", "x=interval(0,1)", "x=tag(log,choice(1,2))"])
def test_several_values_in_another_form_are_refused_with_the_right_ones(word: str) -> None:
    with pytest.raises(ConfigurationError, match=r"write choice\(a,b,…\)"):
        split_words([word])


@pytest.mark.parametrize(
    "key", ["data.path", "data", "partition", "seed", "split.held_out_fraction", "experiment"]
)
def test_what_decides_who_is_asked_what_is_not_searched(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{key} cannot be searched"):
        check_keys([Choice(key, ("1", "2"))], [])


def test_one_option_is_not_given_twice() -> None:
    lr = Range("client.lr", 0.0, math.pi, False)
    for space, words in (([lr, lr], []), ([lr], ["rounds=1", "client.lr=1"]), ([lr], ["++client.lr=1"])):
        with pytest.raises(ConfigurationError, match=r"client\.lr is given twice"):
            check_keys(space, words)
    check_keys([lr], ["client.lr_decay=1"])


def test_a_search_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nothing to search"):
        check_keys([], ["rounds=1"])
