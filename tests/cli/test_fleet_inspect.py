"""``fedpref fleet inspect``: presets compose, overrides act, and the figures are those of one task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedpref.cli.build import check_config
from fedpref.cli.compose import compose, parse_words, plain
from fedpref.cli.fleet import as_text, figures_of
from fedpref.cli.targets import build
from fedpref.simulation.device_classes import DeviceClass, Mix
from fedpref.types import Workload

TINY = ("data.preset=tiny", "data.form=attributes")
PRESETS = ("uniform", "silo", "phones", "mixed")


def fleet(*words: str) -> Any:
    config = plain(compose(parse_words(words).all_overrides))
    check_config(config)
    return build(config["fleet"], "fleet")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_deploys_and_leaves_somebody_online(preset: str) -> None:
    devices = fleet(f"fleet={preset}").deploy(300, seed=0)
    assert {devices.device(client).name for client in range(300)} == set(devices.names)
    assert len(devices.online(0.0)) > 50


def test_the_uniform_preset_is_the_fleet_of_a_federation_in_python() -> None:
    assert fleet("fleet=uniform") == Mix()


def test_a_class_of_the_mixed_fleet_is_that_of_the_preset_it_comes_from_but_for_its_share() -> None:
    mixed, phones = fleet("fleet=mixed").devices["phone"], fleet("fleet=phones").devices["phone"]
    assert (mixed.flops_per_s, mixed.speed_sigma, mixed.availability) == (
        phones.flops_per_s,
        phones.speed_sigma,
        phones.availability,
    )
    assert (mixed.share, phones.share) == (0.6, 1.0)


def test_an_override_reaches_one_class_and_a_class_can_be_added_or_removed() -> None:
    words = ("fleet=mixed", "fleet.devices.phone.share=0.4", "fleet.devices.laptop.share=0.5")
    assert fleet(*words).devices["phone"].share == 0.4
    added = fleet(
        "fleet=phones",
        "fleet.devices.phone.share=0.5",
        "fleet.devices.tablet={_target_: fedpref.simulation.device_classes.DeviceClass, share: 0.5}",
    )
    assert list(added.devices) == ["phone", "tablet"]
    removed = fleet("fleet=mixed", "~fleet.devices.phone", "fleet.devices.laptop.share=0.9")
    assert set(removed.devices) == {"server", "laptop"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("fleet=mixed", "fleet.devices.phone.share=0.5"), "shares of the fleet sum to 0.9"),
        (("fleet.devices.device.flops_per_s=0",), "fleet.devices.device.flops_per_s=0 must be"),
        (
            ("fleet.devices.device.flops_per_s=fast",),
            "fleet.devices.device.flops_per_s='fast' is not a number",
        ),
        (("fleet.devices.device.flops=1",), "Did you mean 'flops_per_s'?"),
        (("fleet.devices.devise.share=0",), "Did you mean 'device'?"),
        (("fleet=phones", "fleet.devices.phone.availability.hours=8"), "Daily takes online_s, period_s"),
        (("fleet=phones", "fleet.devices.phone.availability._target_=os.system"), "outside the allowed"),
        (("fleet=phones", "fleet.devices.phone.availability._target_=fedpref.FedAvg"), "_target_"),
        (("fleet=traces",), "fleet.path is required"),
    ],
)
def test_what_is_wrong_exits_with_two_and_its_key(
    fedpref: Callable[..., Any], words: tuple[str, ...], complaint: str
) -> None:
    done = fedpref("fleet", "inspect", *TINY, *words)
    assert done.code == 2
    assert complaint in done.err


def test_inspection_prints_every_class_as_text_and_as_json(fedpref: Callable[..., Any]) -> None:
    words = ("fleet", "inspect", *TINY, "fleet=mixed")
    text, figures = fedpref(*words).out, json.loads(fedpref(*words, "--format", "json").out)
    assert figures["num_clients"] == 16
    assert sum(own["clients"] for own in figures["devices"].values()) == 16
    for name, own in figures["devices"].items():
        assert f"{name}: {own['clients']} clients" in text
        if own["clients"]:
            assert own["link_s"] == sorted(own["link_s"])


def test_traces_are_inspected_too(fedpref: Callable[..., Any], folder: Path) -> None:
    (folder / "d.csv").write_text(
        "device,kind,flops_per_s,memory_bytes,down_bytes_per_s,up_bytes_per_s,latency_s\n"
        "tablet,cpu,2e10,4e9,2e6,1e6,0.1\n"
    )
    done = fedpref("fleet", "inspect", *TINY, "fleet=traces", "fleet.path=d.csv", "--format=json")
    own = json.loads(done.out)["devices"]["tablet"]
    assert (own["clients"], own["share_asked"], own["flops_per_s"]) == (16, None, [2e10] * 5)


def test_times_and_memory_are_those_of_one_task() -> None:
    device = DeviceClass(
        flops_per_s=4.0, memory_bytes=100, down_bytes_per_s=10.0, up_bytes_per_s=5.0, latency_s=0.5
    )
    devices = Mix({"toy": device}).deploy(3, seed=0)
    work = [Workload(8.0, 50), Workload(12.0, 101), Workload(16.0, 70)]
    figures = {"fleet": "Mix", "rule": "Toy", **figures_of(devices, 3, 20, work, {"toy": 1.0})}
    own = figures["devices"]["toy"]
    # The 5 % quantile of three values lies a tenth of the way from the first to the second.
    assert own["compute_s"] == pytest.approx([2.1, 2.5, 3.0, 3.5, 3.9])
    assert own["link_s"] == pytest.approx([2 * 0.5 + 20 / 10 + 20 / 5] * 5)
    assert (own["needed_bytes"], own["memory_bytes"], own["not_fitting"]) == (101, 100, 1)
    assert "101 B needed of 100 B; TOO LITTLE for 1 clients" in as_text(figures)
    assert own["online_share"] == 1.0


def test_a_rule_that_cannot_tell_its_work_is_said_to_in_one_line() -> None:
    figures = {"fleet": "Mix", "rule": "Toy", **figures_of(Mix().deploy(3, 0), 3, 20, None, {})}
    assert "compute_s" not in figures["devices"]["device"]
    notes = [line for line in as_text(figures).splitlines() if line.startswith("note: ")]
    assert notes == ["note: Toy has no workload(): compute time and memory are not known"]


def test_a_class_that_nobody_drew_is_listed_without_figures() -> None:
    devices = Mix({"all": DeviceClass(), "none": DeviceClass(share=0)}).deploy(3, 0)
    figures = {"fleet": "Mix", "rule": "Toy", **figures_of(devices, 3, 20, None, {"all": 1.0, "none": 0.0})}
    assert figures["devices"]["none"] == {"clients": 0, "share_asked": 0.0}
    assert "none: 0 clients, 0.0%, 0.0% asked" in as_text(figures)
