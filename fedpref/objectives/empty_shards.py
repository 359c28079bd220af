"""Clients without pairs learn nothing: in a cohort they send back what they got, and the others work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from fedpref.types import Reply, Shard, Task

__all__ = ["parted"]

_Work = TypeVar("_Work")


def parted(
    tasks: Sequence[Task],
    shards: Sequence[Shard],
    check: Callable[[Task], None],
    work: Callable[[Task, Shard], _Work],
) -> tuple[dict[int, Reply], dict[int, _Work]]:
    """The replies of clients without pairs, and the work of the others, by place.

    Args:
        tasks: one a client.
        shards: of the clients, likewise.
        check: refuses a task; all are checked, in order.
        work: what a client with pairs has to do.
    """
    replies: dict[int, Reply] = {}
    works: dict[int, _Work] = {}
    for i, (task, shard) in enumerate(zip(tasks, shards, strict=True)):
        check(task)
        if len(shard.pairs) == 0:
            replies[i] = Reply(dict(task.weights), 0, {})
        else:
            works[i] = work(task, shard)
    return replies, works
