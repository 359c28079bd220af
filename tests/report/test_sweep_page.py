"""The page about many runs, and what it is made of."""

from __future__ import annotations

import csv
import io
import re
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import pytest
from page_toy import Page

from fedpref.report.overview import overview_of
from fedpref.report.pareto import SLIM, WIDE, Point, front, pareto_chart
from fedpref.report.ranks import mean_ranks, ranks_in, ranks_of
from fedpref.report.sweep import FORMAT, sweep_page
from fedpref.report.sweep_table import table_view
from fedpref.report.table_csv import as_csv
from fedpref.report.template import style
from fedpref.seeds import generator

ATTACK = "<script>alert('x')</script>"


class Sweep(Page):
    """A page with few kinds of tags."""

    void = frozenset({"meta", "br"})


def cell(
    mean: float, difference: float | None = None, seeds: int = 1, over: str = "people"
) -> dict[str, Any]:
    width = 0.02 if over == "people" else 0.0
    own: dict[str, Any] = {"mean": mean, "low": mean - width, "high": mean + width, "by_seed": [mean] * seeds}
    told: dict[str, Any] | None = None
    if difference is not None:
        told = {"mean": difference, "low": difference - 0.02, "high": difference + 0.02}
        told |= {"by_seed": [difference] * seeds}
    return {**own, "difference": told, "over": over, "is_best": False}


def table(data: str, means: dict[str, float], seeds: int = 1, **numbers: float) -> dict[str, Any]:
    """A table whose base is the first method; ``numbers`` grow by themselves from row to row."""
    base = next(iter(means))
    rows = []
    for place, (name, mean) in enumerate(means.items()):
        metrics = {"user_accuracy": cell(mean, None if name == base else mean - means[base], seeds)}
        metrics |= {key: cell(value * (place + 1), None, seeds, "seeds") for key, value in numbers.items()}
        rows.append({"name": name, "metrics": metrics})
    return {
        "data": data,
        "base": base,
        "seeds": list(range(seeds)),
        "num_people": 60,
        "rows": rows,
        "notes": ["Only few seeds."],
    }


def sweep(*tables: dict[str, Any], **changes: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        key: [] for key in ("chosen", "newcomers", "groups", "runs", "failures", "claims", "notes")
    }
    told = {"format": FORMAT, "title": "A sweep", "about": "", "facts": ["4 runs"], "command": ""}
    return {**empty, **told, "tables": list(tables), **changes}


def groups_of(data: str, names: list[str], count: int) -> dict[str, Any]:
    groups = [
        {
            "group": group,
            "num_people": 9,
            "seeds": [0],
            "rows": [{"name": name, **cell(0.7)} for name in names],
        }
        for group in range(count)
    ]
    return {"data": data, "groups": groups}


def claim(**changes: Any) -> dict[str, Any]:
    usual = {"claim": "C", "data": "d", "asked": "a", "measured": None, "told": "-", "holds": None, "why": ""}
    return {**usual, **changes}


# ---------------------------------------------------------------------------------------------- the page


def test_names_are_text_and_never_markup() -> None:
    evil = {f"{ATTACK}{number}": 0.6 + 0.1 * number for number in range(2)}
    runs = [{"data": ATTACK, "method": ATTACK, "seed": 0, "command": f"fedpref run 'name={ATTACK}'"}]
    failures = [{"data": ATTACK, "method": ATTACK, "seed": 0, "error": ATTACK}]
    claims = [claim(claim=ATTACK, data=ATTACK, asked=ATTACK, told=ATTACK, holds=False, why=ATTACK)]
    words = {"title": ATTACK, "about": ATTACK, "facts": [ATTACK], "command": ATTACK, "notes": [ATTACK]}
    page = sweep_page(
        sweep(
            table(ATTACK, evil, bytes_up=10.0, bytes_down=10.0, virtual_s=3.0),
            table("'\"><img src=x>", evil),
            groups=[groups_of(ATTACK, list(evil), 2)],
            runs=runs,
            failures=failures,
            claims=claims,
            claims_told=ATTACK,
            **words,
        )
    )
    seen = Sweep(page)
    assert not {"script", "img"} & set(seen.tags)
    assert not any(name.startswith("on") for name, _ in seen.attributes)
    assert f"fedpref run 'name={ATTACK}'" in seen.text


def test_a_large_sweep_is_one_small_offline_page_without_scripts() -> None:
    draw = generator(0, "sweep")
    methods = [f"method_{number}" for number in range(20)]
    tables = [
        table(
            f"set {place}",
            {name: float(draw.uniform(0.5, 0.9)) for name in methods},
            seeds=10,
            **{key: float(draw.uniform(1, 9)) for key in ("bytes_up", "bytes_down", "virtual_s", "k_star")},
        )
        for place in range(8)
    ]
    runs = [
        {
            "data": f"set {place}",
            "method": name,
            "seed": seed,
            "command": "fedpref run " + "option=value " * 25,
        }
        for place in range(8)
        for name in methods
        for seed in range(10)
    ]
    groups = [groups_of(f"set {place}", methods, 8) for place in range(8)]
    page = sweep_page(sweep(*tables, runs=runs, groups=groups))
    assert len(page.encode()) < 3_000_000
    seen = Sweep(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(seen.tags)
    links = [value for name, value in seen.attributes if name in ("src", "href", "srcset", "data")]
    assert links and all(link.startswith(("#", "data:text/csv")) for link in links)
    assert not re.search(r"https?://|url\(|@import|\bnan\b|None\b", page)
    assert page == sweep_page(sweep(*tables, runs=runs, groups=groups))


def test_what_is_missing_is_left_out_and_never_invented() -> None:
    """One method, one person: no intervals, no differences, no costs, no groups."""
    lonely = table("", {"only": 0.7})
    lonely["rows"][0]["metrics"]["user_accuracy"] |= {"low": None, "high": None}
    page = sweep_page(sweep(lonely))
    text = Sweep(page).text
    assert "70.0" in text and "difference, points" not in text
    for absent in (
        "Rank over data sets",
        "Accuracy over",
        "hidden group",
        "Not in the tables",
        "Claims",
        "None",
    ):
        assert absent not in text


def test_newcomers_are_a_column_for_each_number_of_pairs_and_no_data_sets_to_rank_over() -> None:
    few = {
        "data": "d",
        "tables": [table("0 pairs", {"one": 0.61}), table("5 pairs", {"one": 0.62, "two": 0.7})],
    }
    page = sweep_page(sweep(table("d", {"one": 0.6, "two": 0.65}), newcomers=[few]))
    assert page.count('class="matrix overview"') == 1 and "Rank over data sets" not in page
    seen = Sweep(page).text
    assert "Newcomers, by the pairs that they show" in seen
    cells = re.findall(
        r"<td[^>]*>([\d.–]+)(?:<span|</td>)", page.partition("matrix overview")[2].partition("</table>")[0]
    )
    assert cells == ["61.0", "62.0", "–", "70.0"]
    for shown in ("0 pairs", "5 pairs"):
        assert f"d%2C%20newcomers%20with%20{shown.replace(' ', '%20')}" in page.replace("&#34;", "")


def test_a_claim_is_red_only_where_it_was_tested_and_does_not_hold() -> None:
    claims = [
        claim(measured=0.5, told="0.5000", holds=True),
        claim(told="failed", holds=False, why="It is unstable."),
        claim(),
    ]
    page = sweep_page(sweep(table("d", {"one": 0.6}), claims=claims, claims_told="1 of 2 hold."))
    rows = [
        re.findall(r"<td[^>]*>.*?</td>", row)[-2:]
        for row in re.findall(r"<tr><td>C</td>.*?</tr>", page, flags=re.DOTALL)
    ]
    assert rows == [
        ['<td class="right">0.5000</td>', '<td class="state finished">✓ yes</td>'],
        [
            '<td class="right">failed</td>',
            '<td class="state failed">✗ no<span class="why">It is unstable.</span></td>',
        ],
        ['<td class="right">–</td>', '<td class="soft">–</td>'],
    ]
    assert "1 of 2 hold." in page


def test_who_has_no_costs_has_dashes_and_is_in_no_picture() -> None:
    three = table("d", {"one": 0.6, "alone": 0.8, "two": 0.7}, virtual_s=2.0)
    del three["rows"][1]["metrics"]["virtual_s"]
    assert [line.rest[0].text for line in table_view(three).lines] == ["2 s", "–", "6 s"]
    page = sweep_page(sweep(three))
    assert "<title>two</title>" in page and "<title>alone</title>" not in page
    assert "Best for their cost: one, two." in page
    three["rows"][2]["metrics"]["virtual_s"] = three["rows"][0]["metrics"]["virtual_s"]
    assert "2 methods have the same virtual time." in sweep_page(sweep(three))


def test_equal_costs_are_told_and_not_drawn() -> None:
    alike = table("d", {"one": 0.6, "two": 0.7}, virtual_s=2.0)
    for row in alike["rows"]:
        row["metrics"]["virtual_s"] = cell(2.0, None, 1, "seeds")
    page = sweep_page(sweep(alike))
    assert "All methods have the same virtual time." in page and "<svg" not in page
    assert "The same for all: virtual time 2 s." in page


def test_bars_are_as_long_as_the_accuracy_of_the_group() -> None:
    entry = groups_of("d", ["one", "two"], 2)
    entry["groups"][1]["rows"][0] |= {"mean": 0.25, "low": 0.2, "high": 0.35}
    page = sweep_page(sweep(table("d", {"two": 0.6, "one": 0.7}), groups=[entry]))
    rows = re.findall(r'<td class="bars">([\d.]+)<.*?class="value g(\d)" style="width: ([\d.]+)%"', page)
    # The rows are those of the table: two, then one.
    assert rows == [
        ("70.0", "0", "70.0"),
        ("70.0", "1", "70.0"),
        ("70.0", "0", "70.0"),
        ("25.0", "1", "25.0"),
    ]
    assert 'class="reach" style="left: 20.0%; width: 15.0%"' in page


# -------------------------------------------------------------------------------------------- the tables


def test_a_cell_is_bold_where_the_comparison_says_so_and_nowhere_else() -> None:
    plain = table("d", {"one": 0.6, "two": 0.9})
    assert not table_view(plain).has_best and "★ ahead" not in sweep_page(sweep(plain))
    plain["rows"][1]["metrics"]["user_accuracy"]["is_best"] = True
    assert table_view(plain).has_best and sweep_page(sweep(plain)).count('class="best">') == 1


def test_an_interval_lies_around_its_mean_on_the_scale_and_inside_the_column() -> None:
    view = table_view(table("d", {"one": 0.6, "two": 0.7, "three": 0.85}))
    for line in view.lines:
        assert line.span is not None
        begin, width = line.span
        assert 0 < begin < line.mean < begin + width < 100
        assert begin + width / 2 == pytest.approx(line.mean)
    assert view.reference == view.lines[0].mean
    assert view.scale.place(view.scale.low) == 0 and view.scale.place(view.scale.high) == 100


def test_columns_that_do_not_differ_become_a_sentence() -> None:
    both = table("d", {"one": 0.6, "two": 0.7}, bytes_up=1000.0)
    for row in both["rows"]:
        row["metrics"]["virtual_s"] = cell(125.0, None, 1, "seeds")
    view = table_view(both)
    assert list(view.columns) == ["bytes up"] and list(view.same) == ["virtual time 2 min 05 s"]


def test_the_csv_has_every_figure_of_every_table() -> None:
    tables = [table("a,b", {"one": 0.6, 'tw"o': 0.7}, seeds=2, virtual_s=2.0), table("c", {"one": 0.5})]
    rows = list(csv.DictReader(io.StringIO(as_csv(tables))))
    assert [(row["data"], row["method"], row["metric"]) for row in rows] == [
        ("a,b", "one", "user_accuracy"),
        ("a,b", "one", "virtual_s"),
        ("a,b", 'tw"o', "user_accuracy"),
        ("a,b", 'tw"o', "virtual_s"),
        ("c", "one", "user_accuracy"),
    ]
    assert float(rows[2]["difference"]) == pytest.approx(0.1) and rows[0]["difference"] == ""
    assert rows[2]["seeds"] == "0 1" and rows[2]["by_seed"] == "0.7 0.7"
    (link,) = re.findall(r'href="data:text/csv;charset=utf-8,([^"]+)"', sweep_page(sweep(*tables)))
    assert unquote(link) == as_csv(tables)


# ------------------------------------------------------------------------------------- ranks and overview


def test_ranks_count_those_above_and_share_what_is_equal() -> None:
    assert ranks_of([0.7, 0.9, 0.7, 0.1]) == [2.5, 1, 2.5, 4]
    values = generator(0, "ranks").uniform(size=9).tolist()
    assert sorted(ranks_of(values)) == list(range(1, 10))


def test_only_methods_of_all_data_sets_are_ranked_and_the_others_are_named() -> None:
    tables = [table("a", {"x": 0.6, "y": 0.7, "told": 0.9}), table("b", {"x": 0.8, "y": 0.5})]
    ranks = ranks_in(tables)
    assert ranks == {"a": {"x": 2, "y": 1}, "b": {"x": 1, "y": 2}}
    assert mean_ranks(ranks) == {"x": 1.5, "y": 1.5}
    overview = overview_of(tables)
    assert overview is not None and list(overview.unranked) == ["told"]
    told = next(row for row in overview.rows if row.name == "told")
    assert told.cells[1] is None and told.rank == ""
    assert overview_of(tables[:1]) is None


def test_colour_needs_an_interval_that_does_not_hold_zero() -> None:
    """Intervals reach 0.02 to each side."""
    tables = [table(data, {"base": 0.6, "up": 0.65, "even": 0.61, "down": 0.5}) for data in "ab"]
    overview = overview_of(tables)
    assert overview is not None
    styles = {row.name: row.cells[0].style for row in overview.rows if row.cells[0] is not None}
    assert styles == {"base": "", "up": "alike", "even": "", "down": "apart"}


# ------------------------------------------------------------------------------------------------ pareto


def test_the_front_is_all_that_nobody_dominates() -> None:
    """By the definition, pair by pair; drawn on a coarse grid so that there are equals."""
    draw = generator(0, "front")
    points = [
        Point(str(number), float(draw.integers(1, 8)), float(draw.integers(1, 8)) / 10)
        for number in range(40)
    ]
    found = front(points)
    for point in points:
        is_beaten = any(
            (other.cost < point.cost and other.accuracy >= point.accuracy)
            or (other.cost <= point.cost and other.accuracy > point.accuracy)
            for other in points
        )
        assert (point in found) != is_beaten
    costs = [point.cost for point in found]
    assert costs == sorted(costs)
    assert [point.accuracy for point in found] == sorted(point.accuracy for point in found)


def test_the_same_point_twice_is_twice_on_the_front() -> None:
    twins = [Point("one", 1.0, 0.7), Point("two", 1.0, 0.7)]
    assert front(twins) == twins


@pytest.mark.parametrize("count", [1, 2, 60])
@pytest.mark.parametrize("least", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("room", [SLIM, WIDE])
def test_every_method_is_drawn_and_named_inside_the_picture(count: int, least: float, room: float) -> None:
    draw = generator(0, "chart", count)
    points = [
        Point(
            f"m{number}",
            least + float(draw.uniform(0, 1e7)),
            float(draw.uniform(0.6, 0.61)),
            None,
            (0.5, 0.7),
        )
        for number in range(count)
    ]
    chart = pareto_chart(points, "bytes", (1e6, "MB"), room)
    width, height = map(float, re.findall(r'viewBox="0 0 (\S+) (\S+)"', chart)[0])
    marks = [tuple(map(float, mark)) for mark in re.findall(r'cx="([^"]+)" cy="([^"]+)"', chart)]
    assert len(marks) == count and all(0 < x < width and 0 < y < height for x, y in marks)
    names = {
        name: float(y) for y, name in re.findall(r'<text class="note" x="[^"]+" y="([^"]+)">(m\d+)<', chart)
    }
    assert len(names) == count
    places = sorted(names.values())
    assert all(later - place >= 14.9 for place, later in pairwise(places))
    assert places[0] > 0 and places[-1] < height
    assert chart.count('<g class="best">') == len(front(points))


@pytest.mark.parametrize("room", [SLIM, WIDE])
@pytest.mark.parametrize("most", [1.01, 3, 9, 12, 20, 100, 250, 1e4, 1e6])
def test_ticks_and_titles_have_room_in_either_drawing(most: float, room: float) -> None:
    points = [Point("one", 10.0, 0.6), Point("two", 10.0 * most, 0.7)]
    chart = pareto_chart(points, "bytes up and down", (1.0, "kB"), room)
    ticks = [float(x) for x in re.findall(r'class="tick middle" x="([^"]+)"', chart)]
    assert len(ticks) >= 2 and all(later - place >= 36.9 for place, later in pairwise(ticks))
    ((middle, title),) = re.findall(r'class="axis middle" x="([^"]+)"[^>]*>([^<]+)<', chart)
    assert 3.5 * len(title) <= float(middle) <= room - 3.5 * len(title)


def test_letters_of_a_slim_drawing_are_large_enough_on_a_phone_and_alike_for_the_best() -> None:
    """The figure of a page that is 390 wide is 328 wide: less margins, padding and borders."""
    (size,) = re.findall(
        r"\.pictures \.slim svg, \.pictures \.slim svg \.note \{ font-size: (\d+)px", style("sweep.css")
    )
    assert float(size) * 328 / SLIM >= 11
    assert "best .note" not in style("sweep.css")
