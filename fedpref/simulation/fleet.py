"""How long a task takes on a client's device and link, and who is online."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from fedpref.errors import ConfigurationError
from fedpref.types import ClientId

__all__ = ["Fleet", "Uniform"]


class Fleet(Protocol):
    """All devices of a population; a frozen dataclass, and every draw has its task for an address."""

    def duration_s(
        self, client_id: ClientId, task_number: int, flops: float, bytes_down: int, bytes_up: int
    ) -> float:
        """Virtual seconds from sending a task to receiving its answer; infinity if none ever comes.

        Args:
            client_id: whose device.
            task_number: address of this task's randomness.
            flops: counted work of the client rule.
            bytes_down: tensor data sent. Raw bytes, because frames hold ids of varying length, which
                would part clients that are equal.
            bytes_up: tensor data returned.
        """
        ...

    def is_online(self, client_id: ClientId, clock_s: float) -> bool:
        """True if the device can be given a task now."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Equal devices on equal links, always online.

    Attributes:
        flops_per_s: sustained speed; 1e10 is a modest phone.
        down_bytes_per_s: download; 2.5e6 is 20 Mbit/s.
        up_bytes_per_s: upload; 1.25e6 is 10 Mbit/s.
        latency_s: of one message, paid in both directions.
    """

    flops_per_s: float = 1e10
    down_bytes_per_s: float = 2.5e6
    up_bytes_per_s: float = 1.25e6
    latency_s: float = 0.05

    def __post_init__(self) -> None:
        for name in ("flops_per_s", "down_bytes_per_s", "up_bytes_per_s"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"fleet.{name}={getattr(self, name)!r} must be above 0")
        if not 0 <= self.latency_s < math.inf:
            raise ConfigurationError(f"fleet.latency_s={self.latency_s!r} must be 0 or more")

    def duration_s(
        self, client_id: ClientId, task_number: int, flops: float, bytes_down: int, bytes_up: int
    ) -> float:
        """Latency, download, compute and upload, one after the other."""
        link_s = bytes_down / self.down_bytes_per_s + bytes_up / self.up_bytes_per_s
        return 2 * self.latency_s + link_s + flops / self.flops_per_s

    def is_online(self, client_id: ClientId, clock_s: float) -> bool:
        """Always."""
        return True
