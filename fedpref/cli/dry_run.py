"""``fedpref run --dry-run``: what a run will cost, before it is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

__all__ = ["plan_text"]


def plan_text(config: Mapping[str, Any], allow: Sequence[str] = ()) -> str:
    """Clients, pairs, tensors, messages, bytes, memory and virtual time of a run.

    Virtual time is that of the first plan's slowest client, round after round, jitter aside. Where the
    client rule cannot tell its work beforehand only the links count.

    Raises:
        ConfigurationError: the configuration is wrong.
    """
    from fedpref.cli.build import federation_from
    from fedpref.federation.preflight import foreseen
    from fedpref.maths.weights import num_bytes
    from fedpref.report.units import human_bytes, human_seconds
    from fedpref.simulation.fleet import timing

    federation = federation_from(config, allow)
    population = federation.population
    clients = range(len(population))
    plan = federation.first_plan()
    sizes = np.array([len(shard.pairs) for shard in population.shards])
    weights = plan.tasks[0].weights
    message = num_bytes(weights)
    messages = len(plan.tasks) * federation.rounds
    devices = federation.fleet.deploy(len(clients), federation.seed)
    works = [
        foreseen(federation.rule, task, population.shards[task.client_id], devices) for task in plan.tasks
    ]
    longest_s = max(
        timing(
            replace(devices.device(task.client_id), jitter=0.0), 0, 0, work.flops, message, message
        ).total_s
        for task, work in zip(plan.tasks, works, strict=True)
    )
    held_out = sum(len(asked.pairs) for asked in population.held_out)
    tensors = ", ".join(f"{key} {tuple(array.shape)}" for key, array in list(weights.items())[:4])
    more = f", … {len(weights) - 4} more" if len(weights) > 4 else ""
    dim = getattr(getattr(federation.rule, "backbone", None), "dim", 0)
    features = (int(sizes.sum()) + held_out) * 2 * dim * 4
    return "\n".join(
        [
            f"clients   {len(clients)}, {len(plan.tasks)} a round, {federation.rounds} rounds",
            f"pairs     a client: {sizes.min()} least, {np.median(sizes):g} median, {sizes.max()} most; "
            f"{sizes.sum()} in all, {held_out} held out",
            f"travels   {len(weights)} tensors: {tensors}{more}",
            f"messages  {messages} down and {messages} up of {human_bytes(message)}, "
            f"{human_bytes(2 * messages * message)} of tensor data",
            f"memory    models {human_bytes(message * (len(plan.tasks) + 2))}, "
            f"features at most {human_bytes(features)}",
            f"virtual   about {human_seconds(longest_s * federation.rounds)}, were all rounds as the first",
            *(f"note      {note}" for note in population.notes),
        ]
    )
