"""The inline executor: clients run in this very process, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flwr.clientapp import ClientApp

from fedpref.simulation.executor import Job, attempt, one_torch_thread

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


@dataclass(frozen=True, eq=False)
class _InlineWorkers:
    app: ClientApp
    strict: bool

    def run(self, jobs: Sequence[Job]) -> list[Job]:
        """Answer all messages, in order."""
        with one_torch_thread():
            return [attempt(self.app, message, context, self.strict) for message, context in jobs]

    def close(self) -> None:
        """Nothing to free."""
