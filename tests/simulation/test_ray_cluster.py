"""Pools of Ray actors, each for its class of devices, on one node and on two that are joined by address."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from ray_toy import started

from fedpref.errors import ConfigurationError, FederationError
from fedpref.flower import _shim
from fedpref.simulation.executor import CRASHED, Job
from fedpref.simulation.inline import Inline
from fedpref.simulation.ray import RayPool
from fedpref.simulation.ray_address import is_on_loopback
from fedpref.simulation.ray_crew import DEPTH, Actor, Crew, Task
from fedpref.simulation.ray_pools import Pool, check_fit
from fedpref.simulation.ray_worker import Parcels

_shim.adopt_process()  # else no message can be built
NEVER = "/no/such/file"
MODEL = Array(np.arange(256, dtype=np.float32))


# ----------------------------------------------------------------------------------- without Ray


def test_an_option_that_a_pool_leaves_out_is_that_of_the_common_pool():
    executor = RayPool(num_workers=3, num_cpus=0.5, pools={"server": {"num_gpus": 0.25}})
    assert executor.pools["server"] == Pool(num_workers=3, num_cpus=0.5, num_gpus=0.25)


def test_without_common_workers_only_the_pools_of_classes_have_actors():
    assert set(RayPool(num_workers=0, pools={"phone": Pool()}).by_key) == {"executor.pools.phone"}


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        ({"phone": 3}, r"executor\.pools\.phone=3 must hold options"),
        ({"phone": {"num_worker": 3}}, r"'executor\.pools\.phone\.num_worker'\. Did you mean 'num_workers'"),
        ({"phone": {"num_workers": 0}}, r"executor\.pools\.phone\.num_workers=0 must be at least 1"),
        ({"phone": {"num_workers": 1.5}}, r"executor\.pools\.phone\.num_workers=1\.5"),
        ({"phone": {"num_cpus": -1}}, r"executor\.pools\.phone\.num_cpus=-1 must be a number, 0 or more"),
        ({"phone": {"num_gpus": 1.5}}, r"executor\.pools\.phone\.num_gpus=1\.5 above 1 must be whole"),
        ({"phone": {"resources": 1}}, r"executor\.pools\.phone\.resources=1 must name resources"),
        ({"phone": {"resources": {"a": "x"}}}, r"executor\.pools\.phone\.resources\.a='x' must be a number"),
        (3, r"executor\.pools=3 must name device classes"),
    ],
)
def test_a_pool_of_a_class_that_cannot_exist_is_refused_by_its_key(pools, message):
    with pytest.raises(ConfigurationError, match=message):
        RayPool(pools=pools)


def test_pools_must_fit_into_the_cluster_together():
    pools = {"executor": Pool(1), "executor.pools.phone": Pool(3)}
    check_fit(pools, [{"CPU": 2.0}, {"CPU": 2.0}])
    with pytest.raises(
        ConfigurationError, match=r"executor\.pools\.phone\.num_workers=3: .* 4 CPU in all .* 3;"
    ):
        check_fit(pools, [{"CPU": 3.0}])


def test_what_an_actor_needs_must_be_on_one_node():
    pools = {"executor.pools.server": Pool(1, num_cpus=1, num_gpus=1)}
    with pytest.raises(
        ConfigurationError, match=r"executor\.pools\.server: an actor needs 1 CPU and 1 GPU on one"
    ):
        check_fit(pools, [{"CPU": 8.0}, {"GPU": 1.0}])


@pytest.mark.parametrize("address", ["cluster", "host:", "host:port", ":6379", "host:99999", "ray://host"])
def test_an_address_without_host_and_port_is_refused(address):
    with pytest.raises(ConfigurationError, match=r"must be of the form host:port"):
        RayPool(address=address)


def test_an_address_where_nobody_answers_is_refused_at_once():
    with pytest.raises(ConfigurationError, match=r"executor\.address=127\.0\.0\.1:1: nobody answers there"):
        is_on_loopback("127.0.0.1:1", "127.0.0.1")


class _Handle:
    """Stands for an actor: ``run.remote`` gives a reference."""

    def __init__(self):
        self.run = self

    def remote(self, *parcel):
        return object()


def _crew(num_actors, num_tasks):
    crew = Crew(Pool(num_actors), [Actor(_Handle()) for _ in range(num_actors)])
    crew.waiting.extend(range(num_tasks))
    return crew, {ticket: Task(job(ticket), ()) for ticket in range(num_tasks)}


def test_all_actors_get_one_job_before_any_gets_its_next():
    crew, tasks = _crew(3, 4)
    crew.feed(tasks)
    assert [list(actor.held.values()) for actor in crew.actors] == [[0, 3], [1], [2]]


def test_no_actor_holds_more_than_its_depth():
    crew, tasks = _crew(2, 9)
    crew.feed(tasks)
    assert [len(actor.held) for actor in crew.actors] == [DEPTH, DEPTH] and list(crew.waiting) == [
        4,
        5,
        6,
        7,
        8,
    ]


def test_a_job_whose_actor_died_shares_no_actor_with_another():
    crew, tasks = _crew(2, 4)
    tasks[0].is_suspect = tasks[3].is_suspect = True
    crew.feed(tasks)
    assert [list(actor.held.values()) for actor in crew.actors] == [[0], [1, 2]] and list(crew.waiting) == [3]


def test_an_array_is_shipped_once_for_all_jobs_of_a_submit_and_of_the_next():
    shipped = []
    parcels = Parcels(lambda array: shipped.append(array) or len(shipped))
    for _ in range(2):
        assert [parcels.pack(job(i))[3:] for i in range(3)] == [(1,)] * 3
        parcels.end_submit()
    assert len(shipped) == 1
    other = Array(np.arange(256, dtype=np.float32) + 1)
    assert parcels.pack(job(3, model=other))[3:] == (2,)


def test_arrays_that_no_submit_carries_any_more_are_let_go():
    shipped = []
    parcels = Parcels(lambda array: shipped.append(array) or len(shipped))
    parcels.pack(job(0))
    for _ in range(5):
        parcels.end_submit()
    assert parcels.pack(job(1))[3:] == (2,)


# -------------------------------------------------------------------------------------- with Ray


def job(i, device="phone", model=MODEL, **settings):
    config = ConfigRecord({"i": i, **settings})
    message = Message(RecordDict({"arrays": ArrayRecord({"w": model}), "config": config}), i + 1, "train")
    return Job(_shim.stamp(message, f"m{i}"), Context(1, i + 1, {}, RecordDict(), {}), device)


def clients():
    """Clients that wait, die or tell where they are; to be shipped by value."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        config = message.content["config"]
        if config.get("log"):
            with open(str(config["log"]), "a") as log:
                log.write(f"{config['i']} {os.getpid()}\n")
        if config.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        while config.get("until") and not Path(str(config["until"])).exists():
            time.sleep(0.02)
        context.state["seen"] = ConfigRecord({"i": config["i"]})
        content = {"arrays": message.content["arrays"], "told": ConfigRecord({"i": config["i"]})}
        if config.get("where"):
            import ray

            content["where"] = ConfigRecord(
                {"node": ray.get_runtime_context().get_node_id(), "pid": os.getpid()}
            )
        return Message(RecordDict(content), reply_to=message)

    return app


@pytest.fixture
def start():
    """Starts executors with the clients of this file, and closes them."""
    with started(sys.modules[__name__], clients) as begin:
        yield begin


@pytest.fixture(scope="module")
def two_nodes():
    """A cluster of two nodes on the loopback interface; the second one has a resource ``edge``."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    from ray.cluster_utils import Cluster

    local = {"node_ip_address": "127.0.0.1", "num_cpus": 4}
    cluster = Cluster(initialize_head=True, head_node_args={**local, "include_dashboard": False})
    edge = cluster.add_node(**local, resources={"edge": 4})
    yield cluster.address, edge.node_id, cluster
    cluster.shutdown()


def told(done):
    assert done.reply.has_content(), done.reply.error
    return done.reply.content["told"]["i"], done.context.state["seen"]["i"]


def begun(log):
    """Client and process of each job that was begun, in order."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(line.split()[0]), int(line.split()[1])) for line in lines]


def wait_for(condition):
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def actors_among(processes):
    titles = {process: process.as_dict(["cmdline"], ad_value=[])["cmdline"] for process in processes}
    return [process for process, title in titles.items() if "ray::Worker" in " ".join(title)]


def parts(done):
    return {key: dict(record) for key, record in done.reply.content.items()}


pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # Ray leaves pipes open


@pytest.mark.slow
def test_an_actor_goes_on_with_its_next_job_although_nobody_asks(start, two_nodes, tmp_path):
    log = tmp_path / "begun"
    start(RayPool(address=two_nodes[0], num_workers=2)).submit([job(i, log=str(log)) for i in range(9)])
    wait_for(lambda: len(begun(log)) == 2 * DEPTH)


@pytest.mark.slow
def test_results_are_fetched_in_any_order_and_discarded_jobs_that_wait_are_never_begun(
    start, two_nodes, tmp_path
):
    log, gate = tmp_path / "begun", tmp_path / "gate"
    workers = start(RayPool(address=two_nodes[0], num_workers=2))
    tickets = workers.submit([job(i, until=str(gate), log=str(log)) for i in range(8)])
    tickets += workers.submit([job(i, log=str(log)) for i in range(8, 12)])
    for ticket in (tickets[0], tickets[7], tickets[11]):  # held by an actor; waiting; waiting
        workers.discard(ticket)
    gate.touch()
    kept = [i for i in range(12) if i not in (0, 7, 11)]
    random.Random(0).shuffle(kept)
    assert [told(workers.collect(tickets[i])) for i in kept] == [(i, i) for i in kept]
    assert sorted(i for i, _ in begun(log)) == sorted({0, *kept})
    for ticket in tickets:
        with pytest.raises(KeyError):
            workers.collect(ticket)


@pytest.mark.slow
def test_a_client_that_dies_does_not_take_its_neighbour_along(start, two_nodes):
    workers = start(RayPool(address=two_nodes[0], num_workers=1, max_retries=0))
    tickets = workers.submit([job(0), job(1, kill=True), job(2), job(3, kill=True), job(4)])
    done = [workers.collect(ticket) for ticket in tickets]
    assert [d.reply.has_error() for d in done] == [False, True, False, True, False]
    assert {d.reply.error.code for d in done if d.reply.has_error()} == {CRASHED}


@pytest.mark.slow
def test_two_actors_killed_with_work_queued_lose_and_double_nothing(start, two_nodes, tmp_path):
    log, gate = tmp_path / "begun", tmp_path / "gate"
    workers = start(RayPool(address=two_nodes[0], num_workers=2))
    tickets = workers.submit([job(i, until=str(gate), log=str(log)) for i in range(10)])
    wait_for(lambda: len(begun(log)) == 2)
    for _, pid in begun(log):
        os.kill(pid, signal.SIGKILL)
    gate.touch()
    assert [told(workers.collect(ticket)) for ticket in tickets] == [(i, i) for i in range(10)]
    assert workers.retries == 2 * DEPTH


@pytest.mark.slow
def test_a_node_that_takes_the_only_resource_along_ends_the_run(start, two_nodes, monkeypatch):
    monkeypatch.setattr("fedpref.simulation.ray._SILENCE_S", 1.0)
    node = two_nodes[2].add_node(node_ip_address="127.0.0.1", num_cpus=1, resources={"rare": 1})
    pools = {"phone": {"num_workers": 1, "resources": {"rare": 1}}}
    workers = start(RayPool(address=two_nodes[0], num_workers=1, pools=pools))
    (ticket,) = workers.submit([job(0, until=NEVER)])
    two_nodes[2].remove_node(node)
    with pytest.raises(FederationError, match=r"lost nodes: executor\.pools\.phone.* 1 rare .* has 0"):
        workers.collect(ticket)


@pytest.mark.slow
def test_each_class_runs_in_its_own_pool_and_the_rest_in_the_common_one(start, two_nodes):
    workers = start(
        RayPool(
            address=two_nodes[0],
            num_workers=1,
            num_cpus=0.5,
            pools={"phone": {"num_workers": 2}, "server": {}},
        )
    )
    devices = ["phone", "server", "laptop", "tablet"] * 3
    tickets = workers.submit([job(i, device, where=True) for i, device in enumerate(devices)])
    pids = {device: set() for device in devices}
    for device, ticket in zip(devices, tickets, strict=True):
        pids[device].add(workers.collect(ticket).reply.content["where"]["pid"])
    assert len(pids["phone"]) == 2 and len(pids["server"]) == 1 and pids["laptop"] == pids["tablet"]
    assert len(pids["phone"] | pids["server"] | pids["laptop"]) == 4


@pytest.mark.slow
def test_a_class_without_workers_is_named(start, two_nodes):
    workers = start(RayPool(address=two_nodes[0], num_workers=0, pools={"phone": {"num_workers": 1}}))
    with pytest.raises(ConfigurationError, match=r"device class 'server'; set executor\.pools\.server"):
        workers.submit([job(0, "server")])


@pytest.mark.slow
def test_closing_while_clients_work_leaves_no_process(start):
    before = set(psutil.Process().children(recursive=True))
    workers = start(RayPool(num_workers=2))
    workers.submit([job(i, until=NEVER) for i in range(6)])
    ours = set(psutil.Process().children(recursive=True)) - before
    assert len(actors_among(ours)) == 2
    workers.close()
    workers.close()
    _, alive = psutil.wait_procs(ours, timeout=10)
    assert not alive


@pytest.mark.slow
def test_a_joined_cluster_runs_each_pool_where_its_resources_are_and_gives_equal_bytes(start, two_nodes):
    address, edge, _ = two_nodes
    pools = {"phone": {"num_workers": 2, "resources": {"edge": 1}}}
    workers = start(RayPool(num_workers=2, num_cpus=1, address=address, pools=pools))
    devices = ["phone", "server"] * 4
    tickets = workers.submit([job(i, device, where=True) for i, device in enumerate(devices)])
    nodes = [workers.collect(ticket).reply.content["where"]["node"] for ticket in tickets]
    assert set(nodes[::2]) == {edge}
    jobs = [job(i, device) for i, device in enumerate(devices)]
    inline = Inline().start(clients())
    expected = [inline.collect(ticket) for ticket in inline.submit(jobs)]
    results = [workers.collect(ticket) for ticket in workers.submit(jobs)]
    assert [parts(done) for done in results] == [parts(done) for done in expected]
    assert [dict(d.context.state) for d in results] == [dict(d.context.state) for d in expected]


@pytest.mark.slow
def test_a_joined_cluster_is_left_running_without_our_actors(start, two_nodes):
    import ray

    address = two_nodes[0]
    for _ in range(2):  # joined, left, and joined again
        workers = start(RayPool(num_workers=1, address=address))
        told(workers.collect(workers.submit([job(0)])[0]))
        workers.submit([job(1, until=NEVER)])
        actors = actors_among(psutil.Process().children(recursive=True))
        workers.close()
        _, alive = psutil.wait_procs(actors, timeout=10)
        assert actors and not alive and not ray.is_initialized()


@pytest.mark.slow
def test_what_a_joined_cluster_lacks_is_named_with_its_key(start, two_nodes):
    executor = RayPool(num_workers=1, address=two_nodes[0], pools={"phone": {"resources": {"edge": 9}}})
    with pytest.raises(
        ConfigurationError, match=r"executor\.pools\.phone\.num_workers=1: the actors need 9 edge"
    ):
        start(executor)
