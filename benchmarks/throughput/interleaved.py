"""Variants in processes of their own take turns, a round at a time: a slow minute is everybody's."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from statistics import median

import numpy as np
import psutil

from fedpref.benchmarks.throughput.job import Size
from fedpref.benchmarks.throughput.variants import JOBS, VARIANTS
from fedpref.types import Weights

__all__ = ["Course", "measure", "ratio"]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Course:
    """How a variant fared.

    Attributes:
        round_s: wall seconds of each measured round.
        processor_s: of all its processes together, a measured round on average; other programs lengthen it
            less than they lengthen the wall's seconds.
        memory_mb: most proportional memory of its processes together, seen after a round.
        weights: the model in the end.
    """

    round_s: list[float] = field(default_factory=list)
    processor_s: float = 0.0
    memory_mb: float = 0.0
    weights: Weights = field(default_factory=dict)

    @property
    def median_s(self) -> float:
        """Of a round."""
        return median(self.round_s)


def measure(job: str, variants: Sequence[str], size: Size, warm_up: int = 0) -> Mapping[str, Course]:
    """Run all variants, each in a fresh process.

    Args:
        job: its name.
        variants: their names.
        size: rounds to measure among the rest.
        warm_up: rounds before them.
    """
    whole = replace(size, rounds=size.rounds + warm_up)
    courses = {name: Course() for name in variants}
    with contextlib.ExitStack() as stack:
        turns = {name: stack.enter_context(_process(job, name, whole)) for name in variants}
        for turn in turns.values():
            turn.wait()  # it has started
        for number in range(whole.rounds):
            first = number % len(variants)
            for name in (*variants[first:], *variants[:first]):
                before_s = turns[name].processor_s()
                round_s = turns[name].take()
                if number >= warm_up:
                    courses[name].round_s.append(round_s)
                    courses[name].processor_s += (turns[name].processor_s() - before_s) / size.rounds
                courses[name].memory_mb = max(courses[name].memory_mb, turns[name].memory_mb())
        for name, turn in turns.items():
            courses[name].weights = turn.end()
    return courses


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times as long ``slow`` takes: the median of the ratios round by round."""
    return median(a / b for a, b in zip(slow, fast, strict=True))


@dataclass
class _Turns:
    """The parent's side of a variant's process."""

    name: str
    connection: Connection
    process: psutil.Process

    def wait(self) -> float:
        """Seconds that it took to come to its next stop."""
        try:
            return float(self.connection.recv())
        except EOFError:
            raise RuntimeError(f"{self.name}: its process ended before its rounds did") from None

    def take(self) -> float:
        """Let it do a round; its seconds."""
        self.connection.send(None)
        return self.wait()

    def end(self) -> Weights:
        """Let it end; its model."""
        self.connection.send(None)
        weights: Weights = self.connection.recv()
        return weights

    def memory_mb(self) -> float:
        """Memory of the process and its children; what they share is counted once."""
        return sum(self._each(lambda process: process.memory_full_info().pss)) / 1e6

    def processor_s(self) -> float:
        """Processor seconds of the process and its children so far."""
        return sum(self._each(lambda process: sum(process.cpu_times()[:2])))

    def _each(self, ask: Callable[[psutil.Process], float]) -> Iterator[float]:
        for process in (self.process, *self.process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                yield ask(process)


@contextlib.contextmanager
def _process(job: str, variant: str, size: Size) -> Iterator[_Turns]:
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    # pfl-research refuses to work in a process of another name.
    process = context.Process(target=_work, args=(job, variant, size, there), name="MainProcess")
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ |= dict.fromkeys(_THREADS, "1")  # read once, when a process starts
    try:
        process.start()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    there.close()
    assert process.pid is not None
    try:
        yield _Turns(variant, here, psutil.Process(process.pid))
    finally:
        here.close()
        process.join(timeout=60)
        if process.is_alive():
            process.terminate()


def _work(job: str, variant: str, size: Size, connection: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ["RAY_worker_niceness"] = "0"  # else only those with Ray would give way to other programs
    weights = VARIANTS[variant](JOBS[job], size, _stops(connection))
    connection.send({key: np.array(array) for key, array in weights.items()})


def _stops(connection: Connection) -> Callable[[], None]:
    begun = time.perf_counter()

    def between() -> None:
        nonlocal begun
        connection.send(time.perf_counter() - begun)
        connection.recv()
        begun = time.perf_counter()

    return between
