"""Fleets whose times a test can choose."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fedpref.simulation.fleet import Device

__all__ = ["Timed"]


class Timed:
    """Client i needs ``seconds[i]`` for any task, the last number standing for all further clients.

    Attributes:
        is_online: whether a client is online at a moment.
    """

    seed = 0
    names = ("toy",)

    def __init__(
        self, *seconds: float, is_online: Callable[[int, float], bool] = lambda client, clock_s: True
    ) -> None:
        self.seconds = seconds
        self.is_online = is_online
        self.num_clients = 0

    def deploy(self, num_clients: int, seed: int) -> Timed:
        self.num_clients = num_clients
        return self

    def device(self, client_id: int) -> Device:
        half_s = self.seconds[min(client_id, len(self.seconds) - 1)] / 2  # latency is paid both ways
        return Device("toy", "cpu", math.inf, math.inf, math.inf, math.inf, half_s, 0.0, 0.0, 1.0)

    def online(self, clock_s: float) -> range | np.ndarray:
        there = [client for client in range(self.num_clients) if self.is_online(client, clock_s)]
        return range(self.num_clients) if len(there) == self.num_clients else np.array(there, dtype=np.int64)

    def online_until_s(self, client_id: int, clock_s: float) -> float:
        return math.inf

    def next_online_s(self, clock_s: float) -> float:
        return clock_s if len(self.online(clock_s)) else math.inf
