"""The work of one pool of Ray actors: who holds which job, and who gets the next one.

Every actor holds up to two jobs, the one that it works on and the next: there is no thread that could hand
it work while the simulation computes something else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedpref.simulation.executor import Job
from fedpref.simulation.ray_pools import Pool

__all__ = ["DEPTH", "Actor", "Crew", "Task"]

DEPTH = 2
"""Jobs that an actor holds at most."""


@dataclass(eq=False)
class Task:
    """A job that is not done.

    Attributes:
        job: what was submitted.
        parcel: what is sent to an actor.
        num_deaths: actors that died while they held this job alone.
        is_suspect: an actor that held it has died, so that it shares none from now on: which of two jobs
            made an actor die cannot be told, and no client may fail for its neighbour.
        is_wanted: somebody will collect it.
    """

    job: Job
    parcel: tuple[Any, ...]
    num_deaths: int = 0
    is_suspect: bool = False
    is_wanted: bool = True


@dataclass(eq=False)
class Actor:
    """An actor, and the tickets of the jobs that it holds by the references of their results, in order."""

    handle: Any
    held: dict[Any, int] = field(default_factory=dict)


@dataclass(eq=False)
class Crew:
    """The actors of a pool, and the tickets of the jobs that wait for one."""

    pool: Pool
    actors: list[Actor] = field(default_factory=list)
    waiting: deque[int] = field(default_factory=deque)

    def promote(self, ticket: int) -> None:
        """Let a job overtake the others that wait."""
        if ticket in self.waiting:
            self.waiting.remove(ticket)
            self.waiting.appendleft(ticket)

    def feed(self, tasks: Mapping[int, Task]) -> None:
        """Send waiting jobs, each to the actor that holds the fewest, as long as there is room."""

        def load(actor: Actor) -> int:
            is_closed = any(tasks[ticket].is_suspect for ticket in actor.held.values())
            return DEPTH if is_closed else len(actor.held)

        while self.waiting:
            task, actor = tasks[self.waiting[0]], min(self.actors, key=load)
            if load(actor) >= (1 if task.is_suspect else DEPTH):
                return
            actor.held[actor.handle.run.remote(*task.parcel)] = self.waiting.popleft()
