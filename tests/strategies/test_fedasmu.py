import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from clock_toy import Clock

from fedpref.errors import ConfigurationError
from fedpref.maths.staleness import Constant
from fedpref.maths.weights import add_delta, difference
from fedpref.seeds import generator
from fedpref.strategies.fedasmu import FedASMU
from fedpref.strategies.fedasync import FedAsync
from fedpref.types import Arrival, Task, Update

RNG = generator(0, "minima")
MINIMA = [float(value) for value in RNG.normal(size=6)]
SECONDS = [1.0, 0.317, 0.7113, 2.2371, 0.5771, 1.4142]


@dataclass
class HalvesClock(Clock):
    """Clients that keep their weights after a first segment and take them up in the second."""

    kept: dict[int, np.ndarray] = field(default_factory=dict)
    resumed: list[tuple[Task, float]] = field(default_factory=list)

    def _steps(self, task: Task) -> int:
        if "split_at" not in task.settings:
            return self.steps
        first = round(float(task.settings["split_at"]) * self.steps)
        return first if task.kind == "train" else self.steps - first

    def _arrival(self, task: Task, sent_s: float) -> Arrival:
        client = task.client_id
        if task.kind == "resume":
            fresh, mix = task.weights, float(task.settings["mix"])
            kept = {"w": self.kept.pop(client)}
            mixed = add_delta(kept, difference(fresh, kept), mix)
            self.resumed.append((task, float(kept["w"][0])))
            began = super()._arrival(dataclasses.replace(task, weights=mixed), sent_s)
            return self._with_losses(began, task, mixed)
        arrival = super()._arrival(task, sent_s)
        if task.settings.get("split_at") is not None and arrival.update is not None:
            self.kept[client] = np.asarray(arrival.update.weights["w"])
            losses = self._losses(task, task.weights, arrival.update.weights)
            update = Update({}, {}, arrival.update.num_pairs, losses, client)
            return dataclasses.replace(arrival, update=update)
        return self._with_losses(arrival, task, task.weights)

    def _with_losses(self, arrival: Arrival, task: Task, began: Mapping[str, np.ndarray]) -> Arrival:
        if arrival.update is None:
            return dataclasses.replace(arrival, task=task)
        weights = arrival.update.weights
        losses = self._losses(task, began, weights)
        update = dataclasses.replace(arrival.update, received=task.weights, metrics=losses)
        return dataclasses.replace(arrival, task=task, update=update)

    def _losses(self, task: Task, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float]:
        minimum = self.minima[task.client_id]
        return {
            "loss_before": float(before["w"][0] - minimum) ** 2 / 2,
            "loss_after": float(after["w"][0] - minimum) ** 2 / 2,
        }


def halves(strategy: FedASMU, seconds: Sequence[float] = SECONDS, **options: Any) -> HalvesClock:
    return HalvesClock(strategy, MINIMA[: len(seconds)], seconds, steps=8, **options)


# ------------------------------------------------------------------------- reductions


@pytest.mark.parametrize("refresh_at", [None, 0.5, 0.25])
@pytest.mark.parametrize("num_clients", [1, 6])
def test_fixed_coefficients_without_refresh_are_fedasync(refresh_at: float | None, num_clients: int) -> None:
    # xi = 1.5 but for a millionth of a millionth, so alpha = 0.6, whatever the version and the age.
    fixed = FedASMU(initial_lambda=1e-12, initial_iota=1.5, mu_beta=0.0, meta_lr=0.0, refresh_at=refresh_at)
    one = halves(fixed, SECONDS[:num_clients]).run(25)
    mixing = FedAsync(alpha=0.6, staleness=Constant())
    other = Clock(mixing, MINIMA[:num_clients], SECONDS[:num_clients], steps=8).run(25)
    np.testing.assert_allclose(one.values, other.values, rtol=0, atol=1e-6)
    assert one.clock_s == pytest.approx(other.clock_s)


def test_an_answer_is_mixed_with_the_current_model_by_the_published_share() -> None:
    clock = halves(FedASMU(mu_alpha=2.0, initial_iota=0.1, meta_lr=0.0, refresh_at=None))
    seen = set()
    for _ in range(40):
        before, version = clock.value, clock.version
        (arrival,) = clock.advance()
        assert arrival.update is not None
        t, s = version + 1, arrival.staleness + 1
        xi = 1.0 / (np.sqrt(t) * np.sqrt(s)) + 0.1
        alpha = 2.0 * xi / (1 + 2.0 * xi)
        expected = (1 - alpha) * before + alpha * float(arrival.update.weights["w"][0])
        assert clock.value == pytest.approx(expected, abs=1e-6)
        seen.add(s)
    assert len(seen) > 3


# ------------------------------------------------------------------------- refresh


def test_the_second_segment_brings_the_fresh_model_and_how_far_to_go_towards_it() -> None:
    clock = halves(FedASMU(mu_beta=2.0, initial_gamma=0.9, initial_upsilon=0.5, meta_lr=0.0))
    for _ in range(60):
        clock.advance()
    origins = {}
    mixes = []
    for task in clock.tasks:
        if task.kind == "train":
            origins[task.client_id] = task.version
            assert task.expected == {}
            continue
        g, age = task.version + 1, task.version - origins[task.client_id] + 1
        phi = 0.9 / np.sqrt(g) * (1 - 0.5 / np.sqrt(age)) if age > 1 else 0.0
        assert task.settings["mix"] == pytest.approx(2 * phi / (1 + 2 * phi))
        assert task.expected == {"w": (1,)}
        mixes.append(task.settings["mix"])
    assert min(mixes) == 0.0 < max(mixes)
    assert len(clock.resumed) > 10


def test_a_model_that_has_not_changed_since_is_not_mixed_in() -> None:
    clock = halves(FedASMU(), seconds=[1.0])
    for _ in range(10):
        clock.advance()
    assert [task.settings["mix"] for task in clock.tasks if task.kind == "resume"] == [0.0] * 5


def test_age_counts_from_the_model_with_which_the_client_began() -> None:
    # Client 1 ends its second segment at 8 s; meanwhile client 0 has answered seven times.
    clock = halves(FedASMU(meta_lr=0.0), seconds=[0.13, 1.0])
    while not any(a.task.client_id == 1 and a.task.kind == "resume" for a in clock.arrivals):
        before, version = clock.value, clock.version
        (arrival,) = clock.advance()
    assert version == 7 and arrival.staleness < 7 and arrival.update is not None
    xi = 1 / (np.sqrt(8) * np.sqrt(8))
    alpha = xi / (1 + xi)
    expected = (1 - alpha) * before + alpha * float(arrival.update.weights["w"][0])
    assert clock.value == pytest.approx(expected, abs=1e-6)


def test_a_second_segment_follows_at_once_and_to_the_same_client() -> None:
    clock = halves(FedASMU(concurrency=3))
    for _ in range(50):
        num_tasks = len(clock.tasks)
        ended = [a for a in clock.arrivals[-1:] if a.task.kind == "train"]
        clock.advance()
        planned = [(task.client_id, task.kind) for task in clock.tasks[num_tasks:]]
        assert all((arrival.task.client_id, "resume") in planned for arrival in ended)
        assert len(clock.busy) <= 3


def test_a_client_that_goes_offline_half_way_begins_anew_and_another_takes_its_place() -> None:
    strategy = FedASMU(concurrency=1)
    clock = halves(strategy)
    (arrival,) = clock.advance()
    gone = arrival.task.client_id
    others = [client for client in range(6) if client != gone]
    state, plan = strategy.plan(clock.state, others, clock.clock_s, generator(0, "plan", 1))
    (task,) = plan.tasks
    assert (task.kind, task.client_id != gone, state.in_flight) == ("train", True, 1)
    assert state.halfway == {}


@pytest.mark.parametrize("lost_kind", ["train", "resume"])
def test_a_lost_segment_ends_the_work_of_its_client(lost_kind: str) -> None:
    lost = {"train": 0, "resume": 1}[lost_kind]
    clock = halves(FedASMU(), seconds=[1.0], lost=frozenset({lost})).run(2)
    kinds = [task.kind for task in clock.tasks]
    assert kinds == ["train"] * (lost == 0) + ["train", "resume"] * (2 + lost)
    assert clock.state.in_flight == 0


# ------------------------------------------------------------------------- staleness


def test_an_answer_that_is_too_old_is_refused_without_a_version() -> None:
    strategy = FedASMU(max_staleness=6, meta_lr=0.0)
    clock = halves(strategy, seconds=[0.13, 1.0])
    while not any(a.task.client_id == 1 and a.task.kind == "resume" for a in clock.arrivals):
        before, version, state = clock.value, clock.version, clock.state
        (arrival,) = clock.advance()
    assert (clock.version, clock.value) == (version, before)
    planned, _ = strategy.plan(state, [], 0.0, generator(0, "plan", 0))
    fold = strategy.fold(planned, [arrival], 0.0, generator(0, "fold", 0))
    assert (fold.updated, [a.task.number for a in fold.rejected]) == (0, [arrival.task.number])


# ------------------------------------------------------------------------- learning


def answered(
    strategy: FedASMU, metrics: Mapping[str, float], first: Mapping[str, float] | None = None
) -> Any:
    """The state after client 0 has answered once, in one segment or in two."""
    clock = halves(strategy, seconds=[1.0, 0.3])
    state = dataclasses.replace(clock.state, version=3)
    state, plan = strategy.plan(state, [0], 0.0, generator(0, "plan", 0))
    weights = {"w": np.ones(1, np.float32)}
    if first is not None:
        half = Arrival(plan.tasks[0], Update({}, {}, 1, first, 0), "ok", 0, 0.0, 1.0)
        state = strategy.fold(state, [half], 1.0, generator(0, "fold", 0)).state
        state = dataclasses.replace(state, version=5)
        state, plan = strategy.plan(state, [0], 1.0, generator(0, "plan", 1))
    update = Update(weights, weights, 1, metrics, 0)
    arrival = Arrival(plan.tasks[0], update, "ok", 2 if first is None else 0, 0.0, 2.0)
    return strategy.fold(state, [arrival], 2.0, generator(0, "fold", 1)).state


def test_an_answer_with_a_lower_loss_makes_the_next_one_count_more() -> None:
    strategy = FedASMU(refresh_at=None, initial_iota=0.2, meta_lr=0.1)
    better = answered(strategy, {"loss_before": 0.6, "loss_after": 0.4}).answer_weights[0]
    worse = answered(strategy, {"loss_before": 0.4, "loss_after": 0.6}).answer_weights[0]
    silent = answered(strategy, {}).answer_weights[0]
    assert (silent.scale, silent.decay, silent.offset) == (1.0, 0.5, 0.2)
    for weight, sign in ((better, 1), (worse, -1)):
        assert sign * (weight.scale - 1.0) > 0
        assert sign * (weight.decay - 0.5) < 0
        assert sign * (weight.offset - 0.2) > 0
    assert better.share(1.0, 4, 3) > silent.share(1.0, 4, 3) > worse.share(1.0, 4, 3)


def test_a_refresh_that_raised_the_loss_makes_the_next_one_smaller() -> None:
    strategy = FedASMU(meta_lr=0.1)
    helped = answered(strategy, {"loss_before": 0.4}, first={"loss_after": 0.5}).refresh_weights[0]
    harmed = answered(strategy, {"loss_before": 0.6}, first={"loss_after": 0.5}).refresh_weights[0]
    assert helped.scale > 1.0 > harmed.scale
    assert helped.caution < 0.5 < harmed.caution


def test_a_meta_lr_of_zero_holds_all_coefficients() -> None:
    state = halves(FedASMU(meta_lr=0.0)).run(30).state
    assert {(w.scale, w.decay, w.offset) for w in state.answer_weights.values()} == {(1.0, 0.5, 0.0)}
    assert {(w.scale, w.caution) for w in state.refresh_weights.values()} == {(1.0, 0.5)}


def test_the_model_never_leaves_the_span_of_the_minima() -> None:
    # Every share lies between 0 and 1, and so does every local step.
    values = halves(FedASMU(meta_lr=1.0)).run(300).values
    assert min(MINIMA) <= min(values) < max(values) <= max(MINIMA)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mu_alpha": 0.0}, r"mu_alpha=0\.0"),
        ({"initial_lambda": 0.0}, r"initial_lambda=0\.0"),
        ({"initial_sigma": -0.1}, r"initial_sigma=-0\.1"),
        ({"mu_beta": -1.0}, r"mu_beta=-1"),
        ({"meta_lr": float("nan")}, "meta_lr=nan"),
        ({"refresh_at": 1.0}, r"refresh_at=1\.0"),
        ({"local_steps": 0}, "local_steps=0"),
        ({"max_staleness": -1}, "max_staleness=-1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FedASMU(**options)  # type: ignore[arg-type]


def test_the_strategys_own_number_of_steps_is_that_of_both_segments() -> None:
    strategy = FedASMU(local_steps=10, refresh_at=0.3)
    _, plan = strategy.plan(halves(strategy).state, [2], 0.0, generator(0, "plan", 0))
    assert dict(plan.tasks[0].settings) == {"split_at": 0.3, "local_steps": 10}
