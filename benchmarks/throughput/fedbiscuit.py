"""FedBiscuit with three selectors on the same features: each round regroups all clients, then trains."""

from __future__ import annotations

from fedpref.benchmarks.throughput.features import DIM, population
from fedpref.benchmarks.throughput.job import Job
from fedpref.clients.selector import Selector
from fedpref.models.given import Given
from fedpref.strategies.fedbiscuit import FedBiscuit

__all__ = ["JOB"]

JOB = Job(
    name="fedbiscuit",
    title="FedBiscuit, 3 selectors, a regrouping of everybody each round",
    rule=lambda size: Selector(
        Given(DIM), init_std=0.05, local_steps=size.steps, batch_pairs=size.batch_pairs
    ),
    strategy=lambda size: FedBiscuit(
        num_selectors=3, warmup_rounds=0, regroup_every=1, cohort_size=size.cohort_size
    ),
    population=population,
    peer=None,
)
