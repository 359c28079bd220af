"""The cohort executor: clients whose work waits at the same time are trained as one batch, in this process.

The client app decides how (``answer_cohort``); what it cannot answer together is done one by one, and so is a
batch in which some client fails, so that the failure is that client's alone. A batch that fails although
nobody in it does is the batched form's own failure, and is told once. Results equal those of other
executors to 1e-5, not to the bit: sums over padded arrays have another order.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from flwr.clientapp import ClientApp

from fedpref.errors import ConfigurationError
from fedpref.flower import _shim
from fedpref.flower.app import RuleApp
from fedpref.simulation.executor import Done, Job, attempt, failure_of, one_torch_thread

__all__ = ["Cohort"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cohort:
    """Train up to ``max_clients`` clients at a time.

    A rule without a batched form works one by one, as with the inline executor; that is logged once.

    Attributes:
        max_clients: most clients in one batch; bounds memory.

    Raises:
        ConfigurationError: it is below 1.
    """

    max_clients: int = 128

    def __post_init__(self) -> None:
        if self.max_clients < 1:
            raise ConfigurationError(f"executor.max_clients={self.max_clients} must be at least 1")

    def start(self, app: ClientApp) -> _CohortWorkers:
        """Nothing to start."""
        if not isinstance(app, RuleApp) or not app.in_cohorts:
            _log.warning("executor=cohort: this client rule has no batched form; clients train one by one")
        return _CohortWorkers(app, self.max_clients)


@dataclass(eq=False)
class _CohortWorkers:
    """Works when a result is asked for: on that job, and on others that wait by then, the oldest first."""

    app: ClientApp
    max_clients: int
    retries: int = 0
    _jobs: dict[int, Job] = field(default_factory=dict)
    _done: dict[int, Done] = field(default_factory=dict)
    _next: int = 0
    _has_told: bool = False

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        """Keep the jobs."""
        tickets = list(range(self._next, self._next + len(jobs)))
        self._jobs.update(zip(tickets, jobs, strict=True))
        self._next += len(jobs)
        return tickets

    def collect(self, ticket: int) -> Done:
        """Do the job, and others that wait with it."""
        if ticket not in self._done:
            others = (waiting for waiting in self._jobs if waiting != ticket)
            batch = [ticket, *islice(others, self.max_clients - 1)]
            jobs = [self._jobs.pop(each) for each in batch]
            with one_torch_thread():
                self._done.update(zip(batch, self._together(jobs), strict=True))
        return self._done.pop(ticket)

    def discard(self, ticket: int) -> None:
        """Forget the job."""
        self._jobs.pop(ticket, None)
        self._done.pop(ticket, None)

    def close(self) -> None:
        """Nothing to free."""
        self._jobs.clear()
        self._done.clear()

    def _together(self, jobs: Sequence[Job]) -> list[Done]:
        failure = None
        if isinstance(self.app, RuleApp) and self.app.in_cohorts and len(jobs) > 1:
            trials = [_shim.twin_of(job.context) for job in jobs]
            for trial in trials:
                trial.state = _shim.copied(trial.state)
            try:
                replies = self.app.answer_cohort([job.message for job in jobs], trials)
            except (Exception, SystemExit) as error:  # whose it is shows when each is tried alone
                failure = failure_of(error)
            else:
                return [Done(reply, trial) for reply, trial in zip(replies, trials, strict=True)]
        alone = [attempt(self.app, job.message, job.context) for job in jobs]
        if failure and not self._has_told and not any(done.reply.has_error() for done in alone):
            self._has_told = True
            _log.warning(
                "executor=cohort: clients that could not be trained together train one by one: %s", failure
            )
        return alone
