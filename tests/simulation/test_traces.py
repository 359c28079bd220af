"""Devices and windows from files: what is read, who gets what, and where a file is wrong."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from fedpref.errors import ConfigurationError
from fedpref.simulation.device_classes import DeviceClass
from fedpref.simulation.fleet import Device, Fleet
from fedpref.simulation.traces import Traces

HEADER = "device,kind,flops_per_s,memory_bytes,down_bytes_per_s,up_bytes_per_s,latency_s"
PHONE = "phone,cpu,1e10,4e9,2e6,1e6,0.1"
SERVER = "server,gpu,3e13,4e10,1e8,1e8,0.01"


def written(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_without_a_client_column_clients_draw_rows_at_their_address(tmp_path: Path) -> None:
    fleet = Traces(written(tmp_path / "d.csv", HEADER, PHONE, SERVER, PHONE, PHONE))
    assert isinstance(fleet, Fleet)
    devices = fleet.deploy(4000, seed=0)
    counts = Counter(devices.device(client).name for client in range(4000))
    assert abs(counts["server"] / 4000 - 1 / 4) < 6 * math.sqrt(3 / 16 / 4000)
    few = fleet.deploy(9, seed=0)
    assert [few.device(client) for client in range(9)] == [devices.device(client) for client in range(9)]
    assert tuple(devices.names) == ("phone", "server")
    assert devices.online(1e9) == range(4000)


def test_a_row_is_a_device_and_absent_columns_are_as_in_a_device_class(tmp_path: Path) -> None:
    devices = Traces(written(tmp_path / "d.csv", HEADER, SERVER)).deploy(1, seed=0)
    usual = DeviceClass()
    assert devices.device(0) == Device(
        "server", "gpu", 3e13, 4e10, 1e8, 1e8, 0.01, usual.jitter, usual.dropout_rate, usual.power_w
    )


def test_with_a_client_column_each_row_is_its_clients(tmp_path: Path) -> None:
    header = f"client,{HEADER},jitter,dropout_rate,power_w"
    rows = (f"1,{SERVER},0.5,0.25,300", f"0,{PHONE},0,0,5", f"7,{PHONE},0,0,5")
    devices = Traces(written(tmp_path / "d.csv", header, *rows)).deploy(2, seed=0)
    assert [devices.device(client).name for client in (0, 1)] == ["phone", "server"]
    server = devices.device(1)
    assert (server.jitter, server.dropout_rate, server.power_w) == (0.5, 0.25, 300)


def test_windows_say_who_is_online_and_repeat_with_their_period(tmp_path: Path) -> None:
    path = written(tmp_path / "d.csv", HEADER, PHONE)
    hours = written(tmp_path / "w.csv", "client,online_s,offline_s", "1,5,8", "0,0,2", "1,0,1")
    once, again = Traces(path, hours).deploy(2, 0), Traces(path, hours, period_s=10).deploy(2, 0)
    for devices in (once, again):
        assert devices.online(0.0) == range(2)
        assert list(devices.online(1.0)) == [0]
        assert devices.next_online_s(3.0) == 5.0
        assert devices.online_until_s(1, 5.0) == 8.0
    assert once.next_online_s(8.0) == math.inf
    assert again.next_online_s(8.0) == 10.0


def test_a_window_may_last_for_ever(tmp_path: Path) -> None:
    path = written(tmp_path / "d.csv", HEADER, PHONE)
    hours = written(tmp_path / "w.csv", "client,online_s,offline_s", "0,3,inf")
    devices = Traces(path, hours).deploy(1, 0)
    assert devices.next_online_s(0.0) == 3.0
    assert devices.online_until_s(0, 3.0) == math.inf


def test_a_file_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    text = "\r\n".join((HEADER.replace(",", ", "), PHONE.replace(",", ", "), "")) + "\r\n"
    (tmp_path / "d.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert Traces(str(tmp_path / "d.csv")).deploy(1, 0).device(0).name == "phone"


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (
            (HEADER, PHONE, "tablet,cpu,-3,4e9,2e6,1e6,0.1"),
            "row 3, column flops_per_s: '-3' must be",
        ),
        ((HEADER, "phone,cpu,fast,4e9,2e6,1e6,0.1"), "row 2, column flops_per_s: 'fast' must be"),
        ((HEADER, "phone,cpu,,4e9,2e6,1e6,0.1"), "row 2, column flops_per_s: '' must be"),
        ((HEADER, "phone,cpu,1,nan,2e6,1e6,0.1"), "row 2, column memory_bytes: 'nan' must be"),
        ((HEADER, "phone,npu,1,4e9,2e6,1e6,0.1"), "row 2, column kind: 'npu' must be one of cpu, gpu"),
        ((HEADER, PHONE, SERVER, PHONE.replace("cpu", "gpu")), "row 4, column kind: 'gpu' must be cpu"),
        ((HEADER, ",cpu,1,4e9,2e6,1e6,0.1"), "row 2, column device: '' must be the name"),
        ((f"{HEADER},dropout_rate", f"{PHONE},2"), "row 2, column dropout_rate: '2' must be a probability"),
        ((f"{HEADER},colour", f"{PHONE},red"), "row 1: unknown column 'colour'"),
        ((f"{HEADER},jiter", f"{PHONE},0"), "Did you mean 'jitter'?"),
        ((f"{HEADER},kind", f"{PHONE},cpu"), "row 1: column 'kind' stands there twice"),
        (("device,kind", "phone,cpu"), "row 1: column 'flops_per_s' is missing; add it"),
        (("",), "column 'device' is missing"),
        ((HEADER,), "no row below its header"),
        ((HEADER, f"{PHONE},1"), "row 2: 8 cells under 7 columns"),
        ((HEADER, "phone,cpu"), "row 2: 2 cells under 7 columns"),
        (
            (f"client,{HEADER}", f"0,{PHONE}", f"0,{PHONE}"),
            "row 3, column client: '0' must be another client: row 2",
        ),
        ((f"client,{HEADER}", f"-1,{PHONE}"), "row 2, column client: '-1' must be the number"),
        ((f"client,{HEADER}", f"1.5,{PHONE}"), "row 2, column client: '1.5' must be the number"),
        ((HEADER, '"phone,cpu'), "cannot be read as CSV"),
    ],
)
def test_a_wrong_file_of_devices_is_refused_where_it_is_wrong(
    tmp_path: Path, lines: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Traces(written(tmp_path / "d.csv", *lines))
    assert complaint in str(caught.value)
    assert "d.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (
            ("0,5,5",),
            "row 2, column offline_s: '5' must be a time after online_s=5 and at most fleet",
        ),
        (("0,5,11",), "row 2, column offline_s: '11' must be"),
        (("0,5,inf",), "row 2, column offline_s: 'inf' must be"),
        (("0,-1,3",), "row 2, column online_s: '-1' must be"),
        (("0,nan,3",), "row 2, column online_s: 'nan' must be"),
        (("0,3,nan",), "row 2, column offline_s: 'nan' must be"),
        (
            ("0,4,6", "0,1,5"),
            "column online_s: '4' must be 5 or later, where the window of row 3 ends",
        ),
    ],
)
def test_a_wrong_file_of_windows_is_refused_where_it_is_wrong(
    tmp_path: Path, rows: tuple[str, ...], complaint: str
) -> None:
    path = written(tmp_path / "d.csv", HEADER, PHONE)
    hours = written(tmp_path / "w.csv", "client,online_s,offline_s", *rows)
    with pytest.raises(ConfigurationError) as caught:
        Traces(path, hours, period_s=10)
    assert complaint in str(caught.value)
    assert "w.csv" in str(caught.value)


def test_clients_without_a_row_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    owned = written(tmp_path / "o.csv", f"client,{HEADER}", f"0,{PHONE}", f"2,{PHONE}")
    with pytest.raises(ConfigurationError, match=r"o\.csv has no row for 3 of 5 clients, the first .* 1;"):
        Traces(owned).deploy(5, 0)
    path = written(tmp_path / "d.csv", HEADER, PHONE)
    hours = written(tmp_path / "w.csv", "client,online_s,offline_s", "0,0,1")
    with pytest.raises(ConfigurationError, match=r"w\.csv has no row for 1 of 2 clients"):
        Traces(path, hours).deploy(2, 0)


def test_a_file_that_is_not_there_and_a_period_of_nothing_are_refused_by_their_key(tmp_path: Path) -> None:
    path = written(tmp_path / "d.csv", HEADER, PHONE)
    with pytest.raises(ConfigurationError, match=r"^fleet\.path=.*cannot be read"):
        Traces(str(tmp_path / "none.csv"))
    with pytest.raises(ConfigurationError, match=r"^fleet\.windows_path=.*cannot be read"):
        Traces(path, str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"^fleet\.period_s=10 .*set fleet\.windows_path"):
        Traces(path, period_s=10)
    with pytest.raises(ConfigurationError, match=r"^fleet\.period_s=0 must be"):
        Traces(path, path, period_s=0)
