"""A fleet of measured devices from a CSV file, and the windows in which they were online from another."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

import numpy as np

from fedpref.errors import ConfigurationError, did_you_mean
from fedpref.simulation.availability import Windows
from fedpref.simulation.deployed import Deployed
from fedpref.simulation.device_classes import KINDS, RANGES, DeviceClass
from fedpref.simulation.fleet import Device
from fedpref.simulation.per_client import per_client
from fedpref.simulation.presence import Presence
from fedpref.types import ClientId

__all__ = ["Traces"]

_DEFAULTS: Mapping[str, float] = {
    name: getattr(DeviceClass(), name) for name in ("jitter", "dropout_rate", "power_w")
}
_DEVICE_COLUMNS = ("device", "kind", *(name for name in RANGES if name not in _DEFAULTS))
_WINDOW_COLUMNS = ("client", "online_s", "offline_s")


@dataclass(frozen=True)
class Traces:
    """Devices from a CSV file with a header.

    Columns of ``path``: device (name of the class), kind (cpu or gpu), flops_per_s, memory_bytes,
    down_bytes_per_s, up_bytes_per_s, latency_s; and, if wanted, jitter, dropout_rate, power_w (where
    they are absent, as in ``DeviceClass``) and client. With client, a number from 0 on, every row is that
    client's device; without, every client draws a row at its address.

    Columns of ``windows_path``: client, online_s, offline_s, one row a window; ``inf`` is for ever.

    Rows of clients that the population does not have are not used. A device class may have rows of
    different numbers, but of one kind.

    Attributes:
        path: file of devices.
        windows_path: file of the windows in which clients are online; None: they are never offline.
        period_s: the windows repeat with this period; None: they do not.

    Raises:
        ConfigurationError: the period makes no sense; a file cannot be read, naming row and column; or
            (on deployment) a client has no row.
    """

    path: str
    windows_path: str | None = None
    period_s: float | None = None

    def __post_init__(self) -> None:
        if self.period_s is not None and not 0 < self.period_s < math.inf:
            raise ConfigurationError(f"fleet.period_s={self.period_s!r} must be finite and above 0")
        if self.period_s is not None and self.windows_path is None:
            raise ConfigurationError(
                f"fleet.period_s={self.period_s!r} repeats windows, but there are none; "
                "set fleet.windows_path=FILE"
            )
        _devices_of(self.path)
        if self.windows_path is not None:
            _windows_of(self.windows_path, self.period_s)

    def deploy(self, num_clients: int, seed: int) -> Deployed:
        """The devices of a population; see ``Fleet``."""
        devices, owners = _devices_of(self.path)
        names = list(dict.fromkeys(device.name for device in devices))
        if owners is None:
            chance = per_client(seed, "trace", num_clients, lambda rng, size: rng.random(size))
            rows = np.floor(chance * len(devices)).astype(int).tolist()
        else:
            _check_covered(self.path, owners, num_clients)
            rows = [owners[client] for client in range(num_clients)]

        def make(client_id: ClientId) -> Device:
            device: Device = devices[rows[client_id]]
            return device

        timelines = []
        if self.windows_path is not None and num_clients:
            windows = _windows_of(self.windows_path, self.period_s)
            _check_covered(self.windows_path, windows, num_clients)
            everybody = np.arange(num_clients)
            own = [windows[client] for client in range(num_clients)]
            timelines = [(everybody, Windows(own, self.period_s))]
        return Deployed(seed, names, make, Presence(num_clients, timelines))


class _Row(NamedTuple):
    """One row of a file, whose cells are read with complaints that say where they stand."""

    path: str
    line: int
    cells: Mapping[str, str]

    def refuse(self, column: str, must: str) -> NoReturn:
        raise ConfigurationError(
            f"{self.path}, row {self.line}, column {column}: {self.cells[column]!r:.80} must be {must}; "
            "mend the row"
        )

    def number(self, column: str, is_right: Callable[[float], bool], must: str) -> float:
        try:
            value = float(self.cells[column])
        except ValueError:
            self.refuse(column, must)
        if not is_right(value):
            self.refuse(column, must)
        return value

    def client(self) -> ClientId:
        text = self.cells["client"].strip()
        if not (text.isascii() and text.isdigit()):
            self.refuse("client", "the number of a client, 0 or more")
        return int(text)


def _rows(path: str, key: str, required: Sequence[str], optional: Sequence[str]) -> list[_Row]:
    """The rows of a CSV file, each with a cell for every column; the header is row 1."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [column.strip() for column in next(reader, [])]
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{key}={path!r} cannot be read as CSV ({error}); name another") from error
    known = (*required, *optional)
    for place, column in enumerate(header):
        if column not in known:
            raise ConfigurationError(
                f"{path}, row 1: unknown column {column!r}.{did_you_mean(column, known)} "
                f"Columns are {', '.join(known)}; rename or remove it"
            )
        if column in header[:place]:
            raise ConfigurationError(f"{path}, row 1: column {column!r} stands there twice; remove one")
    missing = [column for column in required if column not in header]
    if missing:
        raise ConfigurationError(f"{path}, row 1: column {missing[0]!r} is missing; add it")
    for line, cells in lines:
        if len(cells) != len(header):
            raise ConfigurationError(
                f"{path}, row {line}: {len(cells)} cells under {len(header)} columns; mend the row"
            )
    if not lines:
        raise ConfigurationError(f"{path} has no row below its header; add one, or set {key}=FILE")
    return [_Row(path, line, dict(zip(header, cells, strict=True))) for line, cells in lines]


def _devices_of(path: str) -> tuple[list[Device], dict[ClientId, int] | None]:
    """Devices row by row; and, if the file says so, the row of each client."""
    rows = _rows(path, "fleet.path", _DEVICE_COLUMNS, (*_DEFAULTS, "client"))
    devices = []
    kinds: dict[str, str] = {}
    for row in rows:
        name, kind = row.cells["device"].strip(), row.cells["kind"].strip()
        if not name:
            row.refuse("device", "the name of a device class")
        if kind not in KINDS:
            row.refuse("kind", f"one of {', '.join(KINDS)}")
        if kinds.setdefault(name, kind) != kind:
            row.refuse("kind", f"{kinds[name]}, as in the rows before: a device class has one kind")
        given = {column: row.number(column, *rule) for column, rule in RANGES.items() if column in row.cells}
        devices.append(Device(name=name, kind="gpu" if kind == "gpu" else "cpu", **{**_DEFAULTS, **given}))
    if "client" not in rows[0].cells:
        return devices, None
    owners: dict[ClientId, int] = {}
    for place, row in enumerate(rows):
        client = row.client()
        if client in owners:
            row.refuse("client", f"another client: row {rows[owners[client]].line} is this one's")
        owners[client] = place
    return devices, owners


def _windows_of(path: str, period_s: float | None) -> dict[ClientId, list[tuple[float, float]]]:
    """The windows of each client, ascending."""
    end_s = math.inf if period_s is None else period_s
    until = "" if period_s is None else f" and at most fleet.period_s={period_s:g}"
    found: dict[ClientId, list[tuple[float, float, _Row]]] = {}
    for row in _rows(path, "fleet.windows_path", _WINDOW_COLUMNS, ()):
        online_s = row.number("online_s", lambda value: 0 <= value < math.inf, "finite, 0 or more")
        must = f"a time after online_s={online_s:g}{until}"
        offline_s = row.number("offline_s", lambda value: value > 0, must)
        if not online_s < offline_s <= end_s:
            row.refuse("offline_s", must)
        found.setdefault(row.client(), []).append((online_s, offline_s, row))
    windows = {}
    for client, own in found.items():
        own.sort(key=lambda window: window[:2])
        for (_, before_s, before), (online_s, _, row) in pairwise(own):
            if online_s < before_s:
                row.refuse("online_s", f"{before_s:g} or later, where the window of row {before.line} ends")
        windows[client] = [window[:2] for window in own]
    return windows


def _check_covered(path: str, rows: Mapping[ClientId, Any], num_clients: int) -> None:
    missing = [client for client in range(num_clients) if client not in rows]
    if missing:
        raise ConfigurationError(
            f"{path} has no row for {len(missing)} of {num_clients} clients, the first of them client "
            f"{missing[0]}; add rows"
        )
