"""A federation: everything that decides a run, in one frozen value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from fedpref.errors import ConfigurationError
from fedpref.federation.preflight import preflight
from fedpref.federation.run import Record, Result, Run
from fedpref.flower.app import client_app
from fedpref.flower.exchange import Exchange
from fedpref.flower.fence import streams_kept
from fedpref.flower.pace import foresight
from fedpref.flower.rounds import Rounds, fresh_from
from fedpref.flower.validation import ReplyLimits
from fedpref.lazy import LazySequence
from fedpref.report.rundir import RunDirectory
from fedpref.seeds import generator
from fedpref.simulation.client_store import ClientStore
from fedpref.simulation.device_classes import Mix
from fedpref.simulation.executor import Executor
from fedpref.simulation.fleet import Fleet
from fedpref.simulation.grid import VirtualGrid
from fedpref.simulation.inline import Inline
from fedpref.types import ClientRule, Pairs, Plan, Population, Shard, Strategy

__all__ = ["Federation"]


@runtime_checkable
class Warmable(Protocol):
    """A client rule that can compute once what all its workers need."""

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the frozen part for all these pairs."""
        ...


@dataclass(frozen=True, eq=False)
class Federation:
    """Everything that decides a run; two equal federations give equal bits.

    Attributes:
        population: shards, held-out pairs, hidden truth.
        rule: how a client learns.
        strategy: what the server does.
        rounds: versions to reach.
        seed: address of every random draw.
        executor: where clients run.
        fleet: how long devices and links take, in virtual time.
        limits: what a reply may look like.
        evaluate_every: versions between two evaluations.
        evaluate_every_s: virtual seconds between two evaluations, instead of versions; None counts versions.
        few_shot_resamples: shuffles of what each unseen person shows, once the run is at its end, where there
            are such people and clients have personal parts; 0 leaves the few-shot curve out.
        checkpoint_every: versions between two checkpoints.
        checkpoint_keep: newest checkpoints kept.
        max_wait_s: virtual seconds for which nobody may be online before the run ends.

    Raises:
        ConfigurationError: a number makes no sense, or the population has no clients.
    """

    population: Population
    rule: ClientRule
    strategy: Strategy[Any]
    rounds: int
    seed: int = 0
    executor: Executor = field(default_factory=Inline)
    fleet: Fleet = field(default_factory=Mix)
    limits: ReplyLimits = field(default_factory=ReplyLimits)
    evaluate_every: int = 1
    evaluate_every_s: float | None = None
    few_shot_resamples: int = 10
    checkpoint_every: int = 5
    checkpoint_keep: int = 2
    max_wait_s: float = 7 * 86400.0

    def __post_init__(self) -> None:
        for name, key in (
            ("rounds", "rounds"),
            ("evaluate_every", "evaluation.every"),
            ("checkpoint_every", "checkpoint.every"),
            ("checkpoint_keep", "checkpoint.keep"),
        ):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{key}={getattr(self, name)} must be at least 1")
        if self.evaluate_every_s is not None and not self.evaluate_every_s > 0:
            raise ConfigurationError(f"evaluation.every_s={self.evaluate_every_s} must be above 0, or null")
        if self.few_shot_resamples < 0:
            raise ConfigurationError(
                f"evaluation.few_shot_resamples={self.few_shot_resamples} must be at least 0"
            )
        if not self.max_wait_s >= 0:
            raise ConfigurationError(f"max_wait_s={self.max_wait_s} must be 0 or more")
        if len(self.population.shards) == 0:
            raise ConfigurationError("the population has no clients")
        for shard in self.made_shards:
            if len(shard.pairs) == 0:
                raise ConfigurationError(
                    f"client {shard.client_id} ({shard.name}) has no training pairs; "
                    "leave it out, or give it pairs"
                )

    @property
    def made_shards(self) -> Sequence[Shard]:
        """The shards that are there already: all, or none where they are made when they are needed."""
        shards = self.population.shards
        return () if isinstance(shards, LazySequence) else shards

    def rehearse(self) -> None:
        """Let strategy, rule and devices refuse each other, and the population, before anything is written.

        Raises:
            ConfigurationError: they do.
        """
        preflight(self, self.first_plan().tasks)

    def first_plan(self) -> Plan:
        """What the strategy plans at time 0 for a population of which everybody is online."""
        clients = range(len(self.population))
        fresh, rng = fresh_from(self.rule, self.seed), generator(self.seed, "init")
        state = self.strategy.init(fresh, clients, self.rounds, rng)
        return self.strategy.plan(state, clients, 0.0, generator(self.seed, "plan", 0))[1]

    def grid(self, directory: RunDirectory | None = None) -> VirtualGrid:
        """The clients behind a Flower grid in virtual time; a context manager that starts the executor.

        Args:
            directory: where what clients keep is stored; None keeps it as long as the grid.
        """
        shards = self.population.shards
        return VirtualGrid(
            client_app(self.rule, shards, self.seed),
            len(shards),
            self.executor,
            self.fleet,
            self.seed,
            foresight(self.rule, shards),
            None if directory is None else ClientStore(directory.path / "clients.db"),
        )

    def start(self, grid: VirtualGrid) -> Rounds:
        """The federation before its first round."""
        shards = self.population.shards
        sizes = LazySequence(len(shards), lambda client: len(shards[client].pairs))
        exchange = Exchange(grid, grid.nodes, self.seed, self.limits, sizes)
        fresh = fresh_from(self.rule, self.seed)
        clients = range(len(shards))
        return Rounds(
            self.strategy, exchange, clients, fresh, self.seed, self.rounds, max_wait_s=self.max_wait_s
        )

    def run(
        self,
        directory: RunDirectory | None = None,
        on_round: Callable[[Record], None] | None = None,
        resume: bool = False,
    ) -> Result:
        """Run to the last round.

        Args:
            directory: where to log and to keep checkpoints; None keeps nothing on disk.
            on_round: called with each round's record.
            resume: go on from the newest valid checkpoint of ``directory``.

        Raises:
            FederationError: a round in which no client answered.
            CheckpointError: nothing to resume from.
            StorageError: the run directory cannot be written.
        """
        if isinstance(self.rule, Warmable):  # before the workers start: they read what is kept then
            asked = [held_out.pairs for held_out in self.population.held_out]
            self.rule.warm([*(shard.pairs for shard in self.made_shards), *asked])
        # Every use of the global random streams inside is seeded at an address of its own.
        with streams_kept(), self.grid(directory) as grid:
            return Run(self, grid, self.start(grid), directory, on_round).to_the_end(resume)
