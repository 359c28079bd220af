"""What a federation refuses before anything runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
import torch

from fedpref.clients.linear_reward import LinearReward
from fedpref.data.synthetic import Synthetic
from fedpref.errors import ConfigurationError
from fedpref.federation.federation import Federation
from fedpref.models.given import Given
from fedpref.models.minilm import MiniLM
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


@dataclass(frozen=True)
class OnGpu(Given):
    """Feature vectors that claim to need a GPU, on a machine that has one."""

    device: str = "cuda"

    def check_device(self) -> None:
        pass


def test_a_model_on_a_gpu_that_the_workers_of_a_client_would_not_see_is_refused(
    federation: Federation,
) -> None:
    blind, seeing = Pool(1), Pool(1, num_gpus=0.25)
    given = dataclasses.replace(federation, rule=LinearReward(OnGpu(DIM), local_steps=1))
    with pytest.raises(ConfigurationError, match=r"backbone\.device=cuda .* executor\.num_gpus=0: .*=0\.25"):
        dataclasses.replace(given, executor=RayPool()).rehearse()
    with pytest.raises(ConfigurationError, match=r"executor\.pools\.slow\.num_gpus=0: "):
        dataclasses.replace(given, executor=RayPool(num_gpus=0.25, pools={"slow": blind})).rehearse()
    for executor in (RayPool(num_gpus=0.25), RayPool(pools={"slow": seeing})):  # nobody uses the common pool
        dataclasses.replace(given, executor=executor).rehearse()
    on_cpu = dataclasses.replace(federation, rule=LinearReward(OnGpu(DIM, device="cpu"), local_steps=1))
    dataclasses.replace(on_cpu, executor=RayPool()).rehearse()


def test_a_model_on_a_gpu_is_refused_where_this_process_sees_none(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = dataclasses.replace(federation, rule=LinearReward(MiniLM(device="cuda"), local_steps=1))
    with pytest.raises(ConfigurationError, match=r"backbone\.device=cuda: this process sees no GPU"):
        given.rehearse()
    dataclasses.replace(given, rule=LinearReward(MiniLM(), local_steps=1)).rehearse()
