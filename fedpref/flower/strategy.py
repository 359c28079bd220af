"""A fedpref strategy as a Flower ``Strategy``: it runs in any Flower ``ServerApp``, over any ``Grid``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result
from flwr.serverapp.strategy import Strategy as NativeStrategy

from fedpref.errors import ConfigurationError
from fedpref.flower.exchange import Exchange
from fedpref.flower.rounds import Rounds
from fedpref.flower.timed import TimedGrid, WallGrid, await_nodes
from fedpref.flower.validation import ReplyLimits
from fedpref.flower.wire import named_arrays, named_weights
from fedpref.types import Fresh, Strategy, Weights

__all__ = ["AsFlower", "as_flower", "models_as_arrays"]


def as_flower(
    strategy: Strategy[Any],
    fresh: Fresh | None = None,
    num_clients: int | None = None,
    seed: int = 0,
    limits: ReplyLimits | None = None,
) -> AsFlower:
    """Wrap a fedpref strategy for Flower.

    Args:
        strategy: the server algorithm.
        fresh: draws initial weights by address; needed by ``start`` if it gets no initial arrays.
        num_clients: how many nodes to wait for before the first round; None takes those that are there.
        seed: the run's seed.
        limits: what no honest reply exceeds.
    """
    return AsFlower(strategy, fresh, num_clients, seed, limits)


class AsFlower(NativeStrategy):  # type: ignore[misc]  # Flower is untyped here
    """Flower's face of a fedpref strategy; use :meth:`start`."""

    def __init__(
        self,
        strategy: Strategy[Any],
        fresh: Fresh | None,
        num_clients: int | None,
        seed: int,
        limits: ReplyLimits | None,
    ) -> None:
        self._strategy = strategy
        self._fresh = fresh
        self._num_clients = num_clients
        self._seed = seed
        self._limits = limits

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Plan, wait and fold ``num_rounds`` times.

        Args:
            grid: any Flower grid: Flower's own in wall time, fedpref's in virtual time.
            initial_arrays: named float arrays from which every model starts; empty to draw from ``fresh``.
            num_rounds: rounds, each one plan, wait and fold.
            timeout: the longest that a task may take, and that the first round waits for its nodes, in
                seconds of the grid's clock.
            train_config: must be empty: settings come from the strategy and the client rule.
            evaluate_config: must be empty, too.
            evaluate_fn: called before the first round and after each with the models as arrays.

        Raises:
            ConfigurationError: settings that would be ignored, or no initial weights.
            FederationError: a round in which no client answered.
        """
        if train_config or evaluate_config:
            raise ConfigurationError(
                "train_config, evaluate_config: a fedpref strategy sends its own settings; give them to the "
                "strategy or the client rule"
            )
        fresh = self._fresh_weights(initial_arrays)
        timed = grid if isinstance(grid, TimedGrid) else WallGrid(grid)
        nodes = await_nodes(timed, self._num_clients, timeout)
        exchange = Exchange(timed, nodes, self._seed, self._limits, patience_s=timeout)
        clients = range(len(nodes))
        rounds = Rounds(self._strategy, exchange, clients, fresh, self._seed, num_rounds, max_wait_s=timeout)
        result = Result()
        for round_index in range(num_rounds + 1):
            if round_index:
                outcome = rounds.advance()
                if outcome.fold.metrics:
                    metrics = MetricRecord(dict(outcome.fold.metrics))
                    result.train_metrics_clientapp[round_index] = metrics
            result.arrays = models_as_arrays(self._strategy.models(rounds.state))
            if evaluate_fn and (measured := evaluate_fn(round_index, result.arrays)) is not None:
                result.evaluate_metrics_serverapp[round_index] = measured
        return result

    def _fresh_weights(self, initial_arrays: ArrayRecord) -> Fresh:
        if initial_arrays:
            weights = named_weights(initial_arrays)
            return lambda *address: {key: array.copy() for key, array in weights.items()}
        if self._fresh is None:
            raise ConfigurationError("initial_arrays is empty: give it weights, or give as_flower a `fresh`")
        return self._fresh

    def summary(self) -> None:
        """Nothing to tell: the strategy's own repr says it all."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> NoReturn:
        """Refused: this strategy is stepped by :meth:`start`."""
        _refuse()

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> NoReturn:
        """Refused: this strategy is stepped by :meth:`start`."""
        _refuse()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> NoReturn:
        """Refused: this strategy is stepped by :meth:`start`."""
        _refuse()

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> NoReturn:
        """Refused: this strategy is stepped by :meth:`start`."""
        _refuse()


def models_as_arrays(models: Mapping[str, Weights]) -> ArrayRecord:
    """Models as one record: names as they are for a single model, else ``<model>/<name>``."""
    if len(models) == 1:
        return named_arrays(next(iter(models.values())))
    return named_arrays(
        {f"{model}/{key}": a for model, weights in models.items() for key, a in weights.items()}
    )


def _refuse() -> NoReturn:
    raise NotImplementedError(
        "plan, wait and fold do not fit Flower's four steps: call start(grid, initial_arrays, num_rounds)"
    )
