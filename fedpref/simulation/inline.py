"""The inline executor: clients run in this very process, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flwr.clientapp import ClientApp

from fedpref.simulation.executor import Done, Job, attempt, one_torch_thread

__all__ = ["Inline"]


@dataclass(frozen=True)
class Inline:
    """Run clients in this process: exceptions, debuggers and Ctrl-C just work.

    Attributes:
        strict: raise a client's exception here instead of making it a failed arrival.
    """

    strict: bool = False

    def start(self, app: ClientApp) -> _InlineWorkers:
        """Nothing to start."""
        return _InlineWorkers(app, self.strict)


@dataclass(eq=False)
class _InlineWorkers:
    """Works when a result is asked for, so that nothing is computed which nobody collects."""

    app: ClientApp
    strict: bool
    retries: int = 0
    _jobs: dict[int, Job] = field(default_factory=dict)
    _next: int = 0

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        """Keep the jobs."""
        tickets = list(range(self._next, self._next + len(jobs)))
        self._jobs.update(zip(tickets, jobs, strict=True))
        self._next += len(jobs)
        return tickets

    def collect(self, ticket: int) -> Done:
        """Do the job."""
        job = self._jobs.pop(ticket)
        with one_torch_thread():
            return attempt(self.app, job.message, job.context, self.strict)

    def discard(self, ticket: int) -> None:
        """Forget the job."""
        self._jobs.pop(ticket, None)

    def close(self) -> None:
        """Nothing to free."""
        self._jobs.clear()
