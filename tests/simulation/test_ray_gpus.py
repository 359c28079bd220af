"""Shares of GPUs in Ray, which counts GPUs as it is told: the cluster here claims two that nobody has."""

from __future__ import annotations

import os
import sys

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from ray_toy import started

from fedpref.errors import ConfigurationError
from fedpref.flower import _shim
from fedpref.simulation.executor import Job
from fedpref.simulation.ray import RayPool
from fedpref.simulation.ray_pools import Pool, check_fit

_shim.adopt_process()  # else no message can be built


def seeing():
    """Clients that tell which process they are in, and which GPUs it sees; to be shipped by value."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        seen = {"pid": os.getpid(), "gpus": os.environ["CUDA_VISIBLE_DEVICES"]}
        return Message(RecordDict({"seen": ConfigRecord(seen)}), reply_to=message)

    return app


@pytest.fixture(scope="module")
def two_gpus():
    """The address of a cluster of one node that claims two GPUs."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    from ray.cluster_utils import Cluster

    node = {"node_ip_address": "127.0.0.1", "num_cpus": 8, "num_gpus": 2, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def start():
    """Starts executors with the clients of this file, and closes them."""
    with started(sys.modules[__name__], seeing) as begin:
        yield begin


def job(i, device):
    message = Message(RecordDict({"config": ConfigRecord({"i": i})}), i + 1, "train")
    return Job(_shim.stamp(message, f"m{i}"), Context(1, i + 1, {}, RecordDict(), {}), device)


def seen(workers, devices):
    """The GPUs that each process sees, by device class of its clients."""
    tickets = workers.submit([job(i, device) for i, device in enumerate(devices)])
    found = {device: {} for device in devices}
    for device, ticket in zip(devices, tickets, strict=True):
        told = workers.collect(ticket).reply.content["seen"]
        found[device][told["pid"]] = told["gpus"]
    return {device: sorted(gpus.values()) for device, gpus in found.items()}


pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # Ray leaves pipes open


def gpus(count):
    return [{"CPU": 64.0, "GPU": count}]


def test_shares_that_fill_all_gpus_fit():
    check_fit({"executor": Pool(6, num_gpus=1 / 3)}, gpus(2.0))
    check_fit({"executor": Pool(2, num_gpus=0.5), "executor.pools.phone": Pool(1, num_gpus=1)}, gpus(2.0))


def test_shares_of_which_no_two_fit_on_one_gpu_need_a_gpu_each():
    check_fit({"executor": Pool(2, num_gpus=0.6)}, gpus(2.0))
    message = r"executor\.num_gpus=0\.6: a GPU has room for 1 such actors, .* 2 GPUs, .*num_workers=3;"
    with pytest.raises(ConfigurationError, match=message):
        check_fit({"executor": Pool(3, num_gpus=0.6)}, gpus(2.0))


def test_a_cluster_without_gpus_is_named_as_such():
    message = r"executor\.num_workers=2: the actors need 0\.5 GPU in all and the cluster has 0;"
    with pytest.raises(ConfigurationError, match=message):
        check_fit({"executor": Pool(2, num_gpus=0.25)}, [{"CPU": 64.0}])


def test_a_share_too_small_for_ray_is_refused():
    with pytest.raises(ConfigurationError, match=r"executor\.num_gpus=1e-05 is below 0\.0001"):
        RayPool(num_gpus=1e-5)


@pytest.mark.slow
def test_workers_see_the_gpu_that_they_share_and_none_without_a_share(start, two_gpus):
    pools = {"server": {"num_workers": 4, "num_gpus": 0.5}, "phone": {"num_workers": 1}}
    workers = start(RayPool(address=two_gpus, num_workers=0, pools=pools))
    found = seen(workers, ["server", "server", "phone", "server", "server"])
    assert found == {"server": ["0", "0", "1", "1"], "phone": [""]}
