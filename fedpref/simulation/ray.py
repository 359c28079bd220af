"""The Ray executor: pools of actors of our own, since Flower's never replaces a dead one.

Ray is started here, on the loopback interface, or joined at an explicit address; never found by itself,
because several clusters may be in reach. It is shut down only if it was started here.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Array, Error, Message
from flwr.clientapp import ClientApp

import fedpref
from fedpref.errors import ConfigurationError, FederationError, did_you_mean
from fedpref.simulation.executor import CRASHED, RAISED, Done, Job
from fedpref.simulation.ray_address import check_address, is_on_loopback
from fedpref.simulation.ray_crew import Actor, Crew, Task
from fedpref.simulation.ray_pools import Pool, check_fit, check_pool, pool_of, total_demand
from fedpref.simulation.ray_worker import Parcels, Worker

__all__ = ["RayPool", "join"]

_HIDE_GPUS = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
_ENVIRONMENT = {
    # One thread a client: throughput comes from workers, and equal bytes from equal thread counts.
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    _HIDE_GPUS: "1",  # an actor sees the GPUs that it reserved: none, if it reserved none
}
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
_START_S = 600.0
_SILENCE_S = 60.0


@dataclass(frozen=True)
class RayPool(Pool):
    """Run clients in Ray actors. Its own options are those of every device class without a pool.

    Attributes:
        address: of a running cluster ("host:port" or "ray://…"); None starts a local one.
        max_retries: how often a job is tried again after it alone made its actor die.
        pools: actors of one device class only, by its name; what a pool leaves out is as here. Where every
            class has its own, ``num_workers=0`` leaves out the common pool.
    """

    address: str | None = None
    max_retries: int = 2
    pools: Mapping[str, Pool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.pools, Mapping):
            raise ConfigurationError(
                f"executor.pools={self.pools!r:.80} must name device classes; "
                "set executor.pools.CLASS.num_workers=2"
            )
        pools = {name: pool_of(name, given, default=self) for name, given in self.pools.items()}
        object.__setattr__(self, "pools", pools)
        check_pool("executor", self, least_workers=0 if pools else 1)
        for name, pool in pools.items():
            check_pool(f"executor.pools.{name}", pool)
        if self.max_retries < 0:
            raise ConfigurationError(f"executor.max_retries={self.max_retries} must be 0 or more")
        if self.address is not None:
            check_address(self.address)

    @property
    def by_key(self) -> dict[str, Pool]:
        """All pools that have actors, by configuration key; the common one is "executor"."""
        common = {"executor": self} if self.num_workers else {}
        return {**common, **{f"executor.pools.{name}": pool for name, pool in self.pools.items()}}

    def check_classes(self, names: Sequence[str], owned: Collection[str]) -> None:
        """Refuse a pool that no device could use, and clients whose device class is left without one.

        Args:
            names: all device classes of the fleet.
            owned: those that a client has.

        Raises:
            ConfigurationError: naming the pool, or the class.
        """
        for name in self.pools:
            if name not in names:
                raise ConfigurationError(
                    f"executor.pools.{name} is for no device class of the fleet.{did_you_mean(name, names)} "
                    f"There are {', '.join(names)}"
                )
        for name in sorted(owned):
            if not self.num_workers and name not in self.pools:
                raise ConfigurationError(_no_worker(name))

    def start(self, app: ClientApp) -> _RayWorkers:
        """Start or join Ray and make all actors.

        Raises:
            ConfigurationError: nobody answers at the address, the cluster lacks what the actors ask for, or
                they cannot load the app.
        """
        _keep_to_ourselves()
        import ray

        is_ours = not ray.is_initialized()
        if is_ours:
            self._init_ray()
        workers = _RayWorkers(self, is_ours)
        try:
            workers.check_fit()
            workers.make_actors(app)
        except BaseException:
            workers.close()
            raise
        return workers

    def _init_ray(self) -> None:
        import ray

        if self.address is not None:
            join(self.address)
            return
        demand = total_demand(self.by_key)
        options: dict[str, Any] = {"num_cpus": max(1, math.ceil(demand.pop("CPU", 0.0)))}
        demand.pop("GPU", None)  # Ray finds those of the machine
        with _untidy(), _loopback():
            ray.init("local", include_dashboard=False, resources=demand, **options, **_QUIET)


class _RayWorkers:
    """All crews, and the results that nobody has collected yet."""

    def __init__(self, settings: RayPool, is_ours: bool) -> None:
        self.retries = 0
        self._settings = settings
        self._is_ours = is_ours
        self._is_open = True
        self._crews = {key: Crew(pool) for key, pool in settings.by_key.items()}
        self._tasks: dict[int, Task] = {}
        self._done: dict[int, Done] = {}
        self._num_submitted = 0
        self._parcels = Parcels(_ship)
        self._app_ref: Any = None

    # ------------------------------------------------------------------------------ the contract

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        """Take jobs; those for which there is room are sent to actors at once."""
        crews = [self._crew_of(job.device) for job in jobs]
        tickets = list(range(self._num_submitted, self._num_submitted + len(jobs)))
        self._num_submitted += len(jobs)
        for ticket, job, crew in zip(tickets, jobs, crews, strict=True):
            self._tasks[ticket] = Task(job, self._parcels.pack(job))
            crew.waiting.append(ticket)
        self._parcels.end_submit()
        self._receive(timeout_s=0.0)
        return tickets

    def collect(self, ticket: int) -> Done:
        """The result of a job, which overtakes those that nobody has asked for yet."""
        if ticket in self._tasks:
            self._crew_of(self._tasks[ticket].job.device).promote(ticket)
        self._receive(timeout_s=0.0)
        while ticket in self._tasks:
            if not self._receive(timeout_s=_SILENCE_S):
                self._check_nodes()
        return self._done.pop(ticket)

    def discard(self, ticket: int) -> None:
        """Drop a result, or never begin its job; one that an actor holds runs to its end."""
        self._done.pop(ticket, None)
        if ticket not in self._tasks:
            return
        task = self._tasks[ticket]
        waiting = self._crew_of(task.job.device).waiting
        if ticket in waiting:
            waiting.remove(ticket)
            del self._tasks[ticket]
        task.is_wanted = False

    def close(self) -> None:
        """Kill the actors; shut Ray down if it was started here, or leave the cluster that was joined."""
        if not self._is_open:
            return
        import ray

        self._is_open = False
        if ray.is_initialized():
            for crew in self._crews.values():
                for actor in crew.actors:
                    with contextlib.suppress(ray.exceptions.RayError):  # it is gone already
                        ray.kill(actor.handle)
        if self._is_ours:
            with _untidy():
                ray.shutdown()
        self._crews = {}

    # -------------------------------------------------------------------------------- the actors

    def check_fit(self) -> None:
        """Raise ConfigurationError if the cluster lacks what all actors ask for."""
        import ray

        check_fit(self._settings.by_key, [node["Resources"] for node in ray.nodes() if node["Alive"]])

    def make_actors(self, app: ClientApp) -> None:
        """Make the actors; each unpickles the app once.

        Raises:
            ConfigurationError: they find no room, or cannot load the app.
        """
        import ray
        from ray import cloudpickle

        self._app_ref = ray.put(cloudpickle.dumps(app))
        for crew in self._crews.values():
            crew.actors = [self._new_actor(crew.pool) for _ in range(crew.pool.num_workers)]
        ready = [actor.handle.ready.remote() for crew in self._crews.values() for actor in crew.actors]
        try:
            ray.get(ready, timeout=_START_S)
        except ray.exceptions.GetTimeoutError as error:
            raise ConfigurationError(
                f"executor: not all Ray actors started within {_START_S:g} s; the cluster has "
                f"{ray.available_resources().get('CPU', 0.0):g} CPU free, others may use it: ask for less"
            ) from error
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1:]
            raise ConfigurationError(
                f"executor: the Ray actors cannot load the client app: {''.join(reason)}"
            ) from error

    def _new_actor(self, pool: Pool) -> Actor:
        import ray
        from ray import cloudpickle

        options = {
            "num_cpus": pool.num_cpus,
            "num_gpus": pool.num_gpus,
            "resources": dict(pool.resources),
            "max_restarts": 0,  # replaced by us, so that a retry is counted and bounded
            "runtime_env": {"env_vars": _ENVIRONMENT},
        }
        return Actor(ray.remote(Worker).options(**options).remote(cloudpickle.loads, self._app_ref))

    def _crew_of(self, device: str) -> Crew:
        crew = self._crews.get(f"executor.pools.{device}") or self._crews.get("executor")
        if crew is None:
            raise ConfigurationError(_no_worker(device))
        return crew

    # ---------------------------------------------------------------------------------- the flow

    def _receive(self, timeout_s: float) -> bool:
        """Hand out jobs, and take all results that are there or the first one to come; True if any."""
        import ray

        for crew in self._crews.values():
            crew.feed(self._tasks)
        holders = {
            ref: (crew, actor) for crew in self._crews.values() for actor in crew.actors for ref in actor.held
        }
        if not holders:
            return False
        refs = list(holders)
        if timeout_s > 0:
            ray.wait(refs, num_returns=1, timeout=timeout_s)
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0.0)
        for ref in ready:
            crew, actor = holders[ref]
            if ref in actor.held:  # else its actor was found dead a moment ago
                self._take(crew, actor, ref)
        for crew in self._crews.values():
            crew.feed(self._tasks)
        return bool(ready)

    def _take(self, crew: Crew, actor: Actor, ref: Any) -> None:
        """Take a result. If the actor has died, replace it, and try again what it held."""
        error = self._settle(ref, actor.held[ref])
        if error is None:
            del actor.held[ref]
            return
        import ray

        with contextlib.suppress(ray.exceptions.RayError):  # it is gone already
            ray.kill(actor.handle)
        crew.actors[crew.actors.index(actor)] = self._new_actor(crew.pool)
        lost = [ticket for r, ticket in actor.held.items() if r == ref or self._settle(r, ticket) is not None]
        actor.held = {}
        for ticket in reversed(lost):
            task = self._tasks[ticket]
            task.is_suspect = True
            task.num_deaths += len(lost) == 1
            if task.num_deaths > self._settings.max_retries or not task.is_wanted:
                crash = Message(Error(CRASHED, _crash(error)), reply_to=task.job.message)
                self._finish(ticket, Done(crash, task.job.context))
            else:
                self.retries += 1
                crew.waiting.appendleft(ticket)

    def _settle(self, ref: Any, ticket: int) -> Exception | None:
        """Finish a job whose result is there; the error if its actor died instead."""
        import ray

        job = self._tasks[ticket].job
        try:
            done = ray.get(ref)
        except ray.exceptions.RayTaskError as error:  # a reply that cannot be shipped
            done = Done(Message(Error(RAISED, str(error)), reply_to=job.message), job.context)
        except ray.exceptions.RayError as error:
            lost: Exception = error
            return lost
        self._finish(ticket, done)
        return None

    def _finish(self, ticket: int, done: Done) -> None:
        if self._tasks.pop(ticket).is_wanted:
            self._done[ticket] = done

    def _check_nodes(self) -> None:
        """Long silence may be long work, or an actor that waits for a node which is gone."""
        try:
            self.check_fit()
        except ConfigurationError as error:
            raise FederationError(f"the Ray cluster has lost nodes: {error}") from error


def join(address: str) -> None:
    """Connect this process to a Ray cluster, whose nodes will run this very fedpref.

    Raises:
        ConfigurationError: it is no address, or nobody answers there.
    """
    check_address(address)
    _keep_to_ourselves()
    import ray

    is_near = is_on_loopback(address, ray.util.get_node_ip_address())
    # Nodes elsewhere run the driver's own fedpref: other code would give other bytes.
    code = {"py_modules": [str(Path(fedpref.__file__).parent)]}
    with _untidy(), _loopback() if is_near else contextlib.nullcontext():
        ray.init(address, runtime_env=code, **_QUIET)


def _keep_to_ourselves() -> None:
    """Tell nobody of a cluster's use; before Ray is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_USAGE_STATS_REPORT_URL", "http://127.0.0.1:9")
    os.environ.setdefault(_HIDE_GPUS, "0")  # else Ray tells of what it plans to change


def _ship(array: Array) -> Any:
    import ray

    return ray.put(array)


def _no_worker(device: str) -> str:
    return (
        f"executor.num_workers=0 leaves no worker for clients of device class '{device}'; "
        f"set executor.pools.{device}.num_workers=1, or executor.num_workers"
    )


def _crash(error: Exception) -> str:
    """Why a task ended with its worker, in words that are the same in every run."""
    import ray

    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return (
            "the worker process died for lack of memory; lower executor.num_workers or give the machine more"
        )
    return "the worker process died at this task, as often as executor.max_retries allows"


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Inside the block Ray takes 127.0.0.1 for this machine's address, and opens no port to the network."""
    from ray._private import ray_constants

    was, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = was


@contextlib.contextmanager
def _untidy() -> Iterator[None]:
    """Ray drops open log files and handles of ended processes; that is no warning for our users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
