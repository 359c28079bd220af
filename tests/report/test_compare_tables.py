"""A comparison for a terminal, for Markdown and for LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from fedpref.report.compare import FORMATS, as_markdown, as_table, as_tex

NASTY = r"a|b_c*d & 50% of $x$ #1 {y} [z](w) \e <f> ~g^h `i`" + "\n\x1b[31m--"


def cell(mean: float, difference: float | None = None, is_best: bool = False, **rest: Any) -> dict[str, Any]:
    """A cell whose intervals are 0.1 wide on either side."""

    def around(value: float) -> dict[str, Any]:
        return {"mean": value, "low": value - 0.1, "high": value + 0.1, "by_seed": [value - 0.2, value + 0.2]}

    told = None if difference is None else around(difference)
    return {**around(mean), "difference": told, "over": "people", "is_best": is_best, **rest}


def sent(num_bytes: float, low: float, high: float) -> dict[str, Any]:
    figures = {"mean": num_bytes, "low": low, "high": high, "by_seed": [low, high]}
    return {**figures, "difference": None, "over": "seeds", "is_best": False}


def comparison(*rows: tuple[str, Mapping[str, Any]], notes: Sequence[str] = ()) -> dict[str, Any]:
    told = [{"name": name, "metrics": metrics} for name, metrics in rows]
    return {"base": rows[0][0], "seeds": [3, 5], "num_people": 7, "rows": told, "notes": list(notes)}


TWO = comparison(
    ("base", {"user_accuracy": cell(0.5), "bytes_up": sent(2e6, 1e6, 3e6)}),
    ("mine", {"user_accuracy": cell(0.75, 0.25, is_best=True), "bytes_up": sent(3e6, 3e6, 3e6)}),
    notes=["Only 2 seeds."],
)


def test_a_table_shows_values_intervals_and_signed_differences() -> None:
    heading, base, mine, empty, *notes = as_table(TWO, ["user_accuracy"]).splitlines()
    assert heading.split("  ") and re.split(r" {2,}", heading.strip()) == [
        "user accuracy",
        "difference",
        "up",
    ]
    assert re.split(r" {2,}", base) == ["base", "0.500 [0.400, 0.600]", "-", "2.00 MB"]
    assert re.split(r" {2,}", mine) == ["mine", "0.750 [0.650, 0.850]*", "+0.250 [+0.150, +0.350]", "3.00 MB"]
    assert empty == ""
    assert "7 people, seeds 3, 5." in notes[0] and "Differences are to base" in notes[0]
    assert notes[1].startswith("A star: ahead of each other row")
    assert notes[2] == "Only 2 seeds."


def test_columns_are_aligned() -> None:
    lines = as_table(TWO, ["user_accuracy"], by_seed=True).split("\n\n")[0].splitlines()
    starts = [[match.start() for match in re.finditer(r"(?<=  )\S", line)] for line in lines]
    assert starts[0] == starts[1] == starts[4]


def test_by_seed_adds_a_line_a_seed_below_each_row() -> None:
    lines = as_table(TWO, ["user_accuracy"], by_seed=True).splitlines()
    assert [line.split()[0] for line in lines[1:7]] == ["base", "seed", "seed", "mine", "seed", "seed"]
    assert re.split(r" {2,}", lines[5].strip()) == ["seed 3", "0.550", "+0.050", "3.00 MB"]


def test_a_range_that_shows_as_one_number_is_one_number() -> None:
    lines = as_table(TWO, ["bytes_up"]).splitlines()
    assert "2.00 MB [1.00 MB, 3.00 MB]" in lines[1]
    assert "3.00 MB" in lines[2] and "[" not in lines[2]


def test_a_row_alone_has_no_differences() -> None:
    alone = comparison(("base", {"user_accuracy": cell(0.5)}))
    for shown in FORMATS.values():
        assert "ifference" not in shown(alone, ["user_accuracy"], True)


@pytest.mark.parametrize("bold", ["**0.750 [0.650, 0.850]**", r"\textbf{0.750 [0.650, 0.850]}"])
def test_nothing_but_the_best_is_bold(bold: str) -> None:
    text = as_markdown(TWO, ["user_accuracy"]) + as_tex(TWO, ["user_accuracy"])
    assert text.count(bold) == 1
    assert text.count("**") == 2 and text.count(r"\textbf") == 1


def test_without_a_best_nothing_is_said_of_marks() -> None:
    tie = comparison(("a", {"user_accuracy": cell(0.5)}), ("b", {"user_accuracy": cell(0.5, 0.0)}))
    shown = [format_(tie, ["user_accuracy"], False) for format_ in FORMATS.values()]
    assert not any("bold" in text.lower() or "star" in text.lower() or "**" in text for text in shown)


def test_what_a_row_has_not_is_a_dash() -> None:
    two = comparison(("a", {}), ("b", {"loss": cell(12.5)}))
    assert as_table(two, ["loss"], by_seed=True).splitlines()[1].split() == ["a", "-", "-"]
    assert as_tex(two, ["loss"]).splitlines()[4] == r"a & -- & -- \\"


def test_markdown_has_as_many_cells_in_every_line_whatever_the_name() -> None:
    nasty = comparison((NASTY, {"user_accuracy": cell(0.5)}), ("b", {"user_accuracy": cell(0.6, 0.1)}))
    lines = as_markdown(nasty, ["user_accuracy"]).split("\n\n")[0].splitlines()
    assert len(lines) == 4
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert r"a\|b\_c\*d" in lines[2] and r"\<f\>" in lines[2] and r"\[z\](w)" in lines[2]


def test_latex_has_no_bare_special_character_from_a_name() -> None:
    nasty = comparison((NASTY, {"user_accuracy": cell(0.5)}), notes=["100 % of {x_1}"])
    text = as_tex(nasty, ["user_accuracy"])
    row = next(line for line in text.splitlines() if line.startswith("a"))
    name, *figures = re.split(r"(?<!\\) & ", row)
    assert len(figures) == 1
    bare = re.sub(r"\\text[a-z]+\{\}|\\[{}$&#%_]|\{[\[\]*-]\}", "", name)
    assert not set(bare) & set("\\{}$&#%_^~<>|[]*-")
    assert r"100 \% of \{x\_1\}" in text


def test_a_name_cannot_become_an_argument_of_the_line_break_before_it() -> None:
    two = comparison(("*a", {"loss": cell(0.1)}), ("[2em]", {"loss": cell(0.2)}))
    lines = as_tex(two, ["loss"]).splitlines()
    assert lines[4].startswith("{*}a") and lines[5].startswith("{[}2em{]}")


def test_no_control_character_reaches_any_format() -> None:
    nasty = comparison((NASTY, {"user_accuracy": cell(0.5)}), notes=["x\x1b[2Jy"])
    for shown in FORMATS.values():
        assert all(char.isprintable() or char == "\n" for char in shown(nasty, ["user_accuracy"], True))


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("bytes_up", -2_500_000.0, "-2.50 MB"),
        ("virtual_s", 6720.0, "+1 h 52 min"),
        ("energy_j", -1500.0, "-1.50 kJ"),
        ("user_accuracy", -0.0001, "0.000"),
        ("user_accuracy", 0.0, "0.000"),
        ("retries", 250.0, "+250"),
    ],
)
def test_differences_have_a_sign_and_a_unit_and_nothing_has_none(
    metric: str, value: float, shown: str
) -> None:
    difference = {"mean": value, "low": value, "high": value, "by_seed": [value, value]}
    own = {"mean": 1.0, "low": 1.0, "high": 1.0, "by_seed": [1.0, 1.0], "over": "seeds", "is_best": False}
    base = comparison(
        ("a", {metric: own | {"difference": None}}), ("b", {metric: own | {"difference": difference}})
    )
    line = as_table(base, [metric]).splitlines()[2]
    assert re.split(r" {2,}", line)[2] == shown
