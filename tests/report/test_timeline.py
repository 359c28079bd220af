from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest

from fedpref.report.devices import Job
from fedpref.report.timeline import Wait, sample_clients, shown_until_s, timeline_chart

STYLES = {"slow": "g0", "fast": "g1"}


def job(client: int, sent_s: float, arrived_s: float, device: str = "slow", code: str = "ok") -> Job:
    third = (arrived_s - sent_s) / 3
    parts_s = (third, third, third) if code == "ok" else None
    return Job(client, 0, device, code, sent_s, arrived_s, 0, parts_s, 0.0)


def rects(chart: str, part: str) -> list[tuple[float, float, float]]:
    """Left, top and width of the bars of one part."""
    found = re.findall(rf'class="job {part} \w+" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', chart)
    return [(float(x), float(y), float(wide)) for x, y, wide in found]


def axis(chart: str) -> tuple[float, float]:
    base = re.search(r'class="base" x1="([\d.]+)" x2="([\d.]+)"', chart)
    assert base is not None
    return float(base[1]), float(base[2])


def test_bars_lie_within_the_axis_and_one_that_goes_on_is_cut_there() -> None:
    jobs = [job(client, 10.0 * client, 10.0 * client + 35.0) for client in range(10)]
    chart = timeline_chart(jobs, {"slow": range(10)}, STYLES, until_s=95.0)
    left, right = axis(chart)
    bars = [bar for part in ("down", "compute", "up") for bar in rects(chart, part)]
    assert len(bars) == 30
    # A bar keeps a least width of 0.6 so that it can be seen.
    assert all(left <= x and x + wide <= right + 0.6 for x, _, wide in bars)


def test_download_computing_and_upload_follow_each_other_in_proportion() -> None:
    parts_s = (10.0, 60.0, 30.0)
    chart = timeline_chart(
        [Job(0, 0, "slow", "ok", 0.0, 100.0, 0, parts_s, 0.0)], {"slow": [0]}, STYLES, 100.0
    )
    ((x0, _, w0),), ((x1, _, w1),), ((x2, _, w2),) = (
        rects(chart, part) for part in ("down", "compute", "up")
    )
    assert x0 + w0 == pytest.approx(x1, abs=0.11) and x1 + w1 == pytest.approx(x2, abs=0.11)
    assert w1 == pytest.approx(6 * w0, rel=0.01) and w2 == pytest.approx(3 * w0, rel=0.01)


def test_one_client_is_one_row_and_rows_do_not_overlap() -> None:
    jobs = [job(client, start, start + 5.0) for client in range(6) for start in (0.0, 10.0)]
    chart = timeline_chart(jobs, {"slow": range(6)}, STYLES, until_s=20.0)
    rows = Counter(y for _, y, _ in rects(chart, "compute"))
    assert list(rows.values()) == [2] * 6
    tops = sorted(rows)
    assert min(below - above for above, below in itertools.pairwise(tops)) >= 9


def test_a_task_without_an_answer_is_hollow_and_marked_where_it_ends() -> None:
    chart = timeline_chart(
        [job(0, 0.0, 40.0, code="lost"), job(1, 0.0, 500.0, code="expired")], {"slow": [0, 1]}, STYLES, 100.0
    )
    assert len(rects(chart, "failed")) == 2 and not rects(chart, "compute")
    # The end of the other one lies outside the window.
    assert chart.count('class="cross"') == 1
    assert "client 0, task 0: 0 s to 40 s, lost" in chart


def test_updates_and_waits_are_drawn_inside_the_window() -> None:
    chart = timeline_chart(
        [job(0, 50.0, 90.0)],
        {"slow": [0]},
        STYLES,
        100.0,
        [60.0, 90.0, 130.0],
        [Wait(0.0, 50.0), Wait(70, 130)],
    )
    left, right = axis(chart)
    lines = [float(x) for x in re.findall(r'class="update" x1="([\d.]+)"', chart)]
    assert len(lines) == 2 and all(left < x < right for x in lines)
    bands = re.findall(r'class="wait" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', chart)
    assert len(bands) == 2 and all(float(x) + float(wide) <= right + 0.1 for x, wide in bands)


def test_updates_that_are_too_many_to_be_told_apart_are_left_out() -> None:
    chart = timeline_chart(
        [job(0, 0.0, 90.0)], {"slow": [0]}, STYLES, 100.0, [float(t) for t in range(1, 100)]
    )
    assert 'class="update"' not in chart


def test_a_sample_has_each_class_with_its_busiest_and_its_least_busy_client() -> None:
    jobs = [job(client, 0.0, 1.0 + client) for client in range(500)]
    jobs += [job(client, 0.0, 1.0 + client, "fast") for client in range(500, 900)]
    sample = sample_clients(jobs, ["slow", "fast"])
    assert {name: len(clients) for name, clients in sample.items()} == {"slow": 12, "fast": 12}
    for name, low, high in (("slow", 0, 499), ("fast", 500, 899)):
        assert {low, high} <= set(sample[name]) and list(sample[name]) == sorted(set(sample[name]))


def test_what_a_small_class_leaves_is_for_the_others() -> None:
    jobs = [job(client, 0.0, 1.0) for client in range(100)] + [job(100, 0.0, 1.0, "fast")]
    sample = sample_clients(jobs, ["slow", "fast", "absent"])
    assert {name: len(clients) for name, clients in sample.items()} == {"slow": 23, "fast": 1}


def test_with_more_classes_than_rows_some_are_not_shown() -> None:
    names = [f"class {number}" for number in range(40)]
    sample = sample_clients([job(i, 0.0, 1.0, name) for i, name in enumerate(names)], names)
    assert sum(map(len, sample.values())) == 24


@pytest.mark.parametrize("together", [1, 100, 5000])
def test_a_window_holds_at_most_600_bars_unless_more_begin_at_once(together: int) -> None:
    jobs = [job(0, 10.0 * (index // together), 10.0 * (index // together) + 9) for index in range(5000)]
    until_s = shown_until_s(jobs, 60_000.0)
    shown = sum(one.sent_s < until_s for one in jobs)
    assert until_s > 0
    assert shown <= max(600, together)


def test_few_bars_are_shown_to_the_end() -> None:
    assert shown_until_s([job(0, 0.0, 5.0)], 77.0) == 77.0
