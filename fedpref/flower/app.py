"""A client rule as a Flower ``ClientApp``: the same app in our engine, in Flower's, and deployed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedpref.errors import ConfigurationError
from fedpref.flower import wire
from fedpref.flower.client_state import propose, settle
from fedpref.flower.fence import rng_fence
from fedpref.flower.node import Shards, partition_of, shard_of
from fedpref.flower.pace import paced
from fedpref.flower.segments import answer_segment
from fedpref.seeds import generator, number
from fedpref.types import ClientRule, Reply, Schema, Shard, Task

__all__ = ["Shards", "client_app"]


def client_app(rule: ClientRule, shards: Shards, seed: int = 0) -> ClientApp:
    """The app that answers train, evaluate and query messages with ``rule``.

    Every node must have ``partition-id`` in its node config: which shard is its own. Evaluation is local:
    accuracy and loss on the client's own shard.

    Args:
        rule: the local learning rule.
        shards: the clients' data.
        seed: used for messages that bring no seed, as those of stock Flower strategies.
    """
    desk = _Desk(rule, shards, seed)
    app = ClientApp()
    app.train()(desk)
    app.train("resume")(desk)
    app.query()(desk)
    app.query("score")(desk)
    app.evaluate()(desk)
    return app


@dataclass(frozen=True, eq=False)
class _Desk:
    """Reads a message, has the rule work on it behind the fence, and writes the answer."""

    rule: ClientRule
    shards: Shards
    seed: int

    def __call__(self, message: Message, context: Context) -> Message:
        client_id = partition_of(context)
        received = wire.receive(message, client_id, self.seed, self._schema)
        task, rng = received.task, generator(int(received.address[0]), *received.address[1:])
        state = settle(context.state, received.acknowledged)
        with rng_fence(number(int(received.address[0]), "fence", *received.address[1:])):
            shard = shard_of(self.shards, client_id)
            if task.kind == "evaluate":
                reply = evaluate(self.rule, task, shard)
            else:
                task = paced(task, self.rule, shard, context.node_config)
                reply, state = answer_segment(self.rule, task, shard, state, rng)
        answered = wire.answer(message, received, reply)
        if task.kind != "evaluate":
            propose(context.state, state, task.number)
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
