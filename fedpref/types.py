"""The nouns that every room shares: data, weights, and the contracts plan, wait, fold.

This module knows NumPy and nothing else, so that a strategy can be read, tested and plugged in
without torch, Ray, Hydra or Flower. All values are frozen; state goes in and comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np

from fedpref.lazy import LazySequence

Weights: TypeAlias = Mapping[str, np.ndarray]
"""Named arrays of adapters and heads; never a backbone. Float32 on the wire, float64 as a delta."""

Scalar: TypeAlias = bool | int | float | str
Settings: TypeAlias = Mapping[str, Scalar]
Schema: TypeAlias = Mapping[str, tuple[int, ...]]
"""Keys and shapes that a reply must have, exactly."""

ClientId: TypeAlias = int
"""Index of a client in its population: 0 … num_clients - 1."""

Fresh: TypeAlias = Callable[..., Weights]
"""``fresh(*address)`` draws initial weights; the same address gives the same weights."""


# ---------------------------------------------------------------------------------------- data


@dataclass(frozen=True, eq=False)
class Pairs:
    """Preference pairs of one owner, column by column; row i is one unordered pair.

    Attributes:
        prompts: one string a pair; empty where the data has no prompt.
        chosen: the preferred responses: strings, or feature vectors of shape (num_pairs, dim).
        rejected: the other responses, same form.
        pair_ids: identity of the unordered pair; twins (swapped copies, the same pair judged by
            several people) share it, and no split may separate them.
        topics: topic of each pair; empty strings where unknown.

    Raises:
        ValueError: the columns differ in length.
    """

    prompts: Sequence[str]
    chosen: Sequence[str] | np.ndarray
    rejected: Sequence[str] | np.ndarray
    pair_ids: Sequence[str]
    topics: Sequence[str]

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in self.__dataclass_fields__}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of Pairs differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def is_text(self) -> bool:
        """True if responses are strings, False if they are feature vectors."""
        return not isinstance(self.chosen, np.ndarray)

    def take(self, rows: Sequence[int] | np.ndarray) -> Pairs:
        """The pairs at ``rows``, in that order."""

        def pick(column: Any) -> Any:
            if isinstance(column, np.ndarray):
                return column[np.asarray(rows, dtype=np.intp)]
            return tuple(column[int(row)] for row in rows)

        return Pairs(*(pick(getattr(self, name)) for name in self.__dataclass_fields__))

    @classmethod
    def concatenated(cls, parts: Sequence[Pairs]) -> Pairs:
        """All pairs of several owners, in order; at least one part."""
        if len(parts) == 1:
            return parts[0]

        def join(name: str) -> Any:
            columns = [getattr(part, name) for part in parts]
            if isinstance(columns[0], np.ndarray):
                return np.concatenate(columns)
            return tuple(value for column in columns for value in column)

        return cls(*(join(name) for name in cls.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class Shard:
    """What one client owns and may train on. Held-out pairs and hidden truth are elsewhere."""

    client_id: ClientId
    name: str
    pairs: Pairs


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Evaluation pairs of one person, kept apart from all training.

    Attributes:
        name: the person, unique among the held-out sets of a population.
        client_id: the client whose models serve this person; None for a newcomer, who trained
            nothing. Several people may share a client, as all do in a pooled population.
        pairs: what the person is asked; may be empty.
        shots: what a newcomer may adapt a finished model to, never asked about; None for all others. Who
            has shots belongs to the few-shot protocol alone: the evaluation of a run leaves them out.
    """

    name: str
    client_id: ClientId | None
    pairs: Pairs
    shots: Pairs | None = None


class Truth(Protocol):
    """The hidden side of a synthetic population. Evaluation may ask it; no client can reach it."""

    @property
    def groups(self) -> Sequence[int]:
        """Group of every held-out set, in the order of ``Population.held_out``."""
        ...

    def p_chosen(self, held_out: int) -> np.ndarray:
        """P(the person prefers ``chosen``) for each pair of held-out set number ``held_out``.

        Free of label noise, shape (num_pairs,).
        """
        ...


@dataclass(frozen=True, eq=False)
class Population:
    """All clients of a federation: their shards, what is held out and, if known, the truth.

    Attributes:
        shards: shard i belongs to client i; a ``LazySequence`` makes them when they are needed.
        held_out: evaluation pairs, one set a person; not aligned with ``shards``.
        truth: hidden truth of a synthetic population, else None; aligned with ``held_out``.
        notes: what was loaded and dropped and why, one sentence each, for the report.

    Raises:
        ValueError: shard i is not client i's, a held-out set names no client, or names repeat.
    """

    shards: Sequence[Shard]
    held_out: Sequence[HeldOut]
    truth: Truth | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        made = () if isinstance(self.shards, LazySequence) else self.shards
        for position, shard in enumerate(made):
            if shard.client_id != position:
                raise ValueError(f"shard {position} belongs to client {shard.client_id}")
        for held_out in self.held_out:
            if held_out.client_id is not None and not 0 <= held_out.client_id < len(self.shards):
                raise ValueError(f"held-out set {held_out.name!r} names client {held_out.client_id}")
        if len({held_out.name for held_out in self.held_out}) < len(self.held_out):
            raise ValueError("names of held-out sets repeat")

    def __len__(self) -> int:
        return len(self.shards)


@dataclass(frozen=True)
class ClientState:
    """What a client keeps between its tasks. It stays on the client and survives resume."""

    arrays: Weights = field(default_factory=dict)
    numbers: Settings = field(default_factory=dict)


# ------------------------------------------------------------------------- plan, wait, fold


@dataclass(frozen=True, eq=False)
class Task:
    """One piece of work for one client.

    Attributes:
        client_id: who works.
        weights: what is sent, float32.
        kind: "train", "evaluate", "score", "resume", …
        settings: scalars for the client rule, such as ``local_steps`` or ``proximal_mu``.
        reply: keys and shapes that the answer must have; None means those of ``weights``.
        expires_s: virtual time after which the answer is not wanted.
        number: position in plan order, and the address of all the task's randomness; the loop
            stamps it, as it does ``version``, the number of server updates at dispatch.
    """

    client_id: ClientId
    weights: Weights
    kind: str = "train"
    settings: Settings = field(default_factory=dict)
    reply: Schema | None = None
    expires_s: float = math.inf
    number: int = -1
    version: int = 0

    @property
    def expected(self) -> Schema:
        """Keys and shapes of the answer."""
        if self.reply is not None:
            return self.reply
        return {key: array.shape for key, array in self.weights.items()}


@dataclass(frozen=True, eq=False)
class Update:
    """An accepted answer.

    Attributes:
        weights: as sent by the client, float32.
        received: what its delta starts from: of the weights that the client got, those that it sent back,
            float32. Whoever got the same arrays shares them.
        num_pairs: unordered pairs that the client holds, at least 1 for a trained answer.
        metrics: finite numbers that the client reports.
        client_id: who answered.
        factor: what a strategy makes of its share: 1, less where the update is stale. A combine takes the
            delta ``factor`` times, after the shares were normalised.
    """

    weights: Weights
    received: Weights
    num_pairs: int
    metrics: Mapping[str, float]
    client_id: ClientId
    factor: float = 1.0

    @property
    def delta(self) -> Weights:
        """Local minus received (new minus old), float64: made whenever it is asked for, and kept by nobody.

        ``fedpref.maths.deltas.sum_of_deltas`` adds those of many updates without making any.
        """
        return {key: self.weights[key].astype(np.float64) - old for key, old in self.received.items()}


@dataclass(frozen=True, eq=False)
class Arrival:
    """The end of a task: an update, or a failure with its code."""

    task: Task
    update: Update | None
    code: str
    staleness: int
    sent_s: float
    arrived_s: float
    detail: str = ""
    bytes_down: int = 0
    bytes_up: int = 0

    @property
    def is_ok(self) -> bool:
        """True if there is an update to fold."""
        return self.update is not None


OK = "ok"
"""Code of an accepted arrival."""


@dataclass(frozen=True)
class Wait:
    """What to wait for: ``count`` own unexpired tasks or the time ``until_s``, whichever comes first.

    The wait also ends when nothing is in flight, unless a time alone was given: that is an appointment,
    and time passes until then. All arrivals of one instant come together.

    Attributes:
        count: arrivals to wait for.
        until_s: a moment on the clock, not a duration.
        drop_late: give up whatever has not arrived when the wait is over: an arrival with code "late". Then
            ``count`` is of accepted answers, since others are there to make up for those that fail.
    """

    count: float = math.inf
    until_s: float = math.inf
    drop_late: bool = False


@dataclass(frozen=True, eq=False)
class Plan:
    """Who works on what, and what to wait for."""

    tasks: Sequence[Task]
    wait: Wait = Wait()


class Fold(NamedTuple):
    """How answers changed the models.

    Attributes:
        state: the strategy's new state.
        updated: how often the models changed: the version grows by it. True counts as one.
        rejected: arrivals that the strategy itself refused, for the log.
        metrics: numbers for the log of this round.
    """

    state: Any
    updated: int
    rejected: Sequence[Arrival] = ()
    metrics: Mapping[str, float] = {}


class Combined(NamedTuple):
    """One delta for one model, float64; numbers for the log; what the combine wants to remember."""

    delta: Weights
    metrics: Mapping[str, float] = {}
    memory: Any = None


class Combine(Protocol):
    """How the deltas of one model become one delta.

    Clipping and noise, robust rules, LoRA operators and participation weights live here, so that
    none of them needs a variant of any strategy. The strategy keeps a combine's memory, one a model, in
    its own state; it is plain data.
    """

    def init(self, clients: Sequence[ClientId]) -> Any:
        """Memory before the first call; None where there is none."""
        ...

    def __call__(
        self,
        base: Weights,
        updates: Sequence[Update],
        shares: Sequence[float],
        cohort: Sequence[ClientId],
        rng: np.random.Generator,
        memory: Any,
    ) -> Combined:
        """Combine ``updates`` of a model.

        Args:
            base: the model before the update, float32.
            updates: accepted answers in task order; at least one. Each counts ``factor`` times.
            shares: weight of each update's client, not normalised, not all zero.
            cohort: every client that was *planned*, the drop-outs included.
            rng: the draws of this fold.
            memory: what the last call for this model returned, at first what :meth:`init` did.
        """
        ...


S = TypeVar("S")


class Strategy(Protocol[S]):
    """A server algorithm: a frozen dataclass whose whole memory is its state S.

    S is plain data: numbers, strings, None, NumPy arrays, tuples, mappings with string or integer
    keys, and frozen dataclasses defined beside the strategy; so checkpoints need nothing more.
    """

    def init(self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator) -> S:
        """State before the first round; ``horizon`` is the planned number of versions."""
        ...

    def plan(
        self, state: S, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[S, Plan]:
        """Who of the ``idle`` clients works on what, and what to wait for.

        Args:
            state: the strategy's memory.
            idle: clients that are online and without a task, ascending.
            clock_s: now.
            rng: the draws of this plan.
        """
        ...

    def fold(self, state: S, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator) -> Fold:
        """Change the models by ``arrivals``, failures included, in task-number order."""
        ...

    def models(self, state: S) -> Mapping[str, Weights]:
        """What is saved, by name: {"global": …} or {"selector/0": …}."""
        ...

    def serve(self, state: S, client_id: ClientId | None) -> Sequence[Weights]:
        """What serves this client, or a newcomer (None); several models vote."""
        ...


class ClientRule(Protocol):
    """A local learning rule: a frozen dataclass whose whole memory is the ClientState."""

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Initial weights, float32: the names and shapes of all that travels."""
        ...

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Work on a task. Must not mutate its arguments."""
        ...

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margin r(chosen) - r(rejected) of each pair, shape (num_pairs,), float64."""
        ...


@runtime_checkable
class Personal(Protocol):
    """A client rule whose clients add a part of their own to the model, which never leaves them."""

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        """The weights that serve one client, in a form that ``margins`` takes.

        Args:
            weights: what the strategy serves, shared or the client's own.
            shard: the client's training pairs; None for a newcomer without any, who gets what the
                population's prior gives.
            state: what the client keeps; empty for one that never trained.
        """
        ...


@runtime_checkable
class PersonalInCohorts(Protocol):
    """A personal rule that can add the parts of many clients as one computation; others add one by one."""

    def personalise_cohort(
        self, weights: Sequence[Weights], shards: Sequence[Shard | None], states: Sequence[ClientState]
    ) -> Sequence[Weights]:
        """What ``personalise`` gives for each client, to 1e-5, in order."""
        ...


@runtime_checkable
class InCohorts(Protocol):
    """A client rule that can answer many tasks as one computation; others answer one by one."""

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        states: Sequence[ClientState],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[Reply, ClientState]]:
        """What ``answer`` gives for each task, to 1e-5, in order; from equal draws.

        One task that cannot be answered may spoil the whole call: then all are answered one by one.
        """
        ...


class Workload(NamedTuple):
    """What a task takes on any device, known before it is done.

    Attributes:
        flops: floating-point operations; the task reports as many or more.
        memory_bytes: most memory that it holds at a time.
    """

    flops: float
    memory_bytes: float


@runtime_checkable
class HasWorkload(Protocol):
    """A client rule that can tell the work of a task beforehand; one that cannot takes no time but the links.

    With it the simulation computes ahead, a deadline can be turned into local steps, and a device whose
    memory is too small is refused before the run.
    """

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Work of a task; its weights may be empty, since they do not decide it."""
        ...


class Reply(NamedTuple):
    """What a client rule hands back; the wire turns it into an Update after validation.

    Attributes:
        weights: local weights, float32.
        num_pairs: unordered pairs in the shard.
        metrics: numbers to report. ``flops``, if there, is the counted work and drives virtual time.
    """

    weights: Weights
    num_pairs: int
    metrics: Mapping[str, float]
