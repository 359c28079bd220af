"""Executors on Ray for the clients of one test file."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def started(module: ModuleType, clients) -> Iterator:
    """Gives a function that starts an executor with the clients of ``module``; closes all of them."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    running = []

    def start(executor):
        running.append(executor.start(clients()))
        return running[-1]

    yield start
    for workers in running:
        workers.close()
    cloudpickle.unregister_pickle_by_value(module)
