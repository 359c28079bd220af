from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fedpref.report import RunDirectory, read_run
from fedpref.report.charts import Curve, Level, curves_chart
from fedpref.report.few_shot import few_shot_of
from fedpref.report.html import write_report
from fedpref.report.span import span_of

MakeRun = Callable[..., Path]


def curve(k_star: int | None, interval: Mapping[str, float], people: int = 2) -> dict[str, Any]:
    points = [
        {"shots": shots, "accuracy": 0.7 + gain, "gain": gain, "harmed": 0.0, **interval}
        for shots, gain in ((0, 0.0), (1, 0.01), (10, 0.04))
    ]
    names = [{"name": f"n{index}", "reference": 0.7, "accuracies": [0.7]} for index in range(people)]
    return {"k_star": k_star, "reference": 0.7, "resamples": 4, "points": points, "people": names}


INTERVAL = {"gain_low": -0.002, "gain_high": 0.05, "accuracy_low": 0.65, "accuracy_high": 0.8}


def with_curve(run_dir: Path, told: dict[str, Any]) -> Path:
    with RunDirectory.reopen(run_dir) as run:
        run.write_few_shot(told)
    return run_dir


def with_spans(run_dir: Path, *shares: float) -> Path:
    """A run whose first rounds hold these shares of the tastes."""
    path = run_dir / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record, held in zip(records, shares, strict=False):
        record["span"] = {"angles_deg": [0.0, 60.0], "held": held, "best": 0.9, "random": 0.25}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return run_dir


def places(chart: str) -> list[tuple[float, float]]:
    found = re.findall(r'<circle class="mark a" cx="([\d.]+)" cy="([\d.]+)"', chart)
    return [(float(x), float(y)) for x, y in found]


def test_the_curve_has_a_mark_for_each_number_of_pairs_and_room_for_none(make_run: MakeRun) -> None:
    section = few_shot_of(read_run(with_curve(make_run(), curve(10, INTERVAL))))
    assert section is not None and (section.people, section.resamples) == (2, 4)
    (none, low), (one, _), (ten, high) = places(section.chart)
    assert none < one < ten and low > high  # the y axis of a drawing points down
    assert one - none > 0.15 * (ten - none)
    assert ">k* = 10<" in section.chart and ">1<" in section.chart
    assert 'class="band a"' in section.chart and section.has_intervals
    assert section.reference == 0.7 and section.chart.count('<line class="level"') == 1


def test_one_person_has_no_interval(make_run: MakeRun) -> None:
    run_dir = with_curve(make_run(), curve(None, {}, people=1))
    section = few_shot_of(read_run(run_dir))
    assert section is not None and not section.has_intervals
    assert "band" not in section.chart and "k* =" not in section.chart
    assert "1 person whom no client knows" in write_report(run_dir).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("k_star", "words"),
    [(1, "1 pair they are surely better off"), (10, "10 pairs they"), (None, "No number of pairs makes")],
)
def test_the_report_names_k_star_or_says_that_there_is_none(
    make_run: MakeRun, k_star: int | None, words: str
) -> None:
    page = write_report(with_curve(make_run(), curve(k_star, INTERVAL))).read_text(encoding="utf-8")
    assert words in page
    assert "−0.2 to +5.0" in page and "not adapted, 70.0\N{NO-BREAK SPACE}%" in page
    assert page.count('<tr class="chosen">') == (k_star is not None)


def test_a_span_is_drawn_over_the_rounds_that_were_evaluated_with_one(make_run: MakeRun) -> None:
    section = span_of(read_run(with_spans(make_run(), 0.3, 0.5, 0.8)))
    assert section is not None and (section.held, section.best) == (0.8, 0.9)
    heights = [y for _, y in places(section.chart)]
    assert len(heights) == 3 and heights == sorted(heights, reverse=True)
    assert "best possible 90.0" in section.chart and "random 25.0" in section.chart
    (first, whole), (second, quarter) = section.angles
    assert (first, whole, second) == (0.0, 1.0, 60.0) and quarter == pytest.approx(0.25)
    page = write_report(with_spans(make_run(), 0.3, 0.8)).read_text(encoding="utf-8")
    assert "holds 80.0\N{NO-BREAK SPACE}% of what people really like" in page and "60.0°" in page


def test_a_run_without_newcomers_and_without_a_span_has_neither_section(make_run: MakeRun) -> None:
    run = read_run(make_run())
    assert few_shot_of(run) is None and span_of(run) is None
    page = write_report(make_run()).read_text(encoding="utf-8")
    assert "Newcomers" not in page and "Shared directions" not in page


def test_words_on_the_x_axis_stand_at_their_places_and_levels_are_named_at_either_end() -> None:
    line = Curve("line", "a", [0.0, 1.0, 2.0], [0.1, 0.2, 0.3])
    levels = [Level("early", 0.1), Level("late", 0.2, is_named_at_end=True)]
    chart = curves_chart([line], "x", "{:.1f}".format, levels, x_labels={0.0: "none", 2.0: "two"})
    (first, _), _, (last, _) = places(chart)
    labels = {
        word: float(x) for x, word in re.findall(r'<text class="tick middle" x="([\d.]+)"[^>]*>(\w+)<', chart)
    }
    assert labels == {"none": first, "two": last}
    named = {
        word: float(x) for x, word in re.findall(r'<text class="note[^"]*" x="([\d.]+)"[^>]*>(\w+)<', chart)
    }
    assert named == {"early": first + 6, "late": last - 6}
