"""The devices of a population once they are drawn, and whether a task fits into their memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.simulation.fleet import Device, Devices
from fedpref.simulation.presence import Presence
from fedpref.types import ClientId

__all__ = ["Deployed", "check_memory"]


class Deployed:
    """Devices that are made when they are first asked for; see ``Devices``.

    Args:
        seed: address of what happens to a task.
        names: all device classes.
        make: the device of a client.
        presence: who is online.
    """

    def __init__(
        self, seed: int, names: Sequence[str], make: Callable[[ClientId], Device], presence: Presence
    ) -> None:
        self.seed: int = seed
        self.names: Sequence[str] = tuple(names)
        self._make, self._presence = make, presence
        self._made: dict[ClientId, Device] = {}

    def device(self, client_id: ClientId) -> Device:
        """The device of a client."""
        if client_id not in self._made:
            self._made[client_id] = self._make(client_id)
        return self._made[client_id]

    def online(self, clock_s: float) -> range | np.ndarray:
        """Clients that can be given a task now, ascending; the very range of all where none is offline."""
        return self._presence.online(clock_s)

    def online_until_s(self, client_id: ClientId, clock_s: float) -> float:
        """When a client that is online goes offline; infinity if never."""
        return self._presence.online_until_s(client_id, clock_s)

    def next_online_s(self, clock_s: float) -> float:
        """The first moment from now on in which somebody is online; infinity if there is none."""
        return self._presence.next_online_s(clock_s)


def check_memory(devices: Devices, needed: Iterable[tuple[ClientId, float]]) -> None:
    """Refuse a run whose tasks do not fit into the memory of their devices.

    Args:
        devices: of the population.
        needed: clients, and the most bytes that a task of theirs holds at a time.

    Raises:
        ConfigurationError: naming the device class that lacks most, what it holds, what is needed and
            the overrides that mend it.
    """
    lacking = []
    for client_id, num_bytes in needed:
        device = devices.device(client_id)
        if num_bytes > device.memory_bytes:
            lacking.append((num_bytes - device.memory_bytes, num_bytes, client_id, device))
    if not lacking:
        return
    _, num_bytes, client_id, device = max(lacking, key=lambda row: (row[0], -row[2]))
    key = f"fleet.devices.{device.name}"
    raise ConfigurationError(
        f"{len(lacking)} clients cannot hold their task: client {client_id} on a {device.name} needs "
        f"{num_bytes:,.0f} bytes and has {device.memory_bytes:,.0f}; set "
        f"{key}.memory_bytes={num_bytes:.0f} (memory_bytes in the file of fleet=traces), a smaller "
        f"client.batch_pairs, or {key}.share=0 and give its share to other classes"
    )
