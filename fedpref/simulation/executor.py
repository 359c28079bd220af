"""Where client code runs: the contract of all executors, and the one way to run a job.

All executors give equal bytes: a job depends on its message and context only, client code runs with one
torch thread (other thread counts may change the last bits of a sum), and results keep the order of jobs.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import NamedTuple, Protocol

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from fedpref.flower import _shim

__all__ = [
    "CRASHED",
    "RAISED",
    "Done",
    "Executor",
    "Job",
    "Workers",
    "attempt",
    "failure_of",
    "one_torch_thread",
]


class Job(NamedTuple):
    """Work for one client.

    Attributes:
        message: what to answer.
        context: of the client's node.
        device: class of the client's device, by which an executor may choose where to run.
    """

    message: Message
    context: Context
    device: str


class Done(NamedTuple):
    """A job's end: the reply, and the client's context after it."""

    reply: Message
    context: Context


RAISED = 2
"""Flower's error code of a client app that raised."""

_FRAMES = 3

CRASHED = 8
"""Flower's error code of a client app whose process died."""


class Workers(Protocol):
    """A started executor. Jobs go in without waiting; each result is fetched once, when it is needed."""

    @property
    def retries(self) -> int:
        """Jobs that were begun again because their worker died."""
        ...

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        """Take jobs; the ticket of each. They may run now, later, or at the same time as others."""
        ...

    def collect(self, ticket: int) -> Done:
        """The result of a job, once. A client's failure is an error reply and leaves its context."""
        ...

    def discard(self, ticket: int) -> None:
        """Nobody will collect this job."""
        ...

    def close(self) -> None:
        """Free everything that was started. Closing twice is fine."""
        ...


class Executor(Protocol):
    """A frozen dataclass of settings that can start workers."""

    def start(self, app: ClientApp) -> Workers:
        """Workers for ``app``."""
        ...


def attempt(app: ClientApp, message: Message, context: Context, strict: bool = False) -> Done:
    """Run one job on copies; a client that raises gets an error reply and keeps its old context.

    Args:
        app: the client app.
        message: what it answers.
        context: of its node.
        strict: let the client's exception through, for debugging.
    """
    trial = _shim.twin_of(context)
    trial.state = _shim.copied(context.state)
    try:
        reply = app(_copied_message(message), trial)
        if not isinstance(reply, Message):
            raise TypeError(f"the client app returned {type(reply).__name__}, not a Message")
    except (Exception, SystemExit) as error:  # whatever a client raises, or exits with, is its own failure
        if strict:
            raise
        return Done(Message(Error(RAISED, failure_of(error)), reply_to=message), context)
    return Done(_copied_message(reply), trial)


def failure_of(error: BaseException) -> str:
    """Where a client failed and with what; files without folders, so that it is equal everywhere."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    lines = [f"{PurePath(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames]
    return "\n".join([*lines, f"{type(error).__name__}: {error}"])


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """One torch thread inside the block, if torch is there at all."""
    torch = sys.modules.get("torch")
    num_threads = torch.get_num_threads() if torch else 1
    if torch:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(num_threads)


def _copied_message(message: Message) -> Message:
    twin = _shim.twin_of(message)
    if twin.has_content():
        twin.content = _shim.copied(message.content)
    return twin
