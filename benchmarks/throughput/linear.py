"""The linear Bradley-Terry head: 30 steps of plain gradient descent."""

from __future__ import annotations

from functools import lru_cache

import torch

from fedpref.benchmarks.throughput.features import DIM, KEEP, features, population
from fedpref.benchmarks.throughput.job import Job, Peer, Tensors
from fedpref.clients.linear_reward import LinearReward
from fedpref.models.given import Given
from fedpref.strategies.fedavg import FedAvg

__all__ = ["JOB"]

_LR = 0.3


class _Head(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.score = torch.nn.Linear(DIM, 1, bias=False)

    def loss(self, differences: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.softplus(-self.score(differences)).mean()


@lru_cache(maxsize=KEEP)
def _tensors(client: int) -> Tensors:
    chosen, rejected = features(client % KEEP)
    return (torch.from_numpy(chosen - rejected),)


JOB = Job(
    name="linear",
    title="linear Bradley-Terry head, 384 features",
    rule=lambda size: LinearReward(Given(DIM), lr=_LR, local_steps=size.steps, batch_pairs=size.batch_pairs),
    strategy=lambda size: FedAvg(cohort_size=size.cohort_size),
    population=population,
    peer=Peer(_Head, _tensors, torch.optim.SGD, _LR, KEEP),
)
