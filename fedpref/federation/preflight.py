"""What can be refused before a run: too little memory, deadlines that nobody can meet, pools of no device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fedpref.errors import ConfigurationError
from fedpref.flower.pace import paced
from fedpref.flower.segments import as_training
from fedpref.maths.weights import num_bytes
from fedpref.simulation.deployed import check_memory
from fedpref.simulation.fleet import Devices, node_config, timing
from fedpref.simulation.ray import RayPool
from fedpref.types import ClientRule, HasWorkload, Shard, Task, Workload

if TYPE_CHECKING:
    from fedpref.federation.federation import Federation

__all__ = ["check_deadline", "foreseen", "preflight"]

_FLOAT32_BYTES = 4


def preflight(federation: Federation, tasks: Sequence[Task]) -> None:
    """Refuse a federation whose first tasks its devices cannot do, or whose executor has no place for them.

    Args:
        federation: what will run.
        tasks: of its first plan, at time 0, with everybody idle.

    Raises:
        ConfigurationError: naming the device class, the deadline or the pool, and the mend.
    """
    shards = federation.population.shards
    devices = federation.fleet.deploy(len(shards), federation.seed)
    if isinstance(federation.executor, RayPool):
        owned = {devices.device(shard.client_id).name for shard in shards}
        federation.executor.check_classes(devices.names, owned)
    if isinstance(federation.rule, HasWorkload) and tasks:
        rule = federation.rule
        # Asking for the work of a shard of texts tokenises it: only where the answer can matter.
        limited = (s for s in shards if devices.device(s.client_id).memory_bytes < math.inf)
        works = ((shard, replace(tasks[0], client_id=shard.client_id)) for shard in limited)
        needed = ((s.client_id, rule.workload(as_training(t, rule), s).memory_bytes) for s, t in works)
        check_memory(devices, needed)
    deadlines = [task for task in tasks if task.expires_s < math.inf]
    if deadlines:
        check_deadline(federation.rule, deadlines[0], shards, devices)


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
