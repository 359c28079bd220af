from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from page_toy import Page

from fedpref.errors import ConfigurationError, StorageError
from fedpref.report import RunDirectory
from fedpref.report.charts import Curve, Level, curves_chart, people_chart, ticks
from fedpref.report.html import write_report
from fedpref.report.picture import plot_png

MakeRun = Callable[..., Path]
CreateRun = Callable[..., RunDirectory]


def page_of(run_dir: Path) -> Page:
    return Page(write_report(run_dir).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"has_truth": True},
        {"rounds": 1, "people": 1, "has_failures": False},
        {"rounds": 2, "people": 3},
        {"rounds": 900, "people": 700},
        {"selectors": 3, "has_truth": True},
        {"selectors": 2, "rounds": 1, "people": 2},
        {"selectors": 9, "rounds": 900, "people": 700},
    ],
)
def test_every_kind_of_run_gives_one_small_offline_page(
    make_run: MakeRun, options: dict[str, object]
) -> None:
    report = write_report(make_run(**options))
    assert report.stat().st_size < 3_000_000
    html = report.read_text(encoding="utf-8")
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href", "srcset", "data")]
    assert not re.search(r"https?://|url\(|@import|nan|None\b", html)


def test_the_outcome_is_a_sentence_with_the_key_numbers(make_run: MakeRun) -> None:
    text = page_of(make_run(has_truth=True)).text.replace("\xa0", " ")
    assert re.search(
        r"finished 40 rounds\. The served model agrees with 7\d\.\d % of the held-out preferences"
        r" \(95 % interval \d\d\.\d–\d\d\.\d %\); for the worst-served tenth of 100 people it is",
        text,
    )
    assert "would get 82.9 % per person" in text


def test_names_and_events_are_text_and_never_markup(make_run: MakeRun) -> None:
    attack = "<script>alert('x')</script>"
    run_dir = make_run(people=3, names=lambda index: f"{attack}{index}")
    with (run_dir / "events.jsonl").open("a") as file:
        file.write('{"round": 1, "client": "<img src=x>", "code": "<b>", "detail": "</table>"}\n')
    page = page_of(run_dir)
    assert not {"script", "img", "b"} & set(page.tags)
    assert f"{attack}0" in page.text
    assert "<img src=x>" in page.text


def test_a_report_repeats_byte_for_byte(make_run: MakeRun) -> None:
    run_dir = make_run()
    assert write_report(run_dir).read_bytes() == write_report(run_dir).read_bytes()


def test_the_command_can_be_pasted_into_a_shell(make_run: MakeRun) -> None:
    assert "fedpref run strategy=fedavg rounds=40 'data.path=my rows.jsonl'" in page_of(make_run()).text


def test_curves_stand_over_rounds_time_and_bytes(make_run: MakeRun) -> None:
    text = page_of(make_run()).text
    for title in ("round", "virtual time (minutes)", "bytes transferred (MB)"):
        assert title in text


def test_nobody_is_both_best_and_worst(make_run: MakeRun) -> None:
    html = write_report(make_run(people=5)).read_text(encoding="utf-8")
    assert sorted(re.findall(r"<td>(annotator \d+)</td>", html)) == [
        f"annotator {index:03d}" for index in range(5)
    ]


def test_runs_that_just_started_or_failed_have_a_report(create_run: CreateRun, tmp_path: Path) -> None:
    with create_run(tmp_path) as run:
        assert "is still running, after round 0." in page_of(run.path).text
        run.set_status("failed", round_number=1, exit_code=5, error="every client failed")
        assert "failed in round 1: every client failed." in page_of(run.path).text


def test_a_report_written_before_the_last_status_says_that_the_run_finished(make_run: MakeRun) -> None:
    run_dir = make_run(rounds=2, people=3)
    with RunDirectory.reopen(run_dir) as run:
        run.set_status("running", round_number=2)
        assert "The run finished 2 rounds." in page_of(run_dir).text


def test_the_evaluation_before_the_first_round_is_a_report_too(create_run: CreateRun, tmp_path: Path) -> None:
    counts = dict.fromkeys(("clients_ok", "clients_failed", "bytes_up", "bytes_down"), 0)
    scores = {"pair_accuracy": 0.5, "worst_decile": 0.4, "loss": 0.693, "ece": 0.0, "brier": 0.25}
    with create_run(tmp_path) as run:
        run.metrics.append({"round": 0, "clock_s": 0.0, "wall_s": 0.1, **counts, "evaluation": scores})
        assert "agrees with 50.0 %" in page_of(run.path).text.replace("\xa0", " ")


def test_a_picture_needs_an_evaluated_round(create_run: CreateRun, tmp_path: Path) -> None:
    with create_run(tmp_path) as run, pytest.raises(ConfigurationError, match="no evaluated round"):
        plot_png(run.path, tmp_path / "picture.png")


@pytest.mark.parametrize("options", [{}, {"rounds": 1, "people": 1}, {"has_truth": True, "people": 2}])
def test_a_run_is_drawn_into_one_picture(
    make_run: MakeRun, tmp_path: Path, options: dict[str, object]
) -> None:
    path = plot_png(make_run(**options), tmp_path / "picture.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert int.from_bytes(path.read_bytes()[16:20], "big") == 1800


def test_a_picture_that_cannot_be_written_names_its_path(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"absent.picture\.png"):
        plot_png(make_run(rounds=1, people=2), tmp_path / "absent" / "picture.png")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 40.0, [0.0, 10.0, 20.0, 30.0, 40.0]),
        (0.503, 0.732, [0.55, 0.6, 0.65, 0.7]),
    ],
)
def test_ticks_are_round_numbers_inside_the_axis(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


def test_an_empty_axis_has_no_ticks() -> None:
    with pytest.raises(ValueError, match="high > low"):
        ticks(1.0, 1.0)


def test_a_higher_value_is_drawn_higher_and_a_later_one_further_right() -> None:
    chart = curves_chart([Curve("c", "a", [1.0, 2.0, 3.0], [0.5, 0.7, 0.6])], "round", str)
    path = re.search(r'class="line a" d="M([^"]+)"', chart)
    assert path is not None
    points = [tuple(map(float, point.split(","))) for point in path.group(1).split("L")]
    xs, ys = zip(*points, strict=True)
    assert list(xs) == sorted(xs)
    assert ys[1] < ys[2] < ys[0]


def test_a_long_curve_is_thinned_and_keeps_both_ends() -> None:
    numbers = [float(number) for number in range(1, 10_001)]
    chart = curves_chart([Curve("c", "a", numbers, numbers)], "round", lambda value: f"{value:.0f}")
    path = re.search(r'class="line a" d="M([^"]+)"', chart)
    assert path is not None
    assert len(path.group(1).split("L")) == 400
    assert ">10000</text>" in chart


def test_labels_of_curves_that_end_together_do_not_overlap() -> None:
    curves = [Curve("c", "a", [1.0], [value]) for value in (0.5, 0.5, 0.501)]
    chart = curves_chart(curves, "round", str)
    places = sorted(float(y) for y in re.findall(r'class="value a" x="[\d.]+" y="([\d.]+)"', chart))
    assert len(places) == 3
    assert min(after - before for before, after in itertools.pairwise(places)) >= 14.9


def test_every_person_is_one_dot_inside_the_drawing() -> None:
    values = [0.0, 0.5, 0.5, 1.0] * 100
    chart = people_chart(
        values, [str(index) for index in range(400)], [0] * 400, "x", str, [Level("mean", 0.5)]
    )
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', chart)
    assert box is not None
    dots = re.findall(r'<circle class="dot g0" cx="([\d.]+)" cy="([\d.]+)"', chart)
    assert len(dots) == 400
    assert all(0 < float(x) < float(box.group(1)) and 0 < float(y) < float(box.group(2)) for x, y in dots)
