"""LoRA of rank 8 on a frozen layer from 384 features to 64, with a head: 30 steps of AdamW."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import torch

from fedpref.benchmarks.throughput.features import DIM, KEEP, features, population
from fedpref.benchmarks.throughput.job import Job, Peer, Tensors
from fedpref.clients.lora_head import LoraHead
from fedpref.models.given import Given
from fedpref.strategies.fedavg import FedAvg
from fedpref.types import Pairs

__all__ = ["JOB"]

_LR, _OUTPUTS, _RANK, _ALPHA = 1e-3, 64, 8, 16
_RULE = LoraHead(Given(DIM), outputs=_OUTPUTS, rank=_RANK, alpha=_ALPHA, lr=_LR)


class _LowRank(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lora_A = torch.nn.Linear(DIM, _RANK, bias=False)
        self.lora_B = torch.nn.Linear(_RANK, _OUTPUTS, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = self.lora_B(self.lora_A(features))
        return product


class _Reward(torch.nn.Module):
    """The frozen layer's own outputs come with the features: nobody computes them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = _LowRank()
        self.score = torch.nn.Linear(_OUTPUTS, 1, bias=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(rows[:, DIM:] + _ALPHA / _RANK * self.layer(rows[:, :DIM]))
        rewards: torch.Tensor = self.score(hidden)
        return rewards

    def loss(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.softplus(self(rejected) - self(chosen)).mean()


@lru_cache(maxsize=KEEP)
def _tensors(client: int) -> Tensors:
    chosen, rejected = features(client % KEEP)
    rows = np.concatenate([chosen, rejected])
    both = torch.from_numpy(np.concatenate([rows, rows @ _frozen().T], axis=1))
    return both[: len(chosen)], both[len(chosen) :]


@lru_cache(maxsize=1)
def _frozen() -> np.ndarray:
    """The layer that all share, asked from the rule: what it makes of the unit vectors."""
    unit, empty = np.eye(DIM, dtype=np.float32), ("",) * DIM
    rows = _RULE._rows(Pairs(empty, unit, unit, empty, empty))[:, 0, DIM:]
    return np.ascontiguousarray(rows.T)


JOB = Job(
    name="lora_head",
    title="LoRA head, 384 to 64, rank 8",
    rule=lambda size: replace(_RULE, local_steps=size.steps, batch_pairs=size.batch_pairs),
    strategy=lambda size: FedAvg(cohort_size=size.cohort_size),
    population=population,
    peer=Peer(_Reward, _tensors, partial(torch.optim.AdamW, betas=(0.9, 0.95), weight_decay=0.0), _LR, KEEP),
)
