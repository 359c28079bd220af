"""A client rule as a Flower ``ClientApp``: the same app in our engine, in Flower's, and deployed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedpref.errors import ConfigurationError
from fedpref.flower import wire
from fedpref.flower.client_state import propose, settle
from fedpref.flower.fence import rng_fence
from fedpref.flower.node import Shards, partition_of, shard_of
from fedpref.flower.pace import paced
from fedpref.flower.segments import answer_segment, is_segment, keeps_segment
from fedpref.seeds import generator, number
from fedpref.types import ClientRule, ClientState, InCohorts, Reply, Schema, Shard, Task

__all__ = ["RuleApp", "Shards", "client_app"]


def client_app(rule: ClientRule, shards: Shards, seed: int = 0) -> RuleApp:
    """The app that answers train, evaluate and query messages with ``rule``.

    Every node must have ``partition-id`` in its node config: which shard is its own. Evaluation is local:
    accuracy and loss on the client's own shard.

    Args:
        rule: the local learning rule.
        shards: the clients' data.
        seed: used for messages that bring no seed, as those of stock Flower strategies.
    """
    desk = _Desk(rule, shards, seed)
    app = RuleApp(desk)
    app.train()(desk)
    app.train("resume")(desk)
    app.query()(desk)
    app.query("score")(desk)
    app.evaluate()(desk)
    return app


class RuleApp(ClientApp):  # type: ignore[misc]  # Flower is untyped here
    """A ``ClientApp`` of a client rule, which can also answer for many nodes at once."""

    def __init__(self, desk: _Desk) -> None:
        super().__init__()
        self._desk = desk

    @property
    def in_cohorts(self) -> bool:
        """True if its rule has a batched form."""
        return isinstance(self._desk.rule, InCohorts)

    def answer_cohort(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """The answers of several nodes, to 1e-5 those of a call for each; contexts change in place.

        Raises:
            Exception: of any kind, if one of them cannot be answered; call for each to learn which.
        """
        return self._desk.answer_cohort(messages, contexts)


class _Opened(NamedTuple):
    """A message as read by its client: the work, what the client owns and keeps, and its draws."""

    message: Message
    context: Context
    received: wire.Received
    task: Task
    shard: Shard
    state: ClientState
    rng: np.random.Generator


@dataclass(frozen=True, eq=False)
class _Desk:
    """Reads messages, has the rule work on them behind the fence, and writes the answers."""

    rule: ClientRule
    shards: Shards
    seed: int

    def __call__(self, message: Message, context: Context) -> Message:
        opened = self._open(message, context)
        with self._fence(opened):
            if opened.task.kind == "evaluate":
                reply, state = evaluate(self.rule, opened.task, opened.shard), opened.state
            else:
                reply, state = answer_segment(self.rule, opened.task, opened.shard, opened.state, opened.rng)
        return self._close(opened, reply, state)

    def answer_cohort(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        answers: dict[int, Message] = {}
        together: dict[int, _Opened] = {}
        unpack = wire.shared_unpack()
        for i, (message, context) in enumerate(zip(messages, contexts, strict=True)):
            opened = self._open(message, context, unpack)
            if opened.task.kind == "evaluate" or is_segment(opened.task) or keeps_segment(opened.state):
                answers[i] = self(message, context)
            else:
                together[i] = opened
        if together and isinstance(self.rule, InCohorts):
            entries = list(together.values())
            with self._fence(entries[0]):
                found = self.rule.answer_cohort(
                    [opened.task for opened in entries],
                    [opened.shard for opened in entries],
                    [opened.state for opened in entries],
                    [opened.rng for opened in entries],
                )
            for (i, opened), (reply, state) in zip(together.items(), found, strict=True):
                answers[i] = self._close(opened, reply, state)
        return [answers[i] for i in range(len(messages))]

    def _open(self, message: Message, context: Context, unpack: wire.Unpack = wire.unpack) -> _Opened:
        client_id = partition_of(context)
        received = wire.receive(message, client_id, self.seed, self._schema, unpack)
        rng = generator(int(received.address[0]), *received.address[1:])
        state = settle(context.state, received.acknowledged)
        shard = shard_of(self.shards, client_id)
        task = received.task
        if task.kind != "evaluate":
            task = paced(task, self.rule, shard, context.node_config)
        return _Opened(message, context, received, task, shard, state, rng)

    def _fence(self, opened: _Opened) -> AbstractContextManager[None]:
        seed, *address = opened.received.address
        return rng_fence(number(int(seed), "fence", *address))

    def _close(self, opened: _Opened, reply: Reply, state: ClientState) -> Message:
        answered = wire.answer(opened.message, opened.received, reply)
        if opened.task.kind != "evaluate":
            propose(opened.context.state, state, opened.task.number)
        return answered

    @cached_property
    def _schema(self) -> Schema:
        return wire.schema_of(self.rule.fresh(generator(self.seed, "schema")))


def evaluate(rule: ClientRule, task: Task, shard: Shard) -> Reply:
    """Accuracy (ties count half) and mean Bradley–Terry loss in nats of ``task.weights`` on a shard.

    Raises:
        ConfigurationError: the shard is empty, so that there is no mean.
    """
    if len(shard.pairs) == 0:
        raise ConfigurationError(f"client {shard.client_id} ({shard.name}) has no pairs to evaluate on")
    margins = np.asarray(rule.margins(task.weights, shard.pairs), dtype=np.float64)
    accuracy = float(np.mean(np.where(margins == 0, 0.5, margins > 0)))
    loss = float(np.mean(np.logaddexp(0.0, -margins)))
    return Reply({}, len(shard.pairs), {"accuracy": accuracy, "loss": loss})
