"""A plain PyTorch loop: no transport, no validation, a running mean as aggregation."""

from __future__ import annotations

import torch

from fedpref.benchmarks.throughput.job import SEED, Between, Job, Size, descend
from fedpref.flower.rounds import fresh_from
from fedpref.seeds import generator
from fedpref.types import Weights

__all__ = ["plain"]


def plain(job: Job, size: Size, between: Between) -> Weights:
    """Clients drawn without replacement; equal shards, equal weights."""
    assert job.peer is not None
    job.peer.warm(size.num_clients)
    module = job.peer.fresh(fresh_from(job.rule(size), SEED)("global"))
    parameters = list(module.parameters())
    between()
    for number in range(size.rounds):
        received = [parameter.detach().clone() for parameter in parameters]
        total = [torch.zeros_like(parameter) for parameter in received]
        rng = generator(SEED, "plan", number)
        for client in rng.choice(size.num_clients, size=size.cohort_size, replace=False):
            _put(parameters, received)
            descend(job.peer, module, int(client), size, number, int(client))
            with torch.no_grad():
                for part, parameter in zip(total, parameters, strict=True):
                    part += parameter
        _put(parameters, [part / size.cohort_size for part in total])
        between()
    return {key: value.numpy() for key, value in module.state_dict().items()}


def _put(parameters: list[torch.nn.Parameter], values: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
