"""``fedpref fleet inspect``: what a run's devices have, and how long one task takes on each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpref.report.units import human_bytes, human_seconds

if TYPE_CHECKING:
    from fedpref.simulation.fleet import Device, Devices
    from fedpref.types import Workload

__all__ = ["as_text", "figures_of", "inspect_words"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
WATCHED_S = 7 * 86400.0
STEP_S = 600.0


def inspect_words(words: Sequence[str]) -> dict[str, Any]:
    """Figures of a fleet, deployed for the clients of a configuration.

    Args:
        words: ``key=value`` words as for ``run``.

    Raises:
        ConfigurationError: a word, the data or the fleet is wrong.
    """
    from fedpref.cli.build import backbone_from, check_config, population_from, rule_from
    from fedpref.cli.compose import compose, parse_words, plain
    from fedpref.cli.targets import ALLOWED, build, working_folder_importable
    from fedpref.maths.weights import num_bytes
    from fedpref.seeds import generator
    from fedpref.simulation.device_classes import Mix
    from fedpref.types import HasWorkload, Task

    parsed = parse_words(words)
    config = plain(compose(parsed.all_overrides))
    with working_folder_importable(parsed.allow):
        check_config(config, parsed.allow)
        fleet = build(config["fleet"], "fleet", (*ALLOWED, *parsed.allow))
        population = population_from(config, parsed.allow)
        devices = fleet.deploy(len(population), config["seed"])
        rule = rule_from(config, backbone_from(config, population, parsed.allow), parsed.allow)
    weights = rule.fresh(generator(config["seed"], "fresh"))
    workloads = None
    if isinstance(rule, HasWorkload):
        workloads = [rule.workload(Task(shard.client_id, weights), shard) for shard in population.shards]
    shares = {}
    if isinstance(fleet, Mix):
        shares = {name: device_class.share for name, device_class in fleet.devices.items()}
    figures = figures_of(devices, len(population), num_bytes(weights), workloads, shares)
    return {"fleet": type(fleet).__name__, "rule": type(rule).__name__, **figures}


def figures_of(
    devices: Devices,
    num_clients: int,
    message_bytes: int,
    workloads: Sequence[Workload] | None,
    shares: Mapping[str, float],
) -> dict[str, Any]:
    """What each device class has and takes; quantiles are over the clients of the class.

    Args:
        devices: freshly deployed, because their clock moves on by a week.
        num_clients: of the population.
        message_bytes: tensor data of a message, equal both ways.
        workloads: of each client's task; None where the rule cannot tell.
        shares: asked of each class, as far as they were.
    """
    members: dict[str, list[int]] = {name: [] for name in devices.names}
    for client_id in range(num_clients):
        members[devices.device(client_id).name].append(client_id)
    online = _online_share(devices, num_clients)
    classes = {}
    for name, clients in members.items():
        own = [devices.device(client_id) for client_id in clients]
        work = None if workloads is None else [workloads[client_id] for client_id in clients]
        classes[name] = {
            "clients": len(clients),
            "share_asked": shares.get(name),
            **(_class_figures(own, work, message_bytes, online[clients]) if clients else {}),
        }
    return {
        "num_clients": num_clients,
        "message_bytes": message_bytes,
        "has_workload": workloads is not None,
        "quantiles": list(QUANTILES),
        "devices": classes,
    }


def _class_figures(
    own: Sequence[Device], work: Sequence[Workload] | None, message_bytes: int, online: np.ndarray
) -> dict[str, Any]:
    holds = min(device.memory_bytes for device in own)
    link_s = [
        2 * device.latency_s + message_bytes / device.down_bytes_per_s + message_bytes / device.up_bytes_per_s
        for device in own
    ]
    figures = {
        "kind": "+".join(sorted({device.kind for device in own})),
        "flops_per_s": _quantiles([device.flops_per_s for device in own]),
        "link_s": _quantiles(link_s),
        "memory_bytes": None if math.isinf(holds) else holds,
        "online_share": float(online.mean()),
        "dropout_rate": float(np.mean([device.dropout_rate for device in own])),
    }
    if work is not None:
        pairs = list(zip(own, work, strict=True))
        figures["compute_s"] = _quantiles([task.flops / device.flops_per_s for device, task in pairs])
        figures["needed_bytes"] = max(task.memory_bytes for task in work)
        figures["not_fitting"] = sum(task.memory_bytes > device.memory_bytes for device, task in pairs)
    return figures


def _online_share(devices: Devices, num_clients: int) -> np.ndarray:
    """Part of the first week in which each client is online, shape (num_clients,)."""
    counts = np.zeros(num_clients)
    moments_s = np.arange(0.0, WATCHED_S, STEP_S)
    for clock_s in moments_s:
        online = devices.online(float(clock_s))
        counts[online if isinstance(online, np.ndarray) else slice(None)] += 1
    return counts / len(moments_s)


def _quantiles(values: Sequence[float]) -> list[float]:
    return [float(value) for value in np.quantile(values, QUANTILES)]


def as_text(figures: Mapping[str, Any]) -> str:
    """The figures as a page of text."""
    ranks = "/".join(f"{100 * quantile:g}" for quantile in figures["quantiles"])
    lines = [
        f"{figures['fleet']}: {figures['num_clients']} clients; "
        f"{figures['rule']} sends {human_bytes(figures['message_bytes'])} of tensor data each way; "
        f"quantiles {ranks} % over the clients of a class"
    ]
    if not figures["has_workload"]:
        lines.append(f"note: {figures['rule']} has no workload(): compute time and memory are not known")
    for name, own in figures["devices"].items():
        asked = "" if own["share_asked"] is None else f", {own['share_asked']:.1%} asked"
        lines.append(f"{name}: {own['clients']} clients, {_part(own, figures):.1%}{asked}")
        if own["clients"]:
            lines += [f"  {label:8} {text}" for label, text in _rows(own)]
    return "\n".join(lines)


def _part(own: Mapping[str, Any], figures: Mapping[str, Any]) -> float:
    return float(own["clients"] / max(figures["num_clients"], 1))


def _rows(own: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("speed", f"{' / '.join(f'{value:.3g}' for value in own['flops_per_s'])} flop/s, {own['kind']}")]
    if "compute_s" in own:
        rows.append(("computes", " / ".join(map(human_seconds, own["compute_s"]))))
    rows.append(("link", " / ".join(map(human_seconds, own["link_s"]))))
    holds = "unlimited" if own["memory_bytes"] is None else human_bytes(own["memory_bytes"])
    if "needed_bytes" in own:
        unfit = f"; TOO LITTLE for {own['not_fitting']} clients" if own["not_fitting"] else ""
        rows.append(("memory", f"{human_bytes(own['needed_bytes'])} needed of {holds}{unfit}"))
    else:
        rows.append(("memory", holds))
    lost = f"loses {own['dropout_rate']:.1%} of its tasks"
    rows.append(("online", f"{own['online_share']:.1%} of the first week; {lost}"))
    return rows
