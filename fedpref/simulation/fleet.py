"""What the clients run on: the contract of a fleet, a device and its link, and how long a task takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from fedpref.seeds import generator
from fedpref.types import ClientId

__all__ = ["Device", "Devices", "Fleet", "Kind", "Timing", "lost_at", "node_config", "timing"]

Kind = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Device:
    """One client's machine and its link to the server.

    Attributes:
        name: its device class.
        kind: "cpu" or "gpu".
        flops_per_s: sustained speed, floating-point operations a second.
        memory_bytes: what a task may hold.
        down_bytes_per_s: download.
        up_bytes_per_s: upload.
        latency_s: of one message, paid in both directions.
        jitter: standard deviation of the logarithm of the factor by which a task's time varies.
        dropout_rate: probability that a task is lost half-way.
        power_w: drawn while computing; for the energy estimate.
    """

    name: str
    kind: Kind
    flops_per_s: float
    memory_bytes: float
    down_bytes_per_s: float
    up_bytes_per_s: float
    latency_s: float
    jitter: float
    dropout_rate: float
    power_w: float


class Timing(NamedTuple):
    """Virtual seconds of one task: download and latency, computing, upload and latency."""

    down_s: float
    compute_s: float
    up_s: float

    @property
    def total_s(self) -> float:
        """From sending the task to receiving its answer."""
        return self.down_s + self.compute_s + self.up_s


@runtime_checkable
class Fleet(Protocol):
    """A frozen dataclass of settings from which the devices of a population are drawn."""

    def deploy(self, num_clients: int, seed: int) -> Devices:
        """The devices of ``num_clients`` clients, each drawn at an address of its own.

        Raises:
            ConfigurationError: the settings do not fit this population.
        """
        ...


class Devices(Protocol):
    """The devices of a population. Equal fleets, populations and seeds give equal devices and times.

    Nothing of it is in a checkpoint: every answer follows from the seed and the clock. The clock of
    successive questions never goes back.
    """

    @property
    def seed(self) -> int:
        """Address of what happens to a task."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """All device classes, in the order of the fleet."""
        ...

    def device(self, client_id: ClientId) -> Device:
        """The device of a client."""
        ...

    def online(self, clock_s: float) -> range | np.ndarray:
        """Clients that can be given a task now, ascending; the very range of all where none is offline."""
        ...

    def online_until_s(self, client_id: ClientId, clock_s: float) -> float:
        """When a client that is online goes offline; infinity if never."""
        ...

    def next_online_s(self, clock_s: float) -> float:
        """The first moment from now on in which somebody is online; infinity if there is none."""
        ...


def node_config(device: Device) -> dict[str, float]:
    """What a client's own node knows of its device, under the names that Flower's node config has."""
    return {
        "flops-per-s": device.flops_per_s,
        "down-bytes-per-s": device.down_bytes_per_s,
        "up-bytes-per-s": device.up_bytes_per_s,
        "latency-s": device.latency_s,
        "jitter": device.jitter,
    }


def timing(
    device: Device, seed: int, task_number: int, flops: float, bytes_down: int, bytes_up: int
) -> Timing:
    """Time of a task on a device: latency, download, computing, upload and latency, one after the other.

    Args:
        device: whose.
        seed: with ``task_number`` the address of the jitter, which stretches everything alike.
        task_number: of the task.
        flops: counted work.
        bytes_down: tensor data sent. Raw bytes, because frames hold ids of varying length, which would
            part clients that are equal.
        bytes_up: tensor data returned.
    """
    factor = 1.0
    if device.jitter > 0:
        normal = generator(seed, "jitter", task_number).standard_normal()
        factor = float(np.exp(device.jitter * normal))
    return Timing(
        factor * (device.latency_s + bytes_down / device.down_bytes_per_s),
        factor * flops / device.flops_per_s,
        factor * (device.latency_s + bytes_up / device.up_bytes_per_s),
    )


def lost_at(device: Device, seed: int, task_number: int) -> float | None:
    """The part of its time, in [0, 1), after which a task is lost; None for most tasks."""
    if device.dropout_rate <= 0:
        return None
    chance, part = generator(seed, "dropout", task_number).uniform(size=2)
    return float(part) if chance < device.dropout_rate else None
