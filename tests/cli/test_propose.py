"""The next point of a search depends on the trials before it alone."""

import builtins
import itertools
import sys
from collections.abc import Callable
from typing import Any

import pytest

from fedpref.cli.propose import Tried, propose, require_optuna
from fedpref.cli.space import Choice, Dimension, Point, Range
from fedpref.errors import ConfigurationError

HAS_OPTUNA = True
try:
    import optuna  # noqa: F401
except ModuleNotFoundError:
    HAS_OPTUNA = False
needs_optuna = pytest.mark.skipif(not HAS_OPTUNA, reason="Optuna is absent: pip install 'fedpref[tune]'")

LR = Range("lr", 0.001, 10.0, True)
SHARE = Range("share", 0.0, 1.0, False)
KIND = Choice("kind", ("a", "b", "c"))


def search(
    space: list[Dimension], count: int, value: Callable[[Point], float | None], seed: int = 0
) -> list[Tried]:
    tried: list[Tried] = []
    while len(tried) < count:
        point = propose(space, tried, seed)
        if point is None:
            break
        tried.append(Tried(point, value(point)))
    return tried


def valley(point: Point) -> float:
    return -abs(float(point["share"]) - 0.3) + 0.1 * (point["kind"] == "b")


@needs_optuna
def test_equal_trials_give_equal_points_and_other_seeds_others() -> None:
    first, second, other = (search([SHARE, KIND], 15, valley, seed) for seed in (0, 0, 1))
    assert first == second != other


@needs_optuna
def test_a_long_search_begins_with_the_short_one() -> None:
    assert search([SHARE, KIND], 20, valley)[:12] == search([SHARE, KIND], 12, valley)


@needs_optuna
def test_points_lie_within_their_space_and_have_four_digits() -> None:
    for tried in search([LR, KIND], 20, lambda point: 0.0):
        lr = tried.point["lr"]
        assert isinstance(lr, float) and 0.001 <= lr <= 10.0 and lr == float(f"{lr:.4g}")
        assert tried.point["kind"] in KIND.values


@needs_optuna
def test_random_points_of_a_logarithmic_range_are_as_often_small_as_large() -> None:
    drawn = [propose([LR], [], seed) for seed in range(200)]
    below = sum(float(point["lr"]) < 0.1 for point in drawn if point is not None)
    assert 70 < below < 130  # half of 200, four standard deviations either way


@needs_optuna
def test_later_points_gather_where_earlier_ones_were_good() -> None:
    points = [
        float(tried.point["share"]) for tried in search([SHARE], 40, lambda p: -abs(float(p["share"]) - 0.3))
    ]
    first, last = points[:10], points[-10:]
    assert sum(abs(x - 0.3) for x in last) < 0.5 * sum(abs(x - 0.3) for x in first)


@needs_optuna
def test_a_finite_space_is_tried_once_as_a_whole_and_then_the_search_ends() -> None:
    other = Choice("other", ("1", "2", "3", "4"))
    tried = search([KIND, other], 100, lambda point: float(str(point["other"])))
    points = {(str(trial.point["kind"]), str(trial.point["other"])) for trial in tried}
    assert points == set(itertools.product(KIND.values, other.values)) and len(tried) == 12


@needs_optuna
def test_failed_trials_are_no_reason_to_stop_nor_tried_again() -> None:
    tried = search([KIND], 10, lambda point: None)
    assert sorted(str(trial.point["kind"]) for trial in tried) == ["a", "b", "c"]
    assert len(search([SHARE], 15, lambda point: None if float(point["share"]) > 0.5 else 1.0)) == 15


def test_without_optuna_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name == "optuna":
            raise ModuleNotFoundError("No module named 'optuna'", name="optuna")
        return there(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "optuna", raising=False)
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigurationError, match=r"pip install 'fedpref\[tune\]'"):
        require_optuna()
    with pytest.raises(ConfigurationError, match=r"pip install 'fedpref\[tune\]'"):
        propose([LR], [], 0)
