"""FedCompass: steps by speed, so that clients of different speed arrive together.

Source: Li et al. 2024, "FedCompass: Efficient Cross-Silo Federated Learning on Heterogeneous Client
Devices using a Computing Power Aware Scheduler", arXiv:2309.14675, algorithms 1 and 2. The released code
raises 1 + tau to a positive power, which makes stale work count more, and leaves the late members of an
empty group behind; here neither happens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean
from fedpref.maths.staleness import Polynomial, Staleness, check_staleness
from fedpref.strategies.cohort import check_cohort, refill
from fedpref.strategies.global_model import GlobalModel, first_model, stepped
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Task, Update, Wait, Weights

__all__ = ["Compass", "FedCompass", "Group", "Held", "steps_to_create", "steps_to_join"]

_NO_GROUP = -1
_PART_OF_A_STEP = 1e-6  # rounding on the clock must not cost a client a step


@dataclass(frozen=True, eq=False)
class Held:
    """An update that waits for its step.

    Attributes:
        update: the answer.
        version: of the model that the client had.
        task: number of the task, which orders the sum.
        steps: local steps done.
    """

    update: Update
    version: int
    task: int
    steps: int


@dataclass(frozen=True, eq=False)
class Group:
    """Clients that are to arrive together.

    Attributes:
        expected_s: T_a, when all of them should arrive.
        latest_s: T_max, when the group is closed whoever is missing.
        members: all that were ever assigned to it.
        held: the answers so far.
    """

    expected_s: float
    latest_s: float
    members: tuple[ClientId, ...]
    held: tuple[Held, ...] = ()


@dataclass(frozen=True, eq=False)
class Compass:
    """State.

    Attributes:
        model: the global model.
        version: steps so far.
        step_s: estimated seconds of one local step of each client that has answered, v.
        groups: the open ones, by number.
        next_group: number of the next one.
        group_of: group of each client in flight, which may be closed by now; -1 for none.
        late: answers that came after their group was closed.
        num_clients: size of the population.
    """

    model: GlobalModel
    version: int
    step_s: Mapping[int, float]
    groups: Mapping[int, Group]
    next_group: int
    group_of: Mapping[int, int]
    late: tuple[Held, ...]
    num_clients: int


@dataclass(frozen=True)
class FedCompass:
    """``w <- w + alpha / N sum_i s(tau_i) delta_i`` over a group that arrives together.

    A client's first task has ``max_steps`` and measures its speed; its answer steps the model at once.
    After that it joins the group in which it can do the most steps by the expected time, or opens one.
    Answers of a group wait for the last of them or for the latest time; one that is later still is taken
    along by the next step. A client whose answer waits for its group counts as busy and gets no task.

    N is the number of clients that are busy together: ``concurrency``, or the population. So a round in
    which all of them arrive together is ``alpha`` times their mean, however many others there are. What is
    due at one instant makes one step. Staleness is that at the step. Clients that do more steps weigh more
    in the sum; the log has the least and the most of each step.

    Attributes:
        min_steps: Q_min, fewest local steps of a task.
        max_steps: Q_max, most local steps of a task.
        latest: lambda, a group's latest time as a multiple of its expected time, from its opening.
        alpha: step of the server.
        staleness: discount s of an answer whose model is tau versions old.
        speed_rate: weight of the newest measurement in the estimate of a client's speed, in (0, 1].
        concurrency: clients busy at all times; None is everybody.
        combine: how the deltas become one.
    """

    min_steps: int = 20
    max_steps: int = 100
    latest: float = 1.5
    alpha: float = 0.9
    staleness: Staleness = field(default_factory=Polynomial)
    speed_rate: float = 0.9
    concurrency: int | None = None
    combine: Combine = field(default_factory=WeightedMean)

    def __post_init__(self) -> None:
        if not 1 <= self.min_steps <= self.max_steps:
            raise ConfigurationError(
                f"strategy.min_steps={self.min_steps} must be at least 1 and at most "
                f"strategy.max_steps={self.max_steps}"
            )
        if not 1 <= self.latest < math.inf:
            raise ConfigurationError(f"strategy.latest={self.latest} must be 1 or more, and finite")
        if not 0 < self.alpha < math.inf:
            raise ConfigurationError(f"strategy.alpha={self.alpha} must be above 0, and finite")
        check_staleness(self.staleness)
        if not 0 < self.speed_rate <= 1:
            raise ConfigurationError(f"strategy.speed_rate={self.speed_rate} is not in (0, 1]")

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> Compass:
        """The global model; no speed is known.

        Raises:
            ConfigurationError: more clients are to be busy than there are.
        """
        check_cohort(self.concurrency, len(clients))
        return Compass(first_model(fresh, self.combine, clients), 0, {}, {}, 0, {}, (), len(clients))

    def plan(
        self, state: Compass, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[Compass, Plan]:
        """Steps and group for whoever is free, the fastest first; wait for an answer or a latest time."""
        clients = self._free(state, idle, rng)
        groups, group_of, tasks = dict(state.groups), dict(state.group_of), []
        next_group = state.next_group
        for client in sorted(clients, key=lambda client: (state.step_s.get(client, math.inf), client)):
            steps, key = self.max_steps, _NO_GROUP
            if client in state.step_s:
                steps, key = self._joined(groups, state.step_s[client], clock_s)
                if key == _NO_GROUP:
                    key, next_group = next_group, next_group + 1
                    steps, groups[key] = self._created(groups, state.step_s, client, clock_s)
                groups[key] = replace(groups[key], members=(*groups[key].members, client))
            group_of[client] = key
            tasks.append(Task(client, state.model.weights, settings={"local_steps": steps}))
        after = replace(state, groups=groups, group_of=group_of, next_group=next_group)
        until_s = min((group.latest_s for group in groups.values()), default=math.inf)
        return after, Plan(sorted(tasks, key=lambda task: task.client_id), Wait(count=1, until_s=until_s))

    def _free(self, state: Compass, idle: Sequence[ClientId], rng: np.random.Generator) -> Sequence[ClientId]:
        """Whom to give a task."""
        waiting = {held.update.client_id for group in state.groups.values() for held in group.held}
        return refill(idle, self.concurrency, len(state.group_of) + len(waiting), rng, besides=waiting)

    def _joined(self, groups: Mapping[int, Group], step_s: float, clock_s: float) -> tuple[int, int]:
        """Steps and number of the group in which a client can do the most; of the oldest of equals."""
        best, number = 0, _NO_GROUP
        for key, group in groups.items():
            steps = steps_to_join(group.expected_s, step_s, clock_s)
            if self.min_steps <= steps <= self.max_steps and steps > best:
                best, number = steps, key
        return best, number

    def _created(
        self, groups: Mapping[int, Group], step_s: Mapping[int, float], client: ClientId, clock_s: float
    ) -> tuple[int, Group]:
        """Steps and group of a client that opens one."""
        own_s = step_s[client]
        meetings_s = [
            group.latest_s + self.max_steps * min(step_s[member] for member in group.members)
            for group in groups.values()
        ]
        steps = steps_to_create(meetings_s, own_s, clock_s, self.min_steps, self.max_steps)
        return steps, Group(clock_s + steps * own_s, clock_s + self.latest * steps * own_s, ())

    def fold(
        self, state: Compass, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Hold the answers for their groups; step by what is due."""
        step_s, groups, group_of = dict(state.step_s), dict(state.groups), dict(state.group_of)
        due: list[Held] = []
        late, cohort = list(state.late), set[ClientId]()
        for arrival in arrivals:
            key = group_of.pop(arrival.task.client_id)
            if key == _NO_GROUP:
                cohort.add(arrival.task.client_id)
            if arrival.update is None:
                continue
            held = _held(arrival.update, arrival, state.version)
            self._measure(step_s, arrival, held.steps)
            if key == _NO_GROUP:
                due.append(held)
            elif key in groups:
                groups[key] = replace(groups[key], held=(*groups[key].held, held))
            else:
                late.append(held)
        awaited = set(group_of.values())
        closing = [key for key, group in groups.items() if clock_s >= group.latest_s or key not in awaited]
        for key in closing:
            group = groups.pop(key)
            due += group.held
            cohort.update(group.members)
        if due or closing:
            due += late
            cohort.update(held.update.client_id for held in late)
            late = []
        after = replace(state, step_s=step_s, groups=groups, group_of=group_of, late=tuple(late))
        return self._step(after, due, cohort, rng)

    def _measure(self, step_s: dict[int, float], arrival: Arrival, steps: int) -> None:
        """Bring a client's speed up to date; a measurement that makes no sense is left out."""
        measured_s = (arrival.arrived_s - arrival.sent_s) / steps if steps > 0 else math.nan
        if not 0 < measured_s < math.inf:
            return
        client, rate = arrival.task.client_id, self.speed_rate
        known_s = step_s.get(client, measured_s)
        # Written so that equal measurements leave the estimate to the bit: equal clients stay equal.
        step_s[client] = known_s + rate * (measured_s - known_s)

    def _step(
        self, state: Compass, due: Sequence[Held], cohort: Iterable[ClientId], rng: np.random.Generator
    ) -> Fold:
        if not due:
            return Fold(state, 0)
        due = sorted(due, key=lambda held: held.task)
        updates = [replace(held.update, factor=self.staleness(state.version - held.version)) for held in due]
        num_busy = state.num_clients if self.concurrency is None else self.concurrency
        server_lr = self.alpha * (len(due) / num_busy)  # the mean that it scales is over len(due)
        model, metrics = stepped(
            state.model, updates, "clients", server_lr, self.combine, sorted(cohort), rng
        )
        steps = [held.steps for held in due]
        numbers = {**metrics, "least_local_steps": float(min(steps)), "most_local_steps": float(max(steps))}
        return Fold(replace(state, model=model, version=state.version + 1), 1, metrics=numbers)

    def models(self, state: Compass) -> Mapping[str, Weights]:
        """The global model; what waits for a group is not in it."""
        return {"global": state.model.weights}

    def serve(self, state: Compass, client_id: ClientId | None) -> Sequence[Weights]:
        """The global model serves everybody."""
        return [state.model.weights]


def steps_to_join(expected_s: float, step_s: float, clock_s: float) -> int:
    """Whole steps of ``step_s`` seconds from ``clock_s`` to ``expected_s``; below 0 if that is past."""
    return math.floor((expected_s - clock_s) / step_s + _PART_OF_A_STEP)


def steps_to_create(
    meetings_s: Sequence[float], step_s: float, clock_s: float, min_steps: int, max_steps: int
) -> int:
    """Steps with which a client that can join no group should meet one of them the next time.

    Args:
        meetings_s: of each open group the time at which its fastest member, sent anew at the group's
            latest time with ``max_steps``, would be back.
        step_s: of one step of the client.
        clock_s: now.
        min_steps: fewest.
        max_steps: most, and the answer where there is no group to meet.
    """
    reachable = [steps_to_join(meeting_s, step_s, clock_s) for meeting_s in meetings_s]
    return max(min_steps, max((steps for steps in reachable if steps <= max_steps), default=max_steps))


def _held(update: Update, arrival: Arrival, version: int) -> Held:
    """The answer with what its step will ask; steps as the client counts them, else as it was told."""
    steps = int(update.metrics.get("steps_done", arrival.task.settings["local_steps"]))
    return Held(update, version - arrival.staleness, arrival.task.number, steps)
