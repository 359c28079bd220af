"""fedpref itself: plan, messages, clients, validation and fold; no evaluation, log or checkpoint."""

from __future__ import annotations

from dataclasses import replace

from fedpref.benchmarks.throughput.features import KEEP
from fedpref.benchmarks.throughput.job import SEED, Between, Job, Size
from fedpref.federation.federation import Federation, Warmable
from fedpref.flower.fence import streams_kept
from fedpref.simulation.cohort import Cohort
from fedpref.simulation.executor import Executor
from fedpref.simulation.inline import Inline
from fedpref.simulation.ray import RayPool
from fedpref.types import ClientRule, Weights

__all__ = ["cohort", "federation", "inline", "ray", "uncached"]


def inline(job: Job, size: Size, between: Between) -> Weights:
    """One client after the other."""
    return _run(job, size, between, Inline(strict=True))


def uncached(job: Job, size: Size, between: Between) -> Weights:
    """As ``inline``, but every layer runs in every step."""

    def rule(size: Size) -> ClientRule:
        return replace(job.rule(size), use_cache=False)  # type: ignore[type-var]  # a dataclass, as all are

    return inline(replace(job, rule=rule), size, between)


def ray(job: Job, size: Size, between: Between) -> Weights:
    """Two workers."""
    return _run(job, size, between, RayPool(num_workers=2))


def cohort(job: Job, size: Size, between: Between) -> Weights:
    """A cohort as one batch."""
    return _run(job, size, between, Cohort())


def federation(job: Job, size: Size, executor: Executor) -> Federation:
    """The job as a federation that is evaluated and saved at its ends only."""
    return Federation(
        job.population(size.num_clients),
        job.rule(size),
        job.strategy(size),
        size.rounds,
        SEED,
        executor,
        evaluate_every=size.rounds,
        checkpoint_every=size.rounds,
    )


def _run(job: Job, size: Size, between: Between, executor: Executor) -> Weights:
    whole = federation(job, size, executor)
    shards = whole.population.shards
    if isinstance(whole.rule, Warmable) and len(shards) <= KEEP:  # as a run does with shards that are there
        whole.rule.warm([shard.pairs for shard in shards])
    with streams_kept(), whole.grid() as grid:
        rounds = whole.start(grid)
        between()
        for version in range(1, 1 + size.rounds):
            while rounds.version < version:  # a regrouping comes before a round and is part of it
                rounds.advance()
            between()
        models: dict[str, Weights] = dict(whole.strategy.models(rounds.state))
        return next(iter(models.values()))
