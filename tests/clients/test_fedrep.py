from __future__ import annotations

import numpy as np
import pytest
from cohorts import assert_cohort_equals_singles, assert_parts_equal_singles

from fedpref.clients.fedrep import FedRep
from fedpref.clients.flute import Flute
from fedpref.errors import ConfigurationError
from fedpref.models import Given
from fedpref.seeds import generator
from fedpref.types import ClientState, Pairs, Personal, Shard, Task, Weights

DIM, RANK = 5, 2
B, HEAD = "representation.weight", "head.weight"


def some_pairs(num_pairs: int, seed: int = 0) -> Pairs:
    rng = generator(seed, "pairs")
    left, right = rng.standard_normal((2, num_pairs, DIM)).astype(np.float32)
    likes_left = (left - right) @ rng.standard_normal(DIM) > 0
    chosen, rejected = (np.where(likes_left[:, None], *sides) for sides in ((left, right), (right, left)))
    return Pairs(("",) * num_pairs, chosen, rejected, tuple(map(str, range(num_pairs))), ("",) * num_pairs)


def rule(**options: object) -> FedRep:
    return FedRep(**{"backbone": Given(DIM), "rank": RANK, **options})  # type: ignore[arg-type]


def fresh(seed: int = 0) -> Weights:
    return rule().fresh(generator(seed, "fresh"))


SHARD = Shard(0, "a", some_pairs(30))


def test_the_representation_alone_travels() -> None:
    assert set(fresh()) == {B}
    reply, state = rule().answer(Task(0, fresh()), SHARD, ClientState(), generator(0, "task"))
    assert set(reply.weights) == {B} and set(state.arrays) == {HEAD}
    assert not any("head" in name for name in reply.metrics)


def test_the_head_is_fitted_first_and_the_representation_moves_around_the_fitted_head() -> None:
    learner = rule(head_steps=4, representation_steps=3)
    reply, state = learner.answer(Task(0, fresh()), SHARD, ClientState(), generator(0, "task"))
    # Head steps alone give the very head; steps on the representation alone, with it, the very B.
    head_only, fitted = rule(head_steps=4, representation_steps=0).answer(
        Task(0, fresh()), SHARD, ClientState(), generator(0, "task")
    )
    assert state.arrays[HEAD].tobytes() == fitted.arrays[HEAD].tobytes()
    assert head_only.weights[B].tobytes() == fresh()[B].tobytes()
    rest, _ = rule(head_steps=0, representation_steps=3).answer(
        Task(0, fresh()), SHARD, fitted, generator(0, "task")
    )
    # Not to the bit: the kept head was rounded to float32.
    np.testing.assert_allclose(reply.weights[B], rest.weights[B], atol=1e-6)


def test_a_client_goes_on_from_the_head_that_it_kept() -> None:
    learner = rule(head_steps=3, representation_steps=0, l2=0.0)
    state = ClientState()
    for _ in range(4):
        _, state = learner.answer(Task(0, fresh()), SHARD, state, generator(0, "task"))
    _, at_once = rule(head_steps=12, representation_steps=0, l2=0.0).answer(
        Task(0, fresh()), SHARD, ClientState(), generator(0, "task")
    )
    np.testing.assert_allclose(state.arrays[HEAD], at_once.arrays[HEAD], atol=1e-6)


def test_joint_steps_instead_of_the_second_phase_are_flutes() -> None:
    """FLUTE without its server steps is FedRep whose last phase moves the head too."""
    options = {"backbone": Given(DIM), "rank": RANK, "head_steps": 3, "joint_steps": 2}
    own, other = FedRep(representation_steps=0, **options), Flute(**options)  # type: ignore[arg-type]
    head = np.zeros((1, RANK), np.float32)
    representation, state = fresh()[B], ClientState()
    both: Weights = {B: representation, HEAD: head}
    for _ in range(5):
        kept_home, state = own.answer(Task(0, {B: representation}), SHARD, state, generator(0, "task"))
        sent, _ = other.answer(Task(0, both), SHARD, ClientState(), generator(0, "task"))
        representation, both = kept_home.weights[B], sent.weights
        assert representation.tobytes() == both[B].tobytes()
        assert state.arrays[HEAD].tobytes() == both[HEAD].tobytes()


def test_a_client_without_pairs_keeps_its_state_and_returns_what_it_received() -> None:
    state = ClientState({HEAD: np.ones((1, RANK), np.float32)})
    reply, after = rule().answer(Task(0, fresh()), Shard(0, "a", some_pairs(0)), state, generator(0, "task"))
    assert after is state and reply.num_pairs == 0
    assert reply.weights[B].tobytes() == fresh()[B].tobytes()


def test_the_kept_head_serves_its_client_after_the_final_steps() -> None:
    assert isinstance(rule(), Personal)
    state = ClientState({HEAD: np.ones((1, RANK), np.float32)})
    assert rule(final_steps=0).personalise(fresh(), SHARD, state)[HEAD] is state.arrays[HEAD]
    served = rule(final_steps=200).personalise(fresh(), SHARD, state)
    assert served[B] is not None and set(served) == {B, HEAD}
    learner = rule(final_steps=200, lr=2.0, l2=0.0)
    margins = learner.margins(learner.personalise(fresh(), SHARD, ClientState()), SHARD.pairs)
    assert np.mean(margins > 0) > 0.6  # a newcomer with pairs fits a head of its own, from zero


def test_a_newcomer_without_pairs_has_no_preference() -> None:
    served = rule().personalise(fresh(), None, ClientState())
    assert not rule().margins(served, SHARD.pairs).any()
    assert not rule().margins(fresh(), SHARD.pairs).any()


def test_the_work_told_before_is_the_work_reported_after() -> None:
    reply, _ = rule(batch_pairs=7).answer(Task(0, fresh()), SHARD, ClientState(), generator(0, "task"))
    assert rule(batch_pairs=7).workload(Task(0, {}), SHARD).flops == reply.metrics["flops"]


def test_options_are_checked_as_those_of_flute() -> None:
    with pytest.raises(ConfigurationError, match=r"client\.lr"):
        rule(lr=-1.0)
    with pytest.raises(ConfigurationError, match=r"client\.rank: 6 must be at most 5"):
        rule(rank=6).fresh(generator(0, "fresh"))


def test_a_cohort_gets_and_keeps_what_each_client_gets_and_keeps_alone() -> None:
    shards = [Shard(i, str(i), some_pairs(count, i)) for i, count in enumerate((30, 1, 0, 40))]
    kept = ClientState({HEAD: np.full((1, RANK), 0.3, np.float32), "other": np.ones(1, np.float32)})
    states = [kept, ClientState(), kept, ClientState()]
    assert_cohort_equals_singles(rule(), [Task(i, fresh()) for i in range(4)], shards, states)


def test_parts_added_together_are_those_added_one_by_one() -> None:
    shards = [None, *(Shard(i, str(i), some_pairs(count, i)) for i, count in enumerate((30, 1, 0, 40)))]
    kept = ClientState({HEAD: np.full((1, RANK), 0.3, np.float32)})
    states = [ClientState(), kept, ClientState(), kept, ClientState()]
    assert_parts_equal_singles(rule(), [fresh()] * 5, shards, states)
