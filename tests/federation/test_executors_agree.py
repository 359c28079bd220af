"""The executor decides where clients run, and nothing else."""

import dataclasses

import pytest

from fedpref.clients.linear_reward import LinearReward
from fedpref.data.synthetic import Synthetic
from fedpref.federation.federation import Federation
from fedpref.models.hashing import Hashing
from fedpref.simulation.ray import RayPool
from fedpref.strategies.fedavg import FedAvg


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray leaves pipes open
def test_inline_and_ray_with_one_and_two_workers_give_equal_runs() -> None:
    population = Synthetic(preset="tiny", form="text").population(seed=0)
    rule = LinearReward(Hashing(), local_steps=5, init_std=0.1)
    inline = Federation(population, rule, FedAvg(cohort_size=5), rounds=3, seed=2)
    runs = [
        dataclasses.replace(inline, executor=executor).run()
        for executor in (inline.executor, RayPool(num_workers=1), RayPool(num_workers=2))
    ]
    histories = [[{k: v for k, v in r.items() if k != "wall_s"} for r in run.history] for run in runs]
    assert histories[0] == histories[1] == histories[2]
    assert len({run.summary["weights_sha256"] for run in runs}) == 1
