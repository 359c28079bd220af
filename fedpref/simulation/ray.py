"""The Ray executor: a pool of actors of our own, since Flower's never replaces a dead one.

Ray is started here (``address="local"``) or joined at an explicit address; never found by itself, because
several clusters may be in reach. It is shut down only if it was started here.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import os
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from fedpref.errors import ConfigurationError
from fedpref.simulation.executor import CRASHED, RAISED, Job, attempt, one_torch_thread

__all__ = ["RayPool"]

# One thread a client: throughput comes from workers, and equal bytes from equal thread counts.
_THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


@dataclass(frozen=True)
class RayPool:
    """Run clients in Ray actors.

    Attributes:
        num_workers: actors.
        num_cpus: CPUs that an actor reserves; may be a fraction.
        num_gpus: GPUs that an actor reserves; may be a fraction.
        resources: custom Ray resources that an actor reserves.
        address: of a running cluster ("host:port" or "ray://…"); None starts a local one.
        max_retries: how often a task is tried again after its actor died.
    """

    num_workers: int = 2
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    address: str | None = None
    max_retries: int = 2

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ConfigurationError(f"executor.num_workers={self.num_workers} must be at least 1")
        if self.max_retries < 0:
            raise ConfigurationError(f"executor.max_retries={self.max_retries} must be 0 or more")
        if self.address == "auto":
            raise ConfigurationError(
                "executor.address=auto may find a cluster of somebody else: name host:port, or leave it empty"
            )

    def start(self, app: ClientApp) -> _RayWorkers:
        """Start or join Ray and make the actors.

        Raises:
            ConfigurationError: the cluster lacks what the actors ask for, or they cannot load the app.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_USAGE_STATS_REPORT_URL", "http://127.0.0.1:9")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        is_ours = not ray.is_initialized()
        if is_ours:
            with _untidy():
                ray.init(**self._init_arguments())
        workers = _RayWorkers(self, is_ours)
        try:
            self._check_resources(ray.cluster_resources())
            workers.make_actors(app)
        except BaseException:
            workers.close()
            raise
        return workers

    def _init_arguments(self) -> dict[str, Any]:
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address is not None:
            return {"address": self.address, **quiet}
        wanted = {name: amount * self.num_workers for name, amount in self.resources.items()}
        return {
            "address": "local",
            "num_cpus": max(1, math.ceil(self.num_cpus * self.num_workers)),
            "resources": wanted,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",  # else Ray asks the network for its own address
            **quiet,
        }

    def _check_resources(self, available: Mapping[str, float]) -> None:
        demand = {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.resources}
        for name, amount in demand.items():
            if amount * self.num_workers > available.get(name, 0.0):
                raise ConfigurationError(
                    f"executor.num_workers={self.num_workers}: the actors need {amount * self.num_workers:g} "
                    f"{name} and the cluster has {available.get(name, 0.0):g}; ask for fewer or less"
                )


class _Worker:
    """What runs inside an actor."""

    def __init__(self, app_blob: bytes) -> None:
        from ray import cloudpickle

        self._app: ClientApp = cloudpickle.loads(app_blob)

    def ready(self) -> None:
        """Answer once the app is loaded."""

    def run(self, lean: Message, places: Sequence[tuple[str, str]], context: Context, *arrays: Array) -> Job:
        """Put the arrays back into the message and run the job."""
        records: dict[str, dict[str, Array]] = {}
        for (record, name), array in zip(places, arrays, strict=True):
            records.setdefault(record, {})[name] = array
        for record, named in records.items():
            lean.content[record] = ArrayRecord(named)
        with one_torch_thread():
            return attempt(self._app, lean, context)


class _RayWorkers:
    """The pool."""

    def __init__(self, settings: RayPool, is_ours: bool) -> None:
        self._settings = settings
        self._is_ours = is_ours
        self._is_open = True
        self._actors: list[Any] = []
        self._app_ref: Any = None

    def make_actors(self, app: ClientApp) -> None:
        """Make the actors; each unpickles the app once."""
        import ray
        from ray import cloudpickle

        self._app_ref = ray.put(cloudpickle.dumps(app))
        self._actors = [self._new_actor() for _ in range(self._settings.num_workers)]
        try:
            ray.get([actor.ready.remote() for actor in self._actors])
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1:]
            raise ConfigurationError(
                f"executor: the Ray actors cannot load the client app: {''.join(reason)}"
            ) from error

    def _new_actor(self) -> Any:
        import ray

        settings = self._settings
        options = {
            "num_cpus": settings.num_cpus,
            "num_gpus": settings.num_gpus,
            "resources": dict(settings.resources),
            "max_restarts": 0,  # replaced by us, so that a retry is counted and bounded
            "runtime_env": {"env_vars": _THREADS},
        }
        return ray.remote(_Worker).options(**options).remote(self._app_ref)

    def run(self, jobs: Sequence[Job]) -> list[Job]:
        """Answer all messages; whichever actor is free takes the next job."""
        import ray

        payloads = _Payloads()
        waiting, deaths = deque(range(len(jobs))), [0] * len(jobs)
        idle, busy, done = deque(self._actors), dict[Any, tuple[int, Any]](), dict[int, Job]()
        while waiting or busy:
            while waiting and idle:
                index, actor = waiting.popleft(), idle.popleft()
                message, context = jobs[index]
                lean, places, refs = payloads.lighten(message)
                busy[actor.run.remote(lean, places, context, *refs)] = index, actor
            for ref in ray.wait(list(busy), num_returns=1)[0]:
                index, actor = busy.pop(ref)
                message, context = jobs[index]
                try:
                    done[index] = ray.get(ref)
                except ray.exceptions.RayTaskError as error:  # a reply that cannot be shipped
                    done[index] = Message(Error(RAISED, str(error)), reply_to=message), context
                except ray.exceptions.RayError as error:
                    actor = self._replace(actor)
                    deaths[index] += 1
                    if deaths[index] <= self._settings.max_retries:
                        waiting.appendleft(index)
                    else:
                        done[index] = Message(Error(CRASHED, _crash(error)), reply_to=message), context
                idle.append(actor)
        return [done[index] for index in range(len(jobs))]

    def _replace(self, dead: Any) -> Any:
        import ray

        with contextlib.suppress(ray.exceptions.RayError):  # it is gone already
            ray.kill(dead)
        actor = self._new_actor()
        self._actors[self._actors.index(dead)] = actor
        return actor

    def close(self) -> None:
        """Kill the actors; shut Ray down if it was started here."""
        if not self._is_open:
            return
        import ray

        self._is_open = False
        if self._is_ours:
            with _untidy():
                ray.shutdown()
        elif ray.is_initialized():
            for actor in self._actors:
                ray.kill(actor)
        self._actors = []


@contextlib.contextmanager
def _untidy() -> Iterator[None]:
    """Ray drops open log files and handles of ended processes; that is no warning for our users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


class _Payloads:
    """Ships each distinct array once a batch, however many messages carry it."""

    def __init__(self) -> None:
        self._refs: dict[int, Any] = {}

    def lighten(self, message: Message) -> tuple[Message, list[tuple[str, str]], list[Any]]:
        """The message without arrays, the places of the arrays, and references to them."""
        import ray

        places, refs = [], []
        for record, named in message.content.array_records.items():
            for name, array in named.items():
                if id(array) not in self._refs:
                    self._refs[id(array)] = ray.put(array)
                places.append((record, name))
                refs.append(self._refs[id(array)])
        rest = {key: r for key, r in message.content.items() if not isinstance(r, ArrayRecord)}
        return _with_content(message, RecordDict(rest)), places, refs


def _with_content(message: Message, content: RecordDict) -> Message:
    twin = copy.copy(message)
    twin.content = content
    return twin


def _crash(error: Exception) -> str:
    reason = " ".join(str(error).split())
    hint = (
        "; lower executor.num_workers or give the machine more memory" if "memory" in reason.lower() else ""
    )
    return f"the worker process died: {reason:.300}{hint}"
