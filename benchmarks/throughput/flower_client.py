"""The client of a job in Flower's simulation; a module of its own, so that it travels by name."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedpref.benchmarks.throughput.job import Size, descend
from fedpref.benchmarks.throughput.variants import JOBS

__all__ = ["app"]

app = ClientApp()
_tasks = count()


def train(message: Any, context: Any) -> Any:
    """Train what came, and send it back."""
    torch.set_num_threads(1)
    settings, client = message.content["config"], int(context.node_config["partition-id"])
    peer = JOBS[str(settings["job"])].peer
    assert peer is not None
    module = peer.module()
    module.load_state_dict(message.content["arrays"].to_torch_state_dict())
    descend(peer, module, client, Size(**json.loads(str(settings["size"]))), client, next(_tasks))
    metrics = MetricRecord({"num-examples": len(peer.tensors(client)[0])})
    return Message(
        RecordDict({"arrays": ArrayRecord(module.state_dict()), "metrics": metrics}), reply_to=message
    )


app.train()(train)
