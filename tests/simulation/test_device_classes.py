"""A mix of device classes: shares, spreads, addresses, and values that cannot be."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.simulation.availability import Daily, Markov
from fedpref.simulation.deployed import check_memory
from fedpref.simulation.device_classes import DeviceClass, Mix
from fedpref.simulation.fleet import Fleet, timing

TWO = Mix(
    {"slow": DeviceClass(share=0.25, flops_per_s=1.0), "fast": DeviceClass(share=0.75, flops_per_s=9.0)}
)


def test_the_default_fleet_is_equal_devices_that_never_fail() -> None:
    assert isinstance(Mix(), Fleet)
    devices = Mix().deploy(50, seed=3)
    assert len({devices.device(client) for client in range(50)}) == 1
    assert devices.online(1e9) == range(50)
    # 2e10 flop at 1e10 flop/s; 2.5e6 bytes down at 20 and up at 10 Mbit/s; 50 ms each way.
    assert timing(devices.device(7), 3, 0, 2e10, 2_500_000, 2_500_000) == (1.05, 2.0, 2.05)


def test_classes_have_their_shares_on_average() -> None:
    devices = TWO.deploy(20_000, seed=0)
    counts = Counter(devices.device(client).name for client in range(20_000))
    # Binomial with p = 1/4: six standard deviations.
    assert abs(counts["slow"] / 20_000 - 1 / 4) < 6 * math.sqrt(3 / 16 / 20_000)


def test_a_client_has_the_same_device_in_a_larger_population() -> None:
    fleet = Mix({name: replace(own, speed_sigma=0.5) for name, own in TWO.devices.items()})
    small, large = fleet.deploy(3, seed=1), fleet.deploy(5000, seed=1)
    assert [small.device(client) for client in range(3)] == [large.device(client) for client in range(3)]


def test_other_seeds_deal_other_devices() -> None:
    one, other = (TWO.deploy(100, seed) for seed in (0, 1))
    assert [one.device(client) for client in range(100)] != [other.device(client) for client in range(100)]


def test_a_class_without_share_is_named_and_nobody_has_it() -> None:
    fleet = Mix({"none": DeviceClass(share=0), "all": DeviceClass(), "last": DeviceClass(share=0.0)})
    devices = fleet.deploy(3000, seed=0)
    assert tuple(devices.names) == ("none", "all", "last")
    assert {devices.device(client).name for client in range(3000)} == {"all"}


def test_thirds_written_as_floats_sum_to_one() -> None:
    third = DeviceClass(share=1 / 3)
    Mix({"a": third, "b": third, "c": third}).deploy(10, seed=0)


def test_speeds_are_log_normal_about_their_median() -> None:
    devices = Mix({"phone": DeviceClass(flops_per_s=1e10, speed_sigma=0.7)}).deploy(20_000, seed=0)
    logs = np.log([devices.device(client).flops_per_s for client in range(20_000)])
    assert abs(np.median(logs) - math.log(1e10)) < 6 * 1.2533 * 0.7 / math.sqrt(20_000)
    assert abs(logs.std() / 0.7 - 1) < 6 / math.sqrt(2 * 20_000)
    # A decade between the 5 % and the 95 % quantile: that is what 0.7 was chosen for.
    assert abs(np.quantile(logs, 0.95) - np.quantile(logs, 0.05) - math.log(10)) < 0.08


def test_each_class_keeps_its_own_hours() -> None:
    night = Daily(online_s=1, period_s=10, spread_s=0)
    fleet = Mix({"server": DeviceClass(share=0.5), "phone": DeviceClass(share=0.5, availability=night)})
    devices = fleet.deploy(200, seed=0)
    servers = [client for client in range(200) if devices.device(client).name == "server"]
    assert devices.online(0.5) == range(200)
    assert list(devices.online(1.0)) == servers
    assert 0 < len(servers) < 200


def test_availabilities_of_one_kind_are_drawn_for_clients_and_not_for_classes() -> None:
    """Who owns which device has no say in when its owner is there."""
    chain = Markov(mean_online_s=10, mean_offline_s=10)
    alone = Mix({"a": DeviceClass(availability=chain)}).deploy(300, seed=0)
    halves = Mix({name: DeviceClass(share=0.5, availability=chain) for name in ("a", "b")}).deploy(
        300, seed=0
    )
    for clock_s in (0.0, 8.0, 40.0):
        assert list(alone.online(clock_s)) == list(halves.online(clock_s))


def test_a_population_of_nobody_has_no_devices() -> None:
    assert Mix({"a": DeviceClass(availability=Markov())}).deploy(0, seed=0).online(5.0) == range(0)


@pytest.mark.parametrize("name", ["flops_per_s", "memory_bytes", "down_bytes_per_s", "up_bytes_per_s"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "1"])
def test_rates_that_cannot_be_are_refused_by_their_key(name: str, value: Any) -> None:
    if (name, value) == ("memory_bytes", math.inf):
        Mix({"phone": DeviceClass(memory_bytes=math.inf)})
        return
    with pytest.raises(ConfigurationError, match=rf"^fleet\.devices\.phone\.{name}={value!r} must be "):
        Mix({"phone": DeviceClass(**{name: value})})


@pytest.mark.parametrize(
    "options",
    [
        {"latency_s": -0.1},
        {"latency_s": math.inf},
        {"jitter": math.nan},
        {"speed_sigma": -1},
        {"speed_sigma": 1000},
        {"jitter": 11},
        {"dropout_rate": 1.01},
        {"dropout_rate": -0.01},
        {"power_w": -5},
        {"share": 1.5},
        {"share": math.nan},
        {"kind": "npu"},
        {"availability": "night"},
    ],
)
def test_other_values_that_cannot_be_are_refused_by_their_key(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigurationError, match=rf"^fleet\.devices\.phone\.{name}="):
        Mix({"phone": DeviceClass(**options)})


def test_a_wrong_availability_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigurationError, match=r"^fleet\.devices\.phone\.availability\.online_s=-1 "):
        Mix({"phone": DeviceClass(availability=Daily(online_s=-1))})


def test_shares_that_do_not_sum_to_one_are_named_with_a_mend_that_works() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Mix({"a": DeviceClass(share=0.5), "b": DeviceClass(share=0.4)})
    message = str(caught.value)
    assert "sum to 0.9, not to 1: fleet.devices.a.share=0.5, fleet.devices.b.share=0.4" in message
    assert message.endswith("set fleet.devices.b.share=0.5, say")
    with pytest.raises(ConfigurationError, match=r"sum to 3, not to 1: .*change several"):
        Mix({name: DeviceClass() for name in "abc"})


@pytest.mark.parametrize("devices", [{}, [], None])
def test_a_fleet_needs_a_class(devices: Any) -> None:
    with pytest.raises(ConfigurationError, match="at least one device class"):
        Mix(devices)


def test_options_without_a_class_are_refused_with_the_nearest_class() -> None:
    with pytest.raises(ConfigurationError, match=r"^fleet\.devices\.phnoe=.*Did you mean 'phone'\?"):
        Mix({"phone": DeviceClass(), "phnoe": {"share": 0.5}})  # type: ignore[dict-item]


def test_memory_that_does_not_fit_names_the_class_that_lacks_most_and_the_mend() -> None:
    fleet = Mix(
        {"big": DeviceClass(share=0.5, memory_bytes=2000), "small": DeviceClass(share=0.5, memory_bytes=1000)}
    )
    devices = fleet.deploy(40, seed=0)
    check_memory(devices, [(client, 1000.0) for client in range(40)])
    small = [client for client in range(40) if devices.device(client).name == "small"]
    with pytest.raises(ConfigurationError) as caught:
        check_memory(devices, [(client, 1500.0) for client in range(40)])
    message = str(caught.value)
    assert message.startswith(
        f"{len(small)} clients cannot hold their task: "
        f"client {small[0]} on a small needs 1,500 bytes and has 1,000"
    )
    for mend in (
        "fleet.devices.small.memory_bytes=1500",
        "client.batch_pairs",
        "fleet.devices.small.share=0",
    ):
        assert mend in message
    with pytest.raises(ConfigurationError, match=f"client {small[1]} on a small needs 1,800"):
        check_memory(devices, [(small[0], 1500.0), (small[1], 1800.0), (small[2], 1800.0)])
