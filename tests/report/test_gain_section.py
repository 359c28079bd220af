from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fedpref.report import RunDirectory, read_run
from fedpref.report.gain import GainRow, gain_chart, gain_of, signed_points
from fedpref.report.html import write_report

MakeRun = Callable[..., Path]


def with_gains(run_dir: Path, *gains: float | None) -> Path:
    """A run whose first people have these gains over a shared model at 0.5; None has no part of its own."""
    users = [
        {"name": f"p{index}", "client_id": index, "num_pairs": 20, "accuracy": 0.5 + (gain or 0.0)}
        | ({} if gain is None else {"shared_accuracy": 0.5})
        for index, gain in enumerate(gains)
    ]
    summary = json.loads((run_dir / "summary.json").read_text())
    with RunDirectory.reopen(run_dir) as run:
        run.write_result(summary | {"personal_gain": 0.0125, "harmed": 0.25}, users)
    return run_dir


def bars(chart: str) -> list[tuple[str, float, float]]:
    found = re.findall(r'class="bin (\w+)" [^>]*y="([\d.]+)" [^>]*height="([\d.]+)"', chart)
    return [(style, float(y), float(high)) for style, y, high in found]


def test_mean_gain_and_harm_are_over_those_with_a_part_of_their_own(make_run: MakeRun) -> None:
    gain = gain_of(read_run(with_gains(make_run(), 0.125, None, -0.25, 0.0, 0.0625)))
    assert gain is not None and gain.people == 4
    assert gain.mean == pytest.approx(-0.0625 / 4)
    assert (gain.harmed, gain.better) == (0.25, 0.5)
    assert [row.name for row in gain.worst] == ["p2", "p3"]
    assert [row.name for row in gain.best] == ["p0", "p4"]


@pytest.mark.parametrize(
    ("loss", "style"),
    [(0.01, "gained"), (1e-17, "even"), (0.0, "even"), (-0.01, "lost"), (-0.019, "lost"), (-0.021, "harmed")],
)
def test_who_loses_more_than_two_points_is_harmed(loss: float, style: str) -> None:
    assert GainRow("p", 0.5, 0.5 + loss).style == style


def test_bars_stand_on_the_line_at_zero_and_are_as_tall_as_the_gain() -> None:
    rows = [GainRow("a", 0.5, 0.4), GainRow("b", 0.5, 0.7)]
    (_, zero, loss), (_, top, gain) = bars(gain_chart(rows))
    assert top + gain == pytest.approx(zero, abs=0.02)
    assert gain == pytest.approx(2 * loss, rel=1e-3)


def test_of_many_people_an_even_choice_is_drawn_with_both_ends(make_run: MakeRun) -> None:
    gain = gain_of(read_run(with_gains(make_run(), *((i - 500) / 1000 for i in range(1000)))))
    assert gain is not None and (gain.people, gain.shown) == (1000, 240)
    assert ">p0: " in gain.chart and ">p999: " in gain.chart


def test_a_run_without_personal_parts_has_no_section(make_run: MakeRun) -> None:
    assert gain_of(read_run(make_run())) is None
    assert "Personal gain" not in write_report(make_run()).read_text(encoding="utf-8")


def test_the_report_shows_gain_and_harm_and_names_are_text(make_run: MakeRun) -> None:
    run_dir = with_gains(make_run(), 0.125)
    users = json.loads((run_dir / "users.json").read_text())
    with RunDirectory.reopen(run_dir) as run:
        summary = json.loads((run_dir / "summary.json").read_text())
        run.write_result(summary, [users[0] | {"name": "<script>"}])
    html = write_report(run_dir).read_text(encoding="utf-8")
    assert "<script" not in html
    assert "On average +12.5 points over 1 person" in html
    assert "+1.2" in html and "25.0\xa0% harmed" in html


def test_points_have_their_sign_and_zero_has_none() -> None:
    assert [signed_points(value) for value in (0.081, -0.02, 0.0, -0.0001)] == ["+8.1", "−2.0", "0.0", "0.0"]
