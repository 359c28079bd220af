"""A fleet as a mix of device classes, from which every client draws its own device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fedpref.errors import ConfigurationError, did_you_mean
from fedpref.simulation.availability import Always, Availability
from fedpref.simulation.deployed import Deployed
from fedpref.simulation.fleet import Device, Kind
from fedpref.simulation.per_client import per_client
from fedpref.simulation.presence import Presence
from fedpref.types import ClientId

__all__ = ["KINDS", "RANGES", "DeviceClass", "Mix"]

KINDS = ("cpu", "gpu")


def _is_rate(value: float) -> bool:
    return 0 < value < math.inf


def _is_amount(value: float) -> bool:
    return 0 <= value < math.inf


def _is_spread(value: float) -> bool:
    return 0 <= value <= 10  # of a logarithm; beyond, factors overflow


RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "flops_per_s": (_is_rate, "a finite number above 0"),
    "memory_bytes": (lambda value: value > 0, "a number above 0"),
    "down_bytes_per_s": (_is_rate, "a finite number above 0"),
    "up_bytes_per_s": (_is_rate, "a finite number above 0"),
    "latency_s": (_is_amount, "a finite number, 0 or more"),
    "jitter": (_is_spread, "a number from 0 to 10"),
    "dropout_rate": (lambda value: 0 <= value <= 1, "a probability, from 0 to 1"),
    "power_w": (_is_amount, "a finite number, 0 or more"),
}
"""Which numbers of a device make sense, and how to say it."""


@dataclass(frozen=True)
class DeviceClass:
    """Devices of a kind. The defaults are a modest phone on a good link that is always online.

    The fleet that holds a class checks it, because it knows the class's name.

    Attributes:
        share: probability that a client has such a device.
        kind: "cpu" or "gpu".
        flops_per_s: median sustained speed; 1e10 is a modest phone.
        speed_sigma: standard deviation of the logarithm of a client's speed; 0 makes all equal.
        memory_bytes: what a task may hold; infinity (``.inf`` in YAML) never refuses one.
        down_bytes_per_s: download; 2.5e6 is 20 Mbit/s.
        up_bytes_per_s: upload; 1.25e6 is 10 Mbit/s.
        latency_s: of one message, paid in both directions.
        jitter: standard deviation of the logarithm of the factor by which a task's time varies.
        dropout_rate: probability that a task is lost half-way.
        power_w: drawn while computing; for the energy estimate.
        availability: when the devices are online.
    """

    share: float = 1.0
    kind: Kind = "cpu"
    flops_per_s: float = 1e10
    speed_sigma: float = 0.0
    memory_bytes: float = math.inf
    down_bytes_per_s: float = 2.5e6
    up_bytes_per_s: float = 1.25e6
    latency_s: float = 0.05
    jitter: float = 0.0
    dropout_rate: float = 0.0
    power_w: float = 5.0
    availability: Availability = field(default_factory=Always)

    def check(self, key: str) -> None:
        """Refuse what cannot be a device.

        Raises:
            ConfigurationError: naming the option below the configuration key ``key``.
        """
        if self.kind not in KINDS:
            raise ConfigurationError(f"{key}.kind={self.kind!r} must be one of {', '.join(KINDS)}")
        own = {
            "share": (RANGES["dropout_rate"][0], "a part of all clients, from 0 to 1"),
            "speed_sigma": RANGES["jitter"],
        }
        for name, (is_right, words) in {**own, **RANGES}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_right(value):
                raise ConfigurationError(f"{key}.{name}={value!r} must be {words}")
        if not isinstance(self.availability, Availability):
            raise ConfigurationError(
                f"{key}.availability={self.availability!r:.80} must be an availability, such as "
                f"{{_target_: {Always.__module__}.Always}}"
            )
        self.availability.check(f"{key}.availability")

    def device(self, name: str, normal: float) -> Device:
        """The device of a client whose speed deviates by ``normal`` standard deviations."""
        return Device(
            name=name,
            kind=self.kind,
            flops_per_s=self.flops_per_s * math.exp(self.speed_sigma * normal),
            memory_bytes=self.memory_bytes,
            down_bytes_per_s=self.down_bytes_per_s,
            up_bytes_per_s=self.up_bytes_per_s,
            latency_s=self.latency_s,
            jitter=self.jitter,
            dropout_rate=self.dropout_rate,
            power_w=self.power_w,
        )


@dataclass(frozen=True)
class Mix:
    """A fleet of one or several device classes; a client's class and speed are drawn at its address.

    Clients draw independently, so that a client's device does not depend on how many there are; the
    number of clients in a class is therefore its share on average only.

    Attributes:
        devices: the classes by name; their shares sum to one.

    Raises:
        ConfigurationError: there is no class, a class makes no sense, or the shares do not sum to one.
    """

    devices: Mapping[str, DeviceClass] = field(default_factory=lambda: {"device": DeviceClass()})

    def __post_init__(self) -> None:
        if not isinstance(self.devices, Mapping) or not self.devices:
            raise ConfigurationError("fleet.devices must name at least one device class")
        known = [name for name, found in self.devices.items() if isinstance(found, DeviceClass)]
        for name, device_class in self.devices.items():
            key = f"fleet.devices.{name}"
            if not isinstance(device_class, DeviceClass):
                raise ConfigurationError(
                    f"{key}={device_class!r:.80} is no device class.{did_you_mean(str(name), known)} "
                    f"There are {', '.join(known) or 'none'}; for a new one set {key}._target_="
                    f"{DeviceClass.__module__}.{DeviceClass.__name__}"
                )
            device_class.check(key)
        missing = 1 - math.fsum(device_class.share for device_class in self.devices.values())
        if abs(missing) > 1e-9:
            keys = {f"fleet.devices.{name}.share": found.share for name, found in self.devices.items()}
            mend = "; change several"
            for key, share in keys.items():
                if 0 <= share + missing <= 1:
                    mend = f"; set {key}={share + missing:.10g}, say"
            listed = ", ".join(f"{key}={share:g}" for key, share in keys.items())
            raise ConfigurationError(
                f"shares of the fleet sum to {1 - missing:.10g}, not to 1: {listed}{mend}"
            )

    def deploy(self, num_clients: int, seed: int) -> Deployed:
        """The devices of a population; see ``Fleet``."""
        names, classes = list(self.devices), list(self.devices.values())
        edges = np.cumsum([device_class.share for device_class in classes])
        chance = per_client(seed, "device", num_clients, lambda rng, size: rng.random(size))
        # The sum of the shares may fall short of one by rounding; the last class that has any takes it.
        last = max(place for place, device_class in enumerate(classes) if device_class.share > 0)
        places = np.minimum(np.searchsorted(edges, chance, side="right"), last)
        normals = per_client(seed, "speed", num_clients, lambda rng, size: rng.standard_normal(size))

        def make(client_id: ClientId) -> Device:
            place = int(places[client_id])
            return classes[place].device(names[place], float(normals[client_id]))

        timelines = []
        for place, device_class in enumerate(classes):
            clients = np.flatnonzero(places == place)
            timeline = device_class.availability.timeline(clients, seed) if clients.size else None
            if timeline is not None:
                timelines.append((clients, timeline))
        return Deployed(seed, names, make, Presence(num_clients, timelines))
