"""Makes the runs that are missing, several at a time: on the cores of this machine, or on a Ray cluster.

What is finished is found by its key and not made again; what was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from fedpref.benchmarks.suite.job import Job, describe, finish
from fedpref.report.runs import status_of
from fedpref.report.storage import read_json

__all__ = ["Found", "found_in", "make"]

_DONE = ("finished", "failed")
_is_interrupted = False  # of a worker


class Found(NamedTuple):
    """A run directory of a job: where it is, and how it stands."""

    path: Path
    state: str


def found_in(out: Path) -> dict[str, Found]:
    """The newest run directory of each job below ``out``, by key; one that is done before others."""
    found: dict[str, Found] = {}
    folders = [path.parent for path in out.glob("*/*/job.json") if not path.parent.parent.is_symlink()]
    for folder in sorted(folders, key=_started):
        key, state = str(read_json(folder / "job.json")["key"]), str(status_of(folder).get("state"))
        if key not in found or state in _DONE or found[key].state not in _DONE:
            found[key] = Found(folder, state)
    return found


def _started(folder: Path) -> tuple[str, str]:
    return str(read_json(folder / "manifest.json")["started"]), str(folder)


def make(
    jobs: Sequence[Job],
    out: Path,
    workers: int,
    on_done: Callable[[Job, Path, int, int], None],
    address: str | None = None,
) -> list[Path]:
    """The run directory of every job, in order.

    Args:
        jobs: to be there in the end.
        out: folder of the run directories.
        workers: processes of this machine.
        on_done: called after each run that was made, with how many are there and how many there will be.
        address: of a Ray cluster whose nodes all have ``out`` under the same path; its cores decide how many
            run at a time.

    Raises:
        ConfigurationError: the words of a job do not describe a run; nothing has run.
        StorageError: the disk is full or not writable.
    """
    keys = [str(describe(job)[0]["key"]) for job in jobs]
    there = found_in(out)
    paths = {key: there[key].path for key in keys if key in there and there[key].state in _DONE}
    missing = {key: job for key, job in zip(keys, jobs, strict=True) if key not in paths}
    begun = {key: there[key].path for key in missing if key in there and there[key].state != "running"}
    made = _each(missing, begun, out, workers) if address is None else _on_ray(missing, begun, out, address)
    for key, path in made:
        paths[key] = path
        on_done(missing[key], path, len(paths), len(set(keys)))
    return [paths[key] for key in keys]


def _each(
    jobs: Mapping[str, Job], begun: Mapping[str, Path], out: Path, workers: int
) -> Iterator[tuple[str, Path]]:
    """Key and directory of each job, as they end."""
    if workers == 1 or len(jobs) < 2:
        for key, job in jobs.items():
            yield key, finish(job, out, begun.get(key))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _die_with_parent) as pool:
        waiting: dict[Future[Path], str] = {
            pool.submit(_finish, job, out, begun.get(key)): key for key, job in jobs.items()
        }
        try:
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _finish(job: Job, out: Path, unfinished: Path | None) -> Path:
    """As ``finish``, but an interrupted worker begins nothing more: what it has in its queue stays there."""
    global _is_interrupted
    if _is_interrupted:
        raise KeyboardInterrupt
    try:
        return finish(job, out, unfinished)
    except KeyboardInterrupt:
        _is_interrupted = True
        raise


def _die_with_parent() -> None:
    """A worker whose parent was killed would go on, and then wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _on_ray(
    jobs: Mapping[str, Job], begun: Mapping[str, Path], out: Path, address: str
) -> Iterator[tuple[str, Path]]:
    """As ``_each``, a core of the cluster a job."""
    from fedpref.simulation.ray import join

    join(address)
    import ray

    try:
        remote = ray.remote(num_cpus=1, max_retries=0)(finish)
        waiting = {remote.remote(job, out.resolve(), begun.get(key)): key for key, job in jobs.items()}
        while waiting:
            (done,), _ = ray.wait(list(waiting))
            yield waiting.pop(done), Path(ray.get(done))
    finally:
        ray.shutdown()
