from __future__ import annotations

import io
from typing import Any

import pytest

from fedpref.report.console import RunConsole, closing_lines, eta_s, round_line
from fedpref.report.runs import best_round
from fedpref.report.units import human_bytes, human_joules, human_seconds, percent, percent_tick

RECORD: dict[str, Any] = {
    "round": 3,
    "clock_s": 362.0,
    "wall_s": 6.0,
    "clients_ok": 11,
    "clients_failed": 1,
    "bytes_up": 1_900_000,
    "bytes_down": 2_200_000,
    "evaluation": {"pair_accuracy": 0.7123, "pair_accuracy_low": 0.695, "pair_accuracy_high": 0.7291},
}
SUMMARY: dict[str, Any] = {
    "rounds": 20,
    "pair_accuracy": 0.7123,
    "pair_accuracy_low": 0.695,
    "pair_accuracy_high": 0.7291,
    "replies_ok": 397,
    "replies_failed": 3,
    "bytes_up": 200_000_000,
    "bytes_down": 212_000_000,
    "virtual_s": 6720.0,
    "wall_s": 41.0,
    "best_round": 17,
    "best_pair_accuracy": 0.716,
}


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (9994, "9.99 kB"),
        (9996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (412e6, "412 MB"),
        (2.1e15, "2100 TB"),
    ],
)
def test_bytes_have_three_digits_and_a_decimal_unit(num_bytes: float, text: str) -> None:
    assert human_bytes(num_bytes) == text


@pytest.mark.parametrize(
    ("energy_j", "text"),
    [
        (0, "0.000 J"),
        (0.25, "0.250 J"),
        (0.9996, "1.00 J"),
        (999.4, "999 J"),
        (999.6, "1.00 kJ"),
        (8.7e6, "8.70 MJ"),
    ],
)
def test_energy_has_three_digits_and_a_decimal_unit(energy_j: float, text: str) -> None:
    assert human_joules(energy_j) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.42, "0.42 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (6720, "1 h 52 min"),
        (183_600, "2 d 03 h"),
    ],
)
def test_seconds_have_two_units(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


def test_shares_are_percent_and_ticks_drop_empty_decimals() -> None:
    assert (percent(0.7123), percent_tick(0.7), percent_tick(0.725)) == ("71.2\xa0%", "70\xa0%", "72.5\xa0%")


def test_the_remaining_rounds_take_the_mean_time_so_far() -> None:
    assert eta_s(RECORD, 20) == pytest.approx(6.0 / 3 * 17)


def test_before_the_first_round_and_after_the_last_nothing_is_foretold() -> None:
    assert eta_s(RECORD, 3) is None
    assert eta_s(RECORD | {"round": 0}, 20) is None
    assert "eta" not in round_line(RECORD, 3)


def test_a_round_is_one_line_with_all_that_matters() -> None:
    assert round_line(RECORD, 20) == (
        "round  3/20  acc 0.712 [0.695, 0.729]  clients 11 ok 1 failed  4.10 MB  virtual 6 min 02 s  eta 34 s"
    )


def test_lines_of_rounds_with_and_without_an_evaluation_align() -> None:
    bare = {name: value for name, value in RECORD.items() if name != "evaluation"}
    for marker in ("clients", "virtual", "eta"):
        assert round_line(bare, 20).index(marker) == round_line(RECORD, 20).index(marker)


def test_the_last_lines_say_what_was_done_where_it_lies_and_what_is_next() -> None:
    lines = closing_lines(SUMMARY, 20, "r/report.html", "r/adapters/global", "fedpref runs show r")
    assert lines == (
        "done  20/20 rounds  pair accuracy 0.712 [0.695, 0.729]  failed replies 3/400  412 MB"
        "  virtual 1 h 52 min  wall 41 s",
        "files  adapters: r/adapters/global  report: r/report.html",
        "next  fedpref runs show r",
    )


def test_without_an_evaluation_the_accuracy_is_a_dash() -> None:
    bare = {name: value for name, value in SUMMARY.items() if "accuracy" not in name and "best" not in name}
    lines = closing_lines(bare, 20, "r/report.html", "", "…")
    assert "pair accuracy –" in lines[0]
    assert lines[1] == "files  report: r/report.html"


def test_the_best_round_is_the_earliest_of_equals() -> None:
    records = [
        {"round": number, "evaluation": {"pair_accuracy": value}}
        for number, value in ((1, 0.6), (2, 0.7), (3, 0.7), (4, 0.65))
    ]
    assert best_round([*records, {"round": 5}]) == (2, 0.7)
    assert best_round([{"round": 5}]) is None


def test_away_from_a_terminal_lines_are_plain_and_whole() -> None:
    file = io.StringIO()
    with RunConsole(20, file) as console:
        console.round(RECORD)
        console.say("[bold]a client named [/bold]")
    console.close_with(("done  all", "next  more"))
    assert file.getvalue().splitlines() == [
        round_line(RECORD, 20),
        "[bold]a client named [/bold]",
        "done  all",
        "next  more",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_and_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = {}
    for is_coloured in (True, False):
        if not is_coloured:
            monkeypatch.setenv("NO_COLOR", "1")
        file = Terminal()
        with RunConsole(20, file) as console:
            console.round(RECORD)
        shown[is_coloured] = file.getvalue()
    yellow = "\x1b[33m"
    assert yellow in shown[True] and yellow not in shown[False]
    assert all("left" in text and round_line(RECORD, 20) in text for text in shown.values())
