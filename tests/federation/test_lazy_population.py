"""A population whose shards are made when they are needed."""

import numpy as np

from fedpref.clients.linear_reward import LinearReward
from fedpref.federation.federation import Federation
from fedpref.lazy import LazySequence
from fedpref.models import Given
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.types import HeldOut, Pairs, Population, Shard

DIM, MANY = 4, 10**6
made: list[int] = []


def pairs(num_pairs: int, *address: int | str) -> Pairs:
    chosen, rejected = generator(0, *address).standard_normal((2, num_pairs, DIM)).astype(np.float32)
    empty = ("",) * num_pairs
    return Pairs(empty, chosen, rejected, tuple(map(str, range(num_pairs))), empty)


def shard(client: int) -> Shard:
    made.append(client)
    return Shard(client, f"person-{client}", pairs(3 + client % 5, "shard", client))


def run(shards, num_rounds=3):
    people = Population(shards, [HeldOut("someone", None, pairs(20, "held out"))])
    return Federation(people, LinearReward(Given(DIM)), FedAvg(cohort_size=5), num_rounds).run()


def test_of_a_million_clients_only_those_that_work_are_made() -> None:
    made.clear()
    run(LazySequence(MANY, shard))
    assert len(made) == len(set(made)) == 3 * 5


def test_shards_that_are_made_late_give_the_same_run() -> None:
    late, early = (run(shards) for shards in (LazySequence(40, shard), [shard(i) for i in range(40)]))
    assert late.summary["weights_sha256"] == early.summary["weights_sha256"]


def test_shards_that_are_forgotten_and_made_again_give_the_same_run() -> None:
    few, many = (run(LazySequence(8, shard, keep=keep)) for keep in (1, 8))
    assert few.summary["weights_sha256"] == many.summary["weights_sha256"]
