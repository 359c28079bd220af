from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedpref.evaluation import evaluate
from fedpref.seeds import generator
from fedpref.types import ClientState, HeldOut, Pairs, Population, Shard, Weights


def features(*chosen: float) -> Pairs:
    blank = ("",) * len(chosen)
    column = np.asarray(chosen, dtype=np.float64).reshape(-1, 1)
    return Pairs(blank, column, np.zeros_like(column), blank, blank)


@dataclass(frozen=True)
class Flips:
    """A client that keeps a sign turns the shared weight by it. Counts the pairs of every call."""

    calls: list[int] = field(default_factory=list)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        self.calls.append(len(pairs))
        return np.asarray((np.asarray(pairs.chosen) - np.asarray(pairs.rejected)) @ weights["w"])

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        return {"w": weights["w"] * state.arrays.get("sign", np.ones(1))}


class Serving:
    def serve(self, state: Any, client_id: int | None) -> list[Weights]:
        return [state]


def kept(client_id: int) -> ClientState:
    return ClientState({"sign": np.array([-1.0])} if client_id == 1 else {})


def test_everybody_is_also_scored_without_an_own_part_but_newcomers_have_none() -> None:
    # Client 1 dislikes what the shared weight likes; client 0 and the newcomer are as the shared weight.
    pairs = [features(1.0, 2.0), features(-1.0, -2.0, -3.0), features(1.0)]
    held_out = [HeldOut(f"p{i}", None if i == 2 else i, part) for i, part in enumerate(pairs)]
    population = Population([Shard(i, f"c{i}", features()) for i in range(2)], held_out)
    rule = Flips()
    result = evaluate(rule, Serving(), {"w": np.ones(1)}, population, generator(0), kept)  # type: ignore[arg-type]
    assert [user.accuracy for user in result.users] == [1.0, 1.0, 1.0]
    assert [user.shared_accuracy for user in result.users] == [1.0, 0.0, None]
    assert "shared_accuracy" not in result.users[2].as_row()
    # The shared model is asked once for all clients: 2 + 3 pairs.
    assert sum(rule.calls) == 6 + 5 and rule.calls[-1] == 5
