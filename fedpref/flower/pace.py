"""How much work a task is on the device that does it: known beforehand, and cut to fit a deadline.

A device's speed and link stand in its node config: ``flops-per-s``, ``down-bytes-per-s``,
``up-bytes-per-s`` and ``latency-s``, and, if its times vary, ``jitter``, the standard deviation of their
logarithm. The simulation writes them; a deployed node may have them too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from flwr.app import Context, Message

from fedpref.flower import wire
from fedpref.flower.node import Shards, partition_of, shard_of
from fedpref.flower.segments import as_training
from fedpref.maths.weights import num_bytes
from fedpref.types import ClientRule, HasWorkload, Scalar, Shard, Task, Workload

__all__ = ["foresight", "paced"]

_UNKNOWN = Workload(0.0, 0.0)
_FLOAT32_BYTES = 4
_IN_TIME_QUANTILE = 1.645  # of the normal distribution: 19 of 20 are below


def foresight(rule: ClientRule, shards: Shards) -> Callable[[Message, Context], Workload]:
    """A function that tells what the answer to a message will take, cheaply and without failing.

    It sees a task as the client will: paced by its deadline, a segment as the training that it is. What
    nobody can tell is ``Workload(0, 0)``: stock messages, evaluations, rules without a ``workload``, and
    messages that the client will refuse.

    Args:
        rule: the local learning rule.
        shards: the clients' data.
    """
    if not isinstance(rule, HasWorkload):
        return lambda message, context: _UNKNOWN

    def foresee(message: Message, context: Context) -> Workload:
        try:
            client_id = partition_of(context)
            task = wire.outline(message, client_id)
            if task is None or task.kind == "evaluate":
                return _UNKNOWN
            shard = shard_of(shards, client_id)
            work = rule.workload(as_training(paced(task, rule, shard, context.node_config), rule), shard)
            return work if 0 <= work.flops < math.inf else _UNKNOWN
        except Exception:  # whatever is wrong with a message, the client's own answer names it
            return _UNKNOWN

    return foresee


def paced(task: Task, rule: ClientRule, shard: Shard, node_config: Mapping[str, Scalar]) -> Task:
    """The task with as many of its local steps as the device manages within the setting ``within_s``.

    That is the most, of 1 … ``local_steps``, whose work and transfers take ``within_s`` seconds or less;
    one step is always done. A device whose times vary leaves so much room that 19 of 20 such tasks are in
    time. A task without the setting, a rule that cannot tell its work, and a node that does not know
    its speed leave everything as it is.

    Args:
        task: only the shapes of its weights are looked at.
        rule: what works; ``local_steps`` of the task or of the rule is the full number of steps.
        shard: of the client.
        node_config: of the client's node.
    """
    full = task.settings.get("local_steps", getattr(rule, "local_steps", None))
    if "within_s" not in task.settings or full is None or not isinstance(rule, HasWorkload):
        return task
    rates = {key: node_config.get(key) for key in ("flops-per-s", "down-bytes-per-s", "up-bytes-per-s")}
    latency_s = node_config.get("latency-s")
    if latency_s is None or not all(isinstance(rate, (int, float)) and rate > 0 for rate in rates.values()):
        return task
    speed, down, up = (float(rate) for rate in rates.values() if rate is not None)
    within_s = float(task.settings["within_s"])
    up_bytes = _FLOAT32_BYTES * sum(math.prod(shape) for shape in task.expected.values())
    # Summed as the simulation sums them: a task that fits to the last bit is not late by the last bit.
    down_s, up_s = float(latency_s) + num_bytes(task.weights) / down, float(latency_s) + up_bytes / up
    stretch = math.exp(_IN_TIME_QUANTILE * float(node_config.get("jitter", 0.0)))

    def fits(steps: int) -> bool:
        flops = rule.workload(as_training(_with_steps(task, steps), rule), shard).flops
        return stretch * (down_s + flops / speed + up_s) <= within_s

    steps = int(full)
    if steps <= 1 or fits(steps):
        return task
    low, high = 1, steps  # `high` does not fit, `low` does or is the least
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return _with_steps(task, low)


def _with_steps(task: Task, steps: int) -> Task:
    return dataclasses.replace(task, settings={**task.settings, "local_steps": steps})
