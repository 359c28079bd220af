"""The work that every simulator does, and how each is told to stop between rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from fedpref.objectives.batches import batches
from fedpref.seeds import generator
from fedpref.types import ClientRule, Population, Strategy, Weights

__all__ = ["SEED", "Between", "Job", "Peer", "Scale", "Size", "Tensors", "batches_of", "descend", "steps_of"]

SEED = 0

Between: TypeAlias = Callable[[], None]
"""Called by a simulator before its first round and after each: it waits there until its next turn."""

Tensors: TypeAlias = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Size:
    """How large a federation is.

    Attributes:
        num_clients: registered.
        cohort_size: that work in a round.
        rounds: to run.
        batch_pairs: pairs a step; None is the whole shard, which leaves nothing to chance.
        steps: of a client's task.
    """

    num_clients: int
    cohort_size: int
    rounds: int
    batch_pairs: int | None = 16
    steps: int = 30


@dataclass(frozen=True)
class Scale:
    """How much of a job is measured.

    Attributes:
        clients: numbers of registered clients.
        cohort_size: that work in a round.
        rounds: measured.
        warm_up: rounds before them.
        agreement: the small federation in which all variants must end at the same weights.
        is_apart: measure what a run does besides training, too.
    """

    clients: Sequence[int] = (200, 1_000)
    cohort_size: int = 100
    rounds: int = 12
    warm_up: int = 3
    agreement: Size = Size(num_clients=8, cohort_size=8, rounds=2, batch_pairs=None)
    is_apart: bool = True


@dataclass(frozen=True, eq=False)
class Peer:
    """A job as one writes it in PyTorch.

    Attributes:
        module: with ``loss(*tensors)``, and the names of parameters that the rule's weights have.
        tensors: what a client trains on, by its number; row i is pair i in each.
        optimizer: of a client's task, afresh.
        lr: step size of that.
        keep: clients whose tensors are kept.
    """

    module: Callable[[], torch.nn.Module]
    tensors: Callable[[int], Tensors]
    optimizer: Callable[..., torch.optim.Optimizer]
    lr: float
    keep: int

    def warm(self, num_clients: int) -> None:
        """Make the tensors of all clients, if that many are kept."""
        if num_clients <= self.keep:
            for client in range(num_clients):
                self.tensors(client)

    def fresh(self, weights: Weights) -> torch.nn.Module:
        """A module with these weights."""
        module = self.module()
        module.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in weights.items()})
        return module


@dataclass(frozen=True, eq=False)
class Job:
    """A federation to run.

    Attributes:
        name: for the command line.
        title: for the table.
        rule: how a client learns in fedpref, of a size.
        strategy: what the server does, of a size.
        population: of a number of clients; shards are made when they are needed.
        peer: the same for others; None where they have no such algorithm.
        scale: what is measured unless somebody asks for something else.
        is_split: the rule keeps the activations of frozen layers, and may be told not to.
    """

    name: str
    title: str
    rule: Callable[[Size], ClientRule]
    strategy: Callable[[Size], Strategy[Any]]
    population: Callable[[int], Population]
    peer: Peer | None
    scale: Scale = Scale()
    is_split: bool = False


def steps_of(num_pairs: int, size: Size, *address: int | str) -> Sequence[np.ndarray]:
    """Row numbers of a client's batches: drawn as fedpref draws them, so that no simulator saves that."""
    rng = generator(SEED, "task", *address)
    return list(batches(num_pairs, size.batch_pairs, size.steps, rng))


def batches_of(tensors: Tensors, size: Size, *address: int | str) -> Iterator[Tensors]:
    """The batches themselves."""
    for rows in steps_of(len(tensors[0]), size, *address):
        chosen = torch.from_numpy(rows)
        yield tuple(tensor[chosen] for tensor in tensors)


def descend(peer: Peer, module: Any, client: int, size: Size, *address: int | str) -> None:
    """A client's task as one writes it by hand."""
    optimizer = peer.optimizer(module.parameters(), lr=peer.lr)
    for batch in batches_of(peer.tensors(client), size, *address):
        optimizer.zero_grad()
        module.loss(*batch).backward()
        optimizer.step()
