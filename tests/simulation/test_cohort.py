"""The cohort executor: what waits together is done together, and a failure stays with its client."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from fedpref.clients.linear_reward import LinearReward
from fedpref.errors import ConfigurationError
from fedpref.federation.federation import Federation
from fedpref.models import Given
from fedpref.seeds import generator
from fedpref.simulation.cohort import Cohort
from fedpref.simulation.inline import Inline
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedbuff import FedBuff
from fedpref.types import ClientState, HeldOut, Pairs, Plan, Population, Shard

DIM = 40


def pairs(num_pairs: int, seed: int) -> Pairs:
    chosen, rejected = generator(seed, "pairs").standard_normal((2, num_pairs, DIM)).astype(np.float32)
    return Pairs(
        ("",) * num_pairs,
        chosen + 0.1,
        rejected,
        tuple(f"{seed}/{i}" for i in range(num_pairs)),
        ("",) * num_pairs,
    )


def population(num_clients: int = 9) -> Population:
    shards = [Shard(i, f"{i}", pairs(4 + 3 * i, i)) for i in range(num_clients)]
    return Population(shards, [HeldOut("someone", None, pairs(30, 99))])


class Counting(LinearReward):
    """Notes how many were trained together, and cannot train client 3 with others."""

    def answer_cohort(self, tasks, shards, states, rngs):
        sizes.append(len(tasks))
        if any(shard.client_id == 3 for shard in shards) and spoils:
            raise spoils[0]("this cohort has a bad apple")
        return super().answer_cohort(tasks, shards, states, rngs)

    def answer(self, task, shard, state, rng):
        if shard.client_id == 3 and spoils:
            raise spoils[0]("the dog ate it")
        return super().answer(task, shard, state, rng)


sizes: list[int] = []
spoils: list[type[BaseException]] = []


@pytest.fixture(autouse=True)
def _fresh_notes():
    sizes.clear()
    spoils.clear()


def federation(rule, strategy, executor, rounds=4):
    return Federation(population(), rule, strategy, rounds, executor=executor, evaluate_every=rounds)


@pytest.mark.parametrize("strategy", [FedAvg(), FedAvg(cohort_size=4), FedBuff(concurrency=5, buffer_size=2)])
def test_a_run_in_cohorts_is_the_run_one_by_one_to_rounding(strategy) -> None:
    rule = LinearReward(Given(DIM), batch_pairs=8)
    together, alone = (federation(rule, strategy, each).run() for each in (Cohort(), Inline()))
    for key, array in alone.models["global"].items():
        np.testing.assert_allclose(together.models["global"][key], array, atol=1e-6)
    assert [record["clock_s"] for record in together.history] == [
        record["clock_s"] for record in alone.history
    ]


def test_a_round_is_one_batch_and_no_batch_is_larger_than_asked() -> None:
    federation(Counting(Given(DIM)), FedAvg(), Cohort(), rounds=2).run()
    assert sizes == [9, 9]
    sizes.clear()
    federation(Counting(Given(DIM)), FedAvg(), Cohort(max_clients=4), rounds=1).run()
    assert sizes == [4, 4]  # the ninth is alone


@pytest.mark.parametrize("failure", [RuntimeError, SystemExit])
def test_a_client_that_fails_or_exits_fails_alone(failure, caplog) -> None:
    spoils.append(failure)
    result = federation(Counting(Given(DIM)), FedAvg(), Cohort(), rounds=2).run()
    assert not caplog.records
    assert [(record["clients_ok"], record["clients_failed"]) for record in result.history[1:]] == [(8, 1)] * 2
    alone = federation(Counting(Given(DIM)), FedAvg(), Inline(), rounds=2).run()
    assert result.summary["weights_sha256"] == alone.summary["weights_sha256"]


def test_a_rule_without_a_batched_form_gives_the_same_bits_and_says_so_once(toy, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        ends = []
        for executor in (Cohort(), Inline()):
            rule = toy.PullRule(noise=0.1)
            shards = [toy.make_shard(i) for i in range(4)]
            people = Population(shards, [HeldOut("someone", None, shards[3].pairs)])
            run = Federation(people, rule, toy.ToyAvg(), 3, executor=executor)
            ends.append(run.run().summary["weights_sha256"])
    assert ends[0] == ends[1]
    assert [record.message for record in caplog.records if "no batched form" in record.message] == [
        "executor=cohort: this client rule has no batched form; clients train one by one"
    ]


def test_a_cohort_of_nobody_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"executor\.max_clients=0"):
        Cohort(max_clients=0)


class Remembering(LinearReward):
    """Adds one to what it keeps; the reply says how often."""

    def answer(self, task, shard, state, rng):
        (reply, state) = super().answer(task, shard, state, rng)
        return self.counted(reply, state)

    def answer_cohort(self, tasks, shards, states, rngs):
        sizes.append(len(tasks))
        answers = super().answer_cohort(tasks, shards, states, rngs)
        return [self.counted(reply, state) for reply, state in answers]

    def counted(self, reply, state):
        count = state.numbers.get("count", 0) + 1
        metrics = {**reply.metrics, "count": float(count)}
        return reply._replace(metrics=metrics), ClientState(state.arrays, {"count": count})


@pytest.mark.parametrize(
    "strategy",
    [FedAvg(), FedAvg(cohort_size=3, over_selection=1.0), FedBuff(concurrency=5, buffer_size=2)],
)
def test_what_clients_keep_is_what_they_would_keep_alone(strategy) -> None:
    kept = []
    for executor in (Cohort(), Inline()):
        setup = federation(Remembering(Given(DIM)), strategy, executor)
        with setup.grid() as grid:
            rounds = setup.start(grid)
            while rounds.version < setup.rounds:
                rounds.advance()
            kept.append([dict(rounds.exchange.kept(client).numbers) for client in range(9)])
    assert kept[0] == kept[1] and any(kept[0])
    assert max(sizes) > 1


class Scribbling(LinearReward):
    """Writes to the weights that it got, which belong to all clients of the cohort."""

    def answer_cohort(self, tasks, shards, states, rngs):
        tasks[0].weights["score.weight"][:] = 1
        return super().answer_cohort(tasks, shards, states, rngs)


def test_no_client_can_write_to_weights_that_others_train_from_and_it_is_told_once(caplog) -> None:
    ends = [
        federation(rule(Given(DIM)), FedAvg(), executor, rounds=2).run().summary["weights_sha256"]
        for rule, executor in ((Scribbling, Cohort()), (LinearReward, Inline()))
    ]
    assert ends[0] == ends[1]  # the cohort fails, and all are trained one by one
    (record,) = caplog.records
    assert "train one by one" in record.message and "read-only" in record.message


class HalfWay(FedAvg):
    """Every client answers a first segment, and then is given a whole task instead of the second."""

    def plan(self, state, idle, clock_s, rng):
        _, plan = super().plan(state, idle, clock_s, rng)
        if clock_s > 0:
            return state, plan
        return state, Plan([replace(task, settings={"split_at": 0.5}, reply={}) for task in plan.tasks])


class Watching(LinearReward):
    """Looks at what it is handed as its own memory."""

    def answer_cohort(self, tasks, shards, states, rngs):
        seen.extend(key for state in states for key in state.arrays)
        return super().answer_cohort(tasks, shards, states, rngs)


seen: list[str] = []


def test_a_rule_never_sees_what_a_first_segment_has_kept_and_a_whole_task_drops_it() -> None:
    seen.clear()
    rule = Watching(Given(DIM), batch_pairs=8)
    together, alone = (federation(rule, HalfWay(cohort_size=9), each).run() for each in (Cohort(), Inline()))
    assert seen == []
    np.testing.assert_allclose(
        together.models["global"]["score.weight"], alone.models["global"]["score.weight"], atol=1e-6
    )
