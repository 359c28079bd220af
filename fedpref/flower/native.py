"""A Flower strategy as a fedpref strategy: unmodified, reproducible, resumable.

Its ``configure_train`` is the plan, all replies the wait, its ``aggregate_train`` the fold. Flower
strategies keep their memory in attributes; here it is taken out as plain data after each call and put into
a fresh copy before the next, so that the wrapped object itself never changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.exception import AppExitException
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Bulyan, Krum, MultiKrum
from flwr.serverapp.strategy import Strategy as NativeStrategy

from fedpref.errors import ConfigurationError, FederationError, FedprefError
from fedpref.flower import _shim
from fedpref.flower.fence import rng_fence
from fedpref.flower.memory import FlowerArrays, FlowerMemory, memory_of, recalled
from fedpref.flower.wire import NUM_EXAMPLES, named_arrays, named_weights, schema_of
from fedpref.types import Arrival, ClientId, Fold, Fresh, Plan, Task, Weights

# The classes of the state are names of this module, so that a checkpoint finds them beside the strategy.
__all__ = ["FlowerArrays", "FlowerMemory", "FlowerState", "FlowerStrategy"]

_CLIENT_FAILED = 2  # Flower's error code
_NO_FRACTION = 1e-9  # above 0, which would switch training off; below one node, so that the minimum decides


@dataclass(frozen=True, eq=False)
class FlowerState:
    """What a Flower run keeps: the round, the global weights (float32), the strategy's memory."""

    round_index: int
    weights: Weights
    memory: FlowerMemory


@dataclass(frozen=True, eq=False)
class FlowerStrategy:
    """Runs a Flower strategy in fedpref's loop, behind its reply validation.

    Attributes:
        inner: the Flower strategy; never changed.
        cohort_size: clients a round; None leaves the numbers and fractions of ``inner`` as they are.
    """

    inner: NativeStrategy
    cohort_size: int | None = None

    def __post_init__(self) -> None:
        if self.cohort_size is None:
            return
        if self.cohort_size < 1:
            raise ConfigurationError(f"cohort_size={self.cohort_size} must be at least 1")
        _require_replies(self.inner, self.cohort_size)

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> FlowerState:
        """Global weights at the address ("global",), as fedpref's own strategies have."""
        if self.cohort_size is not None and self.cohort_size > len(clients):
            raise ConfigurationError(
                f"cohort_size={self.cohort_size} is larger than the population of {len(clients)} clients"
            )
        _require_nodes(self.inner, self.cohort_size, len(clients), ConfigurationError)
        if self.cohort_size is None:
            fraction, least = (getattr(self.inner, name, 1) for name in ("fraction_train", "min_train_nodes"))
            _require_replies(self.inner, max(int(fraction * len(clients)), least))
        return FlowerState(0, fresh("global"), memory_of(self.inner))

    def plan(
        self, state: FlowerState, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[FlowerState, Plan]:
        """What ``configure_train`` sends, client by client in ascending order."""
        if not idle:
            return state, Plan(())
        _require_nodes(self.inner, self.cohort_size, len(idle), FederationError)
        _shim.adopt_process()
        inner = recalled(self.inner, state.memory)
        if self.cohort_size is not None:
            _set_cohort(inner, min(self.cohort_size, len(idle)))
        with rng_fence(int(rng.integers(2**32))):
            messages = list(
                inner.configure_train(
                    state.round_index + 1, named_arrays(state.weights), ConfigRecord(), _StubGrid(idle)
                )
            )
        tasks = sorted(_tasks_of(messages), key=lambda task: task.client_id)
        planned = FlowerState(state.round_index, state.weights, memory_of(inner, self.inner))
        return planned, Plan(tasks)

    def fold(
        self, state: FlowerState, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """What ``aggregate_train`` makes of the answers; no arrays means that the model stays."""
        _shim.adopt_process()
        inner = recalled(self.inner, state.memory)
        replies = _replies_of(arrivals, getattr(inner, "arrayrecord_key", "arrays"))
        round_index = state.round_index + 1
        try:
            with rng_fence(int(rng.integers(2**32))):
                arrays, metrics = inner.aggregate_train(round_index, replies)
        except AppExitException as error:
            raise FederationError(f"round {round_index}: {type(inner).__name__} stopped: {error}") from error
        weights = state.weights if arrays is None else _checked(named_weights(arrays), state, inner)
        numbers = {key: float(v) for key, v in (metrics or {}).items() if isinstance(v, (int, float))}
        new = FlowerState(round_index, weights, memory_of(inner, self.inner))
        return Fold(new, arrays is not None, metrics=numbers)

    def models(self, state: FlowerState) -> Mapping[str, Weights]:
        """The global model."""
        return {"global": state.weights}

    def serve(self, state: FlowerState, client_id: ClientId | None) -> Sequence[Weights]:
        """The global model serves everybody."""
        return [state.weights]


# ---------------------------------------------------------------------- messages, there and back


class _StubGrid(Grid):  # type: ignore[misc]  # Flower is untyped here
    """What a Flower strategy asks while it plans: who is there."""

    def __init__(self, node_ids: Sequence[int]) -> None:
        self._node_ids = sorted(node_ids)

    def get_node_ids(self) -> list[int]:
        return list(self._node_ids)

    def set_run(self, run: _shim.Run) -> None:
        _refuse("set_run")

    @property
    def run(self) -> _shim.Run:
        return _shim.empty_run()

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return Message(*args, **kwargs)

    def push_messages(self, messages: Any) -> Any:
        _refuse("push_messages")

    def pull_messages(self, message_ids: Any) -> Any:
        _refuse("pull_messages")

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        _refuse("send_and_receive")


def _refuse(method: str) -> None:
    raise FederationError(f"a Flower strategy called {method} while planning: it must return its messages")


def _tasks_of(messages: Sequence[Message]) -> list[Task]:
    shared: dict[int, Weights] = {}
    tasks = []
    for message in messages:
        record = next(iter(message.content.array_records.values()))
        if id(record) not in shared:
            shared[id(record)] = named_weights(record)
        settings = {
            key.replace("-", "_"): value
            for config in message.content.config_records.values()
            for key, value in config.items()
            if isinstance(value, (bool, int, float, str))
        }
        tasks.append(Task(message.metadata.dst_node_id, shared[id(record)], settings=settings))
    return tasks


def _replies_of(arrivals: Sequence[Arrival], arrays_key: str) -> list[Message]:
    """Arrivals as Flower replies, copies throughout, with the metrics that all of them report."""
    reported = [set(arrival.update.metrics) for arrival in arrivals if arrival.update is not None]
    common = set.intersection(*reported) if reported else set[str]()
    replies = []
    for arrival in arrivals:
        asked = Message(RecordDict(), arrival.task.client_id, "train")
        _shim.stamp(asked, f"task-{arrival.task.number}")
        if arrival.update is None:
            error = Error(_CLIENT_FAILED, f"{arrival.code}: {arrival.detail}")
            replies.append(Message(error, reply_to=asked))
            continue
        metrics: dict[str, float] = {key: arrival.update.metrics[key] for key in sorted(common)}
        content = {
            arrays_key: named_arrays(arrival.update.weights),
            "metrics": MetricRecord({NUM_EXAMPLES: arrival.update.num_pairs, **metrics}),
        }
        replies.append(Message(RecordDict(content), reply_to=asked))
    return replies


def _checked(weights: Weights, state: FlowerState, inner: NativeStrategy) -> Weights:
    name = type(inner).__name__
    if schema_of(weights) != schema_of(state.weights):
        raise FederationError(f"{name} returned arrays {schema_of(weights)}, sent {schema_of(state.weights)}")
    for key, array in weights.items():
        if not np.all(np.isfinite(array)):
            raise FederationError(f"{name} made array '{key}' non-finite out of finite answers")
    return weights


# ---------------------------------------------------------------------------------- cohort


def _set_cohort(strategy: NativeStrategy, cohort_size: int) -> None:
    """Make a Flower strategy, and what it wraps, choose ``cohort_size`` nodes exactly."""
    values = {
        "fraction_train": _NO_FRACTION,
        "min_train_nodes": cohort_size,
        "min_available_nodes": cohort_size,
    }
    for name, value in values.items():
        if hasattr(strategy, name):
            setattr(strategy, name, value)
    for part in vars(strategy).values():
        if isinstance(part, NativeStrategy):
            _set_cohort(part, cohort_size)


def _require_nodes(
    strategy: NativeStrategy, cohort_size: int | None, num_idle: int, error: type[FedprefError]
) -> None:
    """Refuse to plan where Flower would wait for more nodes, which in virtual time is for ever."""
    fraction = getattr(strategy, "fraction_train", 1.0)
    if cohort_size is None and fraction > 1:
        raise error(f"strategy.fraction_train={fraction} must be at most 1")
    for name in ("min_train_nodes", "min_available_nodes"):
        needed = getattr(strategy, name, 0)
        if cohort_size is None and needed > num_idle:
            raise error(
                f"strategy.{name}={needed} is more than the idle clients ({num_idle}): "
                "lower it, or set cohort_size"
            )
    for part in vars(strategy).values():
        if isinstance(part, NativeStrategy):
            _require_nodes(part, cohort_size, num_idle, error)


def _require_replies(strategy: NativeStrategy, cohort_size: int) -> None:
    needed = _needed_replies(strategy)
    if cohort_size < needed:
        name = type(strategy).__name__
        raise ConfigurationError(
            f"strategy.num_malicious_nodes={strategy.num_malicious_nodes}: {name} needs at least "
            f"{needed} replies per round; cohort_size={cohort_size}"
        )


def _needed_replies(strategy: NativeStrategy) -> int:
    """Replies without which a robust rule has no meaning, by its paper; 1 for other strategies."""
    if isinstance(strategy, Bulyan):
        return 4 * int(strategy.num_malicious_nodes) + 3
    if isinstance(strategy, (Krum, MultiKrum)):
        return 2 * int(strategy.num_malicious_nodes) + 3
    return 1
