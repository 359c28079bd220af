"""What can be refused before a run.

Too few clients, too little memory, GPUs that nobody sees, deadlines that nobody can meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fedpref.errors import ConfigurationError
from fedpref.flower.pace import paced
from fedpref.flower.segments import as_training
from fedpref.maths.weights import num_bytes
from fedpref.simulation.deployed import check_memory
from fedpref.simulation.executor import Executor
from fedpref.simulation.fleet import Devices, node_config, timing
from fedpref.simulation.ray import RayPool
from fedpref.types import ClientRule, HasWorkload, Shard, Task, Workload

if TYPE_CHECKING:
    from fedpref.federation.federation import Federation

__all__ = ["NeedsClients", "OnDevice", "check_deadline", "foreseen", "preflight"]

_FLOAT32_BYTES = 4


@runtime_checkable
class NeedsClients(Protocol):
    """A client rule with shared parts of which each should have a client that it fits best."""

    def needs_clients(self) -> tuple[str, int]:
        """The option that says how many parts there are, and its value: as many clients or more."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """A backbone that loads a model, onto the device that it names, wherever it is used."""

    @property
    def device(self) -> str:
        """Either "cpu" or "cuda"."""
        ...

    def check_device(self) -> None:
        """Raise ConfigurationError if this process has no such device."""
        ...


def preflight(federation: Federation, tasks: Sequence[Task]) -> None:
    """Refuse a federation that is too small for its rule, or whose devices cannot do their first tasks.

    Args:
        federation: what will run.
        tasks: of its first plan, at time 0, with everybody idle.

    Raises:
        ConfigurationError: naming the option, the device class, the deadline or the pool, and the mend.
    """
    shards = federation.population.shards
    if isinstance(federation.rule, NeedsClients):
        option, least = federation.rule.needs_clients()
        if least > len(shards):
            raise ConfigurationError(
                f"client.{option}={least} is more than the {len(shards)} clients, who could not tell so many "
                f"apart; set {len(shards)} or less"
            )
    devices = federation.fleet.deploy(len(shards), federation.seed)
    owned: set[str] = set()
    if isinstance(federation.executor, RayPool):
        owned = {devices.device(client).name for client in range(len(shards))}
        federation.executor.check_classes(devices.names, owned)
    backbone = getattr(federation.rule, "backbone", None)
    if isinstance(backbone, OnDevice):
        _check_gpus(backbone, federation.executor, sorted(owned))
    if isinstance(federation.rule, HasWorkload) and tasks:
        rule = federation.rule
        # Asking for the work of a shard of texts tokenises it: only where the answer can matter.
        clients = range(len(shards))
        limited = (shards[c] for c in clients if devices.device(c).memory_bytes < math.inf)
        works = ((shard, replace(tasks[0], client_id=shard.client_id)) for shard in limited)
        needed = ((s.client_id, rule.workload(as_training(t, rule), s).memory_bytes) for s, t in works)
        check_memory(devices, needed)
    deadlines = [task for task in tasks if task.expires_s < math.inf]
    if deadlines:
        check_deadline(federation.rule, deadlines[0], shards, devices)


def _check_gpus(backbone: OnDevice, executor: Executor, owned: Sequence[str]) -> None:
    """Refuse a model on a GPU that a Ray worker, or this process, which evaluates, would not see."""
    if backbone.device == "cuda" and isinstance(executor, RayPool):
        for name in owned:
            key = f"executor.pools.{name}" if name in executor.pools else "executor"
            if not executor.by_key[key].num_gpus:
                raise ConfigurationError(
                    f"backbone.device=cuda does not go with {key}.num_gpus=0: a Ray worker sees only the "
                    f"GPUs that it reserves; set {key}.num_gpus=0.25, or backbone.device=cpu"
                )
    backbone.check_device()


def foreseen(rule: ClientRule, task: Task, shard: Shard, devices: Devices) -> Workload:
    """What a task takes on the device of its client; nothing where the rule cannot tell."""
    if not isinstance(rule, HasWorkload) or task.kind == "evaluate":
        return Workload(0.0, 0.0)
    config = node_config(devices.device(task.client_id))
    return rule.workload(as_training(paced(task, rule, shard, config), rule), shard)


def check_deadline(rule: ClientRule, task: Task, shards: Sequence[Shard], devices: Devices) -> None:
    """Refuse a deadline that no client of the population can meet, jitter aside.

    Args:
        rule: how the clients work.
        task: one with an expiry, sent at time 0; every client is tried with it.
        shards: of the population.
        devices: of the population.

    Raises:
        ConfigurationError: naming the fastest client and what it needs.
    """
    up_bytes = _FLOAT32_BYTES * sum(math.prod(shape) for shape in task.expected.values())
    fastest_s, fastest = math.inf, -1
    for shard in shards:
        own = replace(task, client_id=shard.client_id)
        device = replace(devices.device(shard.client_id), jitter=0.0)
        flops = foreseen(rule, own, shard, devices).flops
        needed_s = timing(device, 0, 0, flops, num_bytes(task.weights), up_bytes).total_s
        if needed_s <= task.expires_s:
            return
        if needed_s < fastest_s:
            fastest_s, fastest = needed_s, shard.client_id
    name = devices.device(fastest).name
    # Who works by the deadline has cut the steps to one already.
    other = "a faster fleet" if "within_s" in task.settings else "client.local_steps lower"
    raise ConfigurationError(
        f"strategy.deadline_s: tasks expire after {task.expires_s:g} s, but the fastest client, {fastest} on "
        f"a {name}, needs {fastest_s:.4g} s; set a longer one, or {other}"
    )
