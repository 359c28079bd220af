"""What a federation refuses before anything runs."""

from __future__ import annotations

import dataclasses

import pytest

from fedpref.clients.linear_reward import LinearReward
from fedpref.data.synthetic import Synthetic
from fedpref.errors import ConfigurationError
from fedpref.federation.federation import Federation
from fedpref.models.given import Given
from fedpref.simulation.device_classes import DeviceClass, Mix
from fedpref.simulation.fleet import timing
from fedpref.simulation.ray import RayPool
from fedpref.simulation.ray_pools import Pool
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedprox import FedProx

DIM = 6
WEIGHTS_BYTES = 4 * DIM
SLOW = DeviceClass(flops_per_s=1e3)


def rule_of(local_steps: int) -> LinearReward:
    return LinearReward(Given(DIM), local_steps=local_steps, batch_pairs=8)


@pytest.fixture(scope="module")
def federation() -> Federation:
    population = Synthetic(preset="tiny", form="attributes", num_attributes=DIM, test_pairs=10).population(0)
    return Federation(population, rule_of(4), FedAvg(), rounds=1, fleet=Mix({"slow": SLOW}))


def seconds(federation: Federation, local_steps: int) -> float:
    """Of the fastest client, which is the one with the least work."""
    rule, device = rule_of(local_steps), SLOW.device("slow", 0.0)
    works = zip(federation.first_plan().tasks, federation.population.shards, strict=True)
    flops = min(rule.workload(task, shard).flops for task, shard in works)
    return timing(device, 0, 0, flops, WEIGHTS_BYTES, WEIGHTS_BYTES).total_s


def test_a_deadline_is_refused_only_if_the_fastest_client_misses_it(federation: Federation) -> None:
    fastest_s = seconds(federation, 4)
    dataclasses.replace(federation, strategy=FedAvg(deadline_s=fastest_s)).rehearse()
    late = dataclasses.replace(federation, strategy=FedAvg(deadline_s=fastest_s - 1e-3))
    with pytest.raises(ConfigurationError, match=r"strategy\.deadline_s.* or client\.local_steps lower$"):
        late.rehearse()


def test_clients_that_cut_their_steps_need_the_time_of_one(federation: Federation) -> None:
    one_s = seconds(federation, 1)
    assert one_s < seconds(federation, 4)
    dataclasses.replace(federation, strategy=FedProx(deadline_s=one_s)).rehearse()
    late = dataclasses.replace(federation, strategy=FedProx(deadline_s=one_s - 1e-3))
    with pytest.raises(ConfigurationError, match=r"strategy\.deadline_s.* a faster fleet$"):
        late.rehearse()


def test_memory_that_does_not_fit_is_refused(federation: Federation) -> None:
    tiny = Mix({"slow": dataclasses.replace(SLOW, memory_bytes=1.0)})
    with pytest.raises(ConfigurationError, match=r"fleet\.devices\.slow\.memory_bytes="):
        dataclasses.replace(federation, fleet=tiny).rehearse()


def test_a_pool_for_no_device_class_is_refused_and_so_is_a_client_without_a_pool(
    federation: Federation,
) -> None:
    fleet = Mix({"slow": SLOW, "none": dataclasses.replace(SLOW, share=0.0)})
    given = dataclasses.replace(federation, fleet=fleet)
    dataclasses.replace(given, executor=RayPool(num_workers=0, pools={"slow": Pool()})).rehearse()
    misspelt = dataclasses.replace(given, executor=RayPool(pools={"slwo": Pool()}))
    with pytest.raises(ConfigurationError, match=r"executor\.pools\.slwo .* Did you mean 'slow'\?"):
        misspelt.rehearse()
    left_out = dataclasses.replace(given, executor=RayPool(num_workers=0, pools={"none": Pool()}))
    with pytest.raises(ConfigurationError, match=r"set executor\.pools\.slow\.num_workers=1"):
        left_out.rehearse()
