import math

import numpy as np
import pytest

from fedpref.maths.assignment import balanced_assignment, lowest_loss
from fedpref.seeds import generator


def restated(losses: np.ndarray, order: list[int]) -> list[int]:
    """The published procedure once more, as slowly and plainly as possible."""
    num_clients, num_selectors = losses.shape
    closed: dict[int, list[int]] = {}
    inside: dict[int, list[int]] = {u: [] for u in range(num_selectors)}
    todo = list(order)
    while sum(len(group) for group in closed.values()) < num_clients:
        left = num_clients - sum(len(group) for group in closed.values())
        cap = -(-left // (num_selectors - len(closed)))
        for client in todo:
            best, best_loss = None, None
            for u in range(num_selectors):
                if u in closed:
                    continue
                loss = losses[client, u]
                loss = math.inf if math.isnan(loss) else loss
                if best_loss is None or loss < best_loss:
                    best, best_loss = u, loss
            assert best is not None
            inside[best].append(client)
        most = max(len(inside[u]) for u in range(num_selectors) if u not in closed)
        u = next(u for u in range(num_selectors) if u not in closed and len(inside[u]) == most)
        closed[u], todo = inside[u][:cap], inside[u][cap:]
    answer = [-1] * num_clients
    for u, group in closed.items():
        for client in group:
            answer[client] = u
    return answer


def test_a_thousand_random_cases_equal_the_restatement_and_no_group_is_too_large() -> None:
    smaller_than_selectors = with_nan = 0
    for case in range(1000):
        rng = generator(0, "assignment", case)
        num_clients, num_selectors = int(rng.integers(1, 30)), int(rng.integers(1, 8))
        losses = np.round(rng.uniform(size=(num_clients, num_selectors)), int(rng.integers(0, 3)))  # ties
        losses[rng.uniform(size=losses.shape) < 0.1] = np.nan
        losses[rng.uniform(size=losses.shape) < 0.05] = np.inf
        order = rng.permutation(num_clients).tolist()
        found = balanced_assignment(losses, order)
        assert found.tolist() == restated(losses, order)
        sizes = np.bincount(found, minlength=num_selectors)
        assert sizes.max() <= math.ceil(num_clients / num_selectors)
        assert sizes.sum() == num_clients
        smaller_than_selectors += num_clients < num_selectors
        with_nan += bool(np.isnan(losses).any())
    assert smaller_than_selectors > 50 and with_nan > 500  # the hard cases did occur


def test_everybody_gets_the_first_choice_where_groups_permit() -> None:
    losses = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert balanced_assignment(losses, [3, 2, 1, 0]).tolist() == [0, 1, 0, 1]


def test_the_overflow_is_decided_by_arrival_and_not_by_loss() -> None:
    losses = np.array([[0.1, 0.9], [0.2, 0.9], [0.0, 0.9]])  # all prefer 0; room for two
    assert balanced_assignment(losses, [0, 1, 2]).tolist() == [0, 0, 1]
    assert balanced_assignment(losses, [2, 1, 0]).tolist() == [1, 0, 0]


def test_an_order_that_is_no_permutation_is_refused() -> None:
    with pytest.raises(ValueError, match="permutation"):
        balanced_assignment(np.zeros((3, 2)), [0, 0, 1])


def test_the_lowest_loss_is_chosen_and_ties_are_broken_evenly() -> None:
    losses = np.array([[1.0, 0.0, np.nan]] * 5 + [[0.5, 0.5, np.nan]] * 4000)
    chosen = lowest_loss(losses, generator(0, "ties"))
    assert chosen[:5].tolist() == [1] * 5
    share = np.mean(chosen[5:] == 0)
    assert set(chosen[5:].tolist()) == {0, 1}
    assert abs(share - 0.5) < 5 * 0.5 / math.sqrt(4000)


def test_a_client_without_any_finite_loss_goes_anywhere() -> None:
    chosen = lowest_loss(np.full((300, 3), np.nan), generator(0, "ties"))
    assert set(chosen.tolist()) == {0, 1, 2}
