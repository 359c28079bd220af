from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fedpref.report import RunDirectory, read_run
from fedpref.report.groups import groups_of
from fedpref.report.html import write_report
from fedpref.report.membership import Membership, changes, membership_chart

MakeRun = Callable[..., Path]


def text_of(run_dir: Path) -> str:
    html = write_report(run_dir).read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html.replace("\xa0", " ").replace("&nbsp;", " ")))


def heights(chart: str, style: str) -> list[float]:
    return [float(high) for high in re.findall(rf'class="node {style}"[^>]* height="([\d.]+)"', chart)]


def states(*groups: Sequence[int | None]) -> list[Membership]:
    return [Membership(10 * index, members) for index, members in enumerate(groups)]


def test_a_band_is_as_high_as_its_group() -> None:
    chart = membership_chart(states([0, 0, 0, 1]), ["a", "b"])
    (large,), (small,) = heights(chart, "g0"), heights(chart, "g1")
    assert large == pytest.approx(3 * small, rel=0.01)


def test_every_client_leaves_by_one_ribbon() -> None:
    chart = membership_chart(states([0, 0, 1, None], [0, 1, 1, 1]), ["a", "b"])
    told = re.findall(r"<title>([^<]*)</title>", chart)
    # From round 0: a stays, a to b, b stays, none to b; from round 10 on: a with one, b with three.
    assert sorted(told) == sorted(
        ["a: 1 client", "a: 1 client", "b: 1 client", "no group: 1 client", "a: 1 client", "b: 3 clients"]
    )


def test_a_last_column_shows_who_belongs_to_which_planted_group() -> None:
    chart = membership_chart(states([0, 0, 1]), ["a", "b"], {0: 4, 1: 5, 2: 5})
    assert len(heights(chart, "true")) == 2
    assert "planted 4 · 1<" in chart and "planted 5 · 2<" in chart


def test_all_bands_stay_inside_the_drawing() -> None:
    history = states(*([(client * step) % 7 for client in range(90)] for step in range(1, 60)))
    chart = membership_chart(history, [f"s{u}" for u in range(7)], dict.fromkeys(range(90), 0))
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', chart)
    assert box is not None
    for x, y, high in re.findall(
        r'class="node [^"]*" x="([\d.]+)" y="([\d.]+)" width="5.0" height="([\d.]+)', chart
    ):
        assert 0 <= float(x) <= float(box[1]) and 0 <= float(y) and float(y) + float(high) <= float(box[2])


def test_only_changes_are_columns_and_never_more_than_24() -> None:
    steady = states([None, None], [None, None], [0, 1], [0, 1], [1, 1])
    assert [state.round for state in changes(steady)] == [0, 20, 40]
    restless = changes(states(*([index % 2] for index in range(500))))
    assert len(restless) == 24
    assert (restless[0].round, restless[-1].round) == (0, 4990)


def test_an_empty_group_is_drawn_as_nothing_and_named() -> None:
    chart = membership_chart(states([0, 0]), ["a", "b"])
    assert not heights(chart, "g1")
    assert "b · 0<" in chart


def test_the_report_shows_groups_agreement_and_order_effects(make_run: MakeRun) -> None:
    text = text_of(make_run(selectors=3, has_truth=True, people=30))
    for part in (
        "adjusted Rand index",
        "Match with the planted groups",
        "Agreement of the models",
        "planted 2",
    ):
        assert part in text
    assert "position bias −0.31" in text and "order consistency 93.0 %" in text
    assert "models sent 40.0 % of those that a broadcast would send" in text


def test_groups_are_told_apart_in_the_tables(make_run: MakeRun) -> None:
    run = read_run(make_run(selectors=2, has_truth=True, people=20))
    groups = groups_of(run)
    assert groups is not None
    assert [row.name for row in groups.found] == ["selector 0", "selector 1"]
    assert sum(row.clients or 0 for row in groups.found) == sum(row.people for row in groups.planted) == 20
    for row, key in ((groups.found[0], "served_by"), (groups.planted[0], "group")):
        accuracies = [user["accuracy"] for user in run.users if user[key] == 0]
        assert row.accuracy == pytest.approx(sum(accuracies) / len(accuracies))


def test_planted_groups_alone_are_a_section_and_a_run_without_groups_has_none(make_run: MakeRun) -> None:
    planted = groups_of(read_run(make_run(has_truth=True)))
    assert planted is not None and not planted.membership and len(planted.planted) == 4
    assert groups_of(read_run(make_run())) is None
    assert "<h2>Groups</h2>" not in write_report(make_run()).read_text(encoding="utf-8")


def test_an_unfinished_run_shows_its_groups_by_number(make_run: MakeRun) -> None:
    run_dir = make_run(selectors=3, people=12)
    for name in ("agreement.json", "users.json", "summary.json"):
        (run_dir / name).unlink()
    groups = groups_of(read_run(run_dir))
    assert groups is not None
    assert list(groups.names) == ["group 0", "group 1", "group 2"]
    assert "Agreement of the models" not in text_of(run_dir)


def test_people_whom_all_models_serve_have_a_colour_of_their_own(make_run: MakeRun) -> None:
    run_dir = make_run(selectors=2, people=6)
    users = json.loads((run_dir / "users.json").read_text())
    del users[0]["served_by"]
    with RunDirectory.reopen(run_dir) as run:
        run.write_result({}, users)
    html = write_report(run_dir).read_text(encoding="utf-8")
    assert html.count('<circle class="dot none"') == 1
    assert "served by all" in html


def test_names_of_models_are_text(make_run: MakeRun) -> None:
    run_dir = make_run(selectors=2, people=6)
    with RunDirectory.reopen(run_dir) as run:
        names = ["<script>", "b"]
        run.write_result({}, [], {"models": names, "shares": [[1.0, 0.5], [0.5, 1.0]]})
    html = write_report(run_dir).read_text(encoding="utf-8")
    assert "<script>" not in html and "&lt;script&gt;" in html
